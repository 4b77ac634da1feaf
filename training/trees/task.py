"""Task trees as text: the JSON of the reasoning schema, and the views that pruning leaves of it while it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = str | int


@dataclass(frozen=True)
class ToolUse:
    """One call and its result."""

    tool_name: str
    parameters: dict[str, Value]
    tool_result: Value


@dataclass(frozen=True)
class Task:
    """A node: a thought, then one tool call or a list of subtasks or neither (here never both), then a conclusion."""

    thought: str
    conclusion: str
    tooluse: ToolUse | None = None
    subtasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Some text of a tree. `given` is True for what a tool, not the model, writes."""

    text: str
    given: bool = False


@dataclass
class View:
    """What the model has before it at some moment, and what it then writes until the next pruning changes the view."""

    context: str
    target: list[Piece] = field(default_factory=list)


def dumps(value: Any) -> str:
    """Compact JSON, as the grammar wants it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def views(reasoning: Sequence[Task], answer: str) -> list[View]:
    """Every view of a run with pruning at `keep=0`, from the first token to the last.

    A list of subtasks goes when the conclusion of its parent closes; the text written so far becomes the next context.
    """
    found = [View("")]
    _emit(found, '{"reasoning":[')
    _emit_list(found, reasoning)
    _emit(found, f'],"answer":{dumps(answer)}}}')
    return found


def text_of(reasoning: Sequence[Task], answer: str) -> str:
    """The whole run, nothing pruned."""
    return dumps({"reasoning": [_plain(task) for task in reasoning], "answer": answer})


def count_calls(reasoning: Sequence[Task]) -> int:
    """How many tool calls a run makes."""
    return sum((task.tooluse is not None) + count_calls(task.subtasks) for task in reasoning)


def grouped(steps: Sequence[Task], height: int, width: int, thought: str = "level {level}") -> list[Task]:
    """Steps as a tree of this height whose lists hold at most `width` tasks (the top one may grow).

    The conclusion of a group is that of its last step.
    """
    tasks = list(steps)
    for level in range(1, height):
        tasks = [
            Task(thought.format(level=level), conclusion=part[-1].conclusion, subtasks=tuple(part))
            for part in (tasks[at : at + width] for at in range(0, len(tasks), width))
        ]
    return tasks


def _emit(found: list[View], text: str, *, given: bool = False) -> None:
    found[-1].target.append(Piece(text, given))


def _emit_list(found: list[View], tasks: Sequence[Task]) -> None:
    for index, task in enumerate(tasks):
        if index:
            _emit(found, ",")
        _emit_task(found, task)


def _emit_task(found: list[View], task: Task) -> None:
    if not task.subtasks:
        found[-1].target += task_pieces(task)
    else:
        _emit(found, f'{{"thought":{dumps(task.thought)},"subtasks":[')
        kept = _written(found[-1])
        _emit_list(found, task.subtasks)
        _emit(found, f'],"conclusion":{dumps(task.conclusion)}}}')
        found.append(View(f'{kept}],"conclusion":{dumps(task.conclusion)}}}'))


def task_pieces(task: Task) -> list[Piece]:
    """A task without subtasks, as it is written."""
    if task.tooluse is None:
        return [Piece(f'{{"thought":{dumps(task.thought)},"conclusion":{dumps(task.conclusion)}}}')]
    call = task.tooluse
    head = f'{{"thought":{dumps(task.thought)},"tooluse":{{"tool_name":{dumps(call.tool_name)},'
    return [
        Piece(f'{head}"parameters":{dumps(call.parameters)},"tool_result":'),
        Piece(dumps(call.tool_result), given=True),
        Piece(f'}},"conclusion":{dumps(task.conclusion)}}}'),
    ]


def _written(view: View) -> str:
    return view.context + "".join(piece.text for piece in view.target)


def _plain(task: Task) -> dict[str, Any]:
    return dict(_fields(task))


def _fields(task: Task) -> Iterator[tuple[str, Any]]:
    yield "thought", task.thought
    if task.tooluse is not None:
        call = task.tooluse
        yield "tooluse", {"tool_name": call.tool_name, "parameters": call.parameters, "tool_result": call.tool_result}
    if task.subtasks:
        yield "subtasks", [_plain(subtask) for subtask in task.subtasks]
    yield "conclusion", task.conclusion
