"""What happens in a run, in the order in which it happens.

A node (a task) is named by its path: `(0, 2, 1)` is the second subtask of the third subtask of the first task. So the path without its last
number names the parent, and its length is the depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Path = tuple[int, ...]


@dataclass(frozen=True)
class Extent:
    """A stretch of the emitted stream, which counts from 0 and never shrinks, whatever is dropped from the context."""

    tokens: tuple[int, int]
    """First token, and the one behind the last."""
    characters: tuple[int, int]
    """First character, and the one behind the last."""


@dataclass(frozen=True)
class NodeOpened:
    """A task has begun; `token` holds its `{`."""

    node: Path
    token: int


@dataclass(frozen=True)
class FieldDelta:
    """A text field of a task has grown by `text`, which is decoded (lone surrogates are replaced) and never empty."""

    node: Path
    field: str
    text: str


@dataclass(frozen=True)
class FieldClosed:
    """A text field is complete. `extent`: every token that holds some of it, and its characters with the quotes."""

    node: Path
    field: str
    extent: Extent


@dataclass(frozen=True)
class ToolRequested:
    """`"tool_result":` was written: now the runtime must write the result.

    It is always the last event of a `feed`, because the reader stops there. `rest` is what the same token held behind the colon,
    unread: the model had begun to write a result of its own. Take it out of the stream, or feed it.
    """

    node: Path
    tool_name: str
    parameters: dict[str, Any]
    rest: str = ""


@dataclass(frozen=True)
class ToolAnswered:
    """The result stands in the stream. That a number has ended is known only from the character behind it."""

    node: Path
    result: Any
    extent: Extent


@dataclass(frozen=True)
class ListClosed:
    """The subtasks of `node` have reached their `]`.

    `inside` is what stands between the brackets: its characters, and the tokens that hold nothing else. Where a token holds a
    bracket and something of the inside as well, as `[{"` does, the tokens alone do not empty the list: see `runtime.tasks.resident`.
    """

    node: Path
    inside: Extent


@dataclass(frozen=True)
class Concluded:
    """The conclusion of a task is complete."""

    node: Path


@dataclass(frozen=True)
class NodeClosed:
    """A task has ended. `extent`: every token that holds some of it."""

    node: Path
    extent: Extent


@dataclass(frozen=True)
class ListPruned:
    """The subtasks of `node` leave the context. Comes from the pruning stack, not from the reader."""

    node: Path
    inside: Extent


@dataclass(frozen=True)
class AnswerDelta:
    """The answer has grown by `text`; only where the answer is a string."""

    text: str


@dataclass(frozen=True)
class Answered:
    """The answer is complete: any JSON value."""

    value: Any


Event = (
    NodeOpened
    | FieldDelta
    | FieldClosed
    | ToolRequested
    | ToolAnswered
    | ListClosed
    | Concluded
    | NodeClosed
    | ListPruned
    | AnswerDelta
    | Answered
)
