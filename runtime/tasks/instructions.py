"""What a model is told of task trees when it was not trained on them."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.tools import Tool, dumps

_FORMAT = """\
You answer by a tree of tasks, as one JSON object: {"reasoning":[tasks],"answer":...}. A task is an object with, in this order: "thought": \
what is known and what to do now; if it needs a tool, "tooluse": {"tool_name":...,"parameters":{...},"tool_result":...}, where the \
result is filled in for you; if it is too large for one step, "subtasks": [smaller tasks]; and "conclusion": what later tasks need to \
know of it. Once a task has its conclusion, its subtasks are forgotten: write into the conclusion everything that must be kept, with \
names and numbers. Keep every list short, and divide long work over several levels."""


def instructions(tools: Sequence[Tool]) -> str:
    """The format, and the tools with their parameters."""
    if not tools:
        return _FORMAT
    lines = [
        f"- {tool.name}: {tool.description or 'no description'} Parameters: {dumps(dict(tool.parameters))}" for tool in tools
    ]
    return f"{_FORMAT}\n\nTools:\n" + "\n".join(lines)
