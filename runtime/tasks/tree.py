"""The tree of a run, as its events build it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.tasks.events import (
    AnswerDelta,
    Answered,
    Event,
    FieldClosed,
    FieldDelta,
    ListClosed,
    ListPruned,
    NodeClosed,
    NodeOpened,
    Path,
    ToolAnswered,
    ToolRequested,
)


@dataclass
class Call:
    """A tool call of a task; `result` means nothing until it is `answered`."""

    tool_name: str
    parameters: dict[str, Any]
    answered: bool = False
    result: Any = None

    def to_json(self) -> dict[str, Any]:
        written = {"tool_name": self.tool_name, "parameters": self.parameters}
        return {**written, "tool_result": self.result} if self.answered else written


@dataclass
class Node:
    """A task, as far as it is written."""

    path: Path
    state: Literal["open", "closed", "pruned"] = "open"
    """Pruned: the task stood in a list that has left the context."""
    fields: dict[str, str] = field(default_factory=dict)
    """The text fields."""
    tooluse: Call | None = None
    subtasks: list[Node] | None = None
    subtasks_pruned: bool = False
    tokens: int = 0
    """Tokens that were emitted for the task and everything below it; 0 while it is open."""
    subtasks_tokens: int = 0
    """Those of them that stood between the brackets of its list; 0 while that is open."""

    @property
    def thought(self) -> str:
        return self.fields.get("thought", "")

    @property
    def conclusion(self) -> str:
        return self.fields.get("conclusion", "")

    def below(self) -> Iterator[Node]:
        """Everything below the task, in the order in which it was written."""
        waiting = [*reversed(self.subtasks or [])]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.subtasks or [])

    def to_json(self) -> dict[str, Any]:
        """What was written, pruned subtasks too."""
        written: dict[str, Any] = dict(self.fields)
        if self.tooluse is not None:
            written["tooluse"] = self.tooluse.to_json()
        if self.subtasks is not None:
            written["subtasks"] = [node.to_json() for node in self.subtasks]
        if "conclusion" in written:
            written["conclusion"] = written.pop("conclusion")
        return written


@dataclass
class Tree:
    """All tasks of a run, pruned ones too, and its answer."""

    reasoning: list[Node] = field(default_factory=list)
    answer: Any = None
    """Grows while it is written if it is a string."""
    answered: bool = False
    calls: int = 0
    """Tool calls that have their result."""

    def node(self, path: Path) -> Node:
        """The task at a path. Raises `IndexError` if nothing was written there."""
        nodes, found = self.reasoning, None
        for index in path:
            found = nodes[index]
            nodes = found.subtasks or []
        if found is None:
            raise IndexError("The empty path names no task.")
        return found

    @property
    def open_nodes(self) -> list[Node]:
        """The tasks that are being written, from the outermost to the innermost."""
        found: list[Node] = []
        nodes = self.reasoning
        while nodes and nodes[-1].state == "open":
            found.append(nodes[-1])
            nodes = nodes[-1].subtasks or []
        return found

    def apply(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case NodeOpened(path):
                self._add(Node(path))
            case FieldDelta(path, name, text):
                fields = self.node(path).fields
                fields[name] = fields.get(name, "") + text
            case FieldClosed(path, name):
                self.node(path).fields.setdefault(name, "")
            case ToolRequested(path, tool_name, parameters):
                self.node(path).tooluse = Call(tool_name, parameters)
            case ToolAnswered(path, result):
                call = self.node(path).tooluse
                assert call is not None
                call.result, call.answered = result, True
                self.calls += 1
            case ListClosed(path, inside):
                node = self.node(path)
                node.subtasks, node.subtasks_tokens = node.subtasks or [], _length(inside.tokens)
            case NodeClosed(path, extent):
                node = self.node(path)
                node.state, node.tokens = "closed", _length(extent.tokens)
            case ListPruned(path):
                node = self.node(path)
                node.subtasks_pruned = True
                for pruned in node.below():
                    pruned.state = "pruned"
            case AnswerDelta(text):
                self.answer = (self.answer or "") + text
            case Answered(value):
                self.answer, self.answered = value, True

    def to_json(self) -> dict[str, Any]:
        """The run as it was written; equal to what `json.loads` makes of its text. No answer before it is complete."""
        reasoning = [node.to_json() for node in self.reasoning]
        return {"reasoning": reasoning, "answer": self.answer} if self.answered else {"reasoning": reasoning}

    def _add(self, node: Node) -> None:
        if len(node.path) == 1:
            self.reasoning.append(node)
            return
        parent = self.node(node.path[:-1])
        if parent.subtasks is None:
            parent.subtasks = []
        parent.subtasks.append(node)


def _length(extent: tuple[int, int]) -> int:
    return extent[1] - extent[0]
