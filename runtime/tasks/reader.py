"""Reads the JSON of a run while it is written, character by character, and says what happens in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.errors import MalformedTree
from runtime.tasks.events import (
    AnswerDelta,
    Answered,
    Concluded,
    Event,
    Extent,
    FieldClosed,
    FieldDelta,
    ListClosed,
    NodeClosed,
    NodeOpened,
    Path,
    ToolAnswered,
    ToolRequested,
)

_WHITE = " \t\r\n"
_PLAIN = re.compile('[^"\\\\\ud800-\udfff]+')
"""What means itself in a JSON string."""
_Place = tuple[int, int]
"""A token and a character of the emitted stream."""


class TaskReader:
    """Turns the text of a run, `{"reasoning":[...],"answer":...}`, into events. What it remembers grows with depth, not length.

    The text may be cut in any way. The fields of a task other than `tooluse` and `subtasks` are strings of any name; parameters,
    results and the answer are any JSON; white space between values is allowed.
    """

    def __init__(self) -> None:
        self.finished = False
        """True once the whole run was read."""
        self._here: _Place = (0, 0)
        self._last_token = 0
        self._events: list[Event] = []
        self._stack: list[_Open] = []
        self._value: _Text | _Raw | None = None
        self._value_start: _Place = (0, 0)

    def feed(self, text: str, token_index: int) -> list[Event]:
        """Read on; `text` is what the emitted token `token_index` made certain.

        The events depend on the cuts of the text only in how their deltas are cut. Reading stops at `ToolRequested`: feed the
        result next.

        Raises:
            MalformedTree: the text is not that of a run; the reader cannot be used afterwards.
        """
        self._events = []
        at = 0
        while at < len(text):
            place = self._here[1]
            self._here = (token_index, place)
            if isinstance(self._value, _Text) and (plain := self._value.push_plain(text, at)):
                requested = False
            else:
                plain, requested = 1, self._read(text[at])
            at += plain
            self._here = (token_index, place + plain)
            self._last_token = token_index
            if requested:
                self._request(text[at:])
                break
        self._flush()
        return self._events

    def _read(self, character: str) -> bool:
        """Take a character; True if the result of a tool must come next."""
        value = self._value
        if isinstance(value, _Raw) and value.ends_before(character):
            self._end_value(value, stop=(self._last_token + 1, self._here[1]))
        elif value is not None:
            if value.push(character):
                self._end_value(value, stop=self._behind)
            return False
        return character not in _WHITE and self._structure(character)

    def _structure(self, character: str) -> bool:
        """Take a character that stands between values, or begins one."""
        top = self._stack[-1] if self._stack else None
        if top is None:
            if character != "{" or self.finished:
                raise self._malformed(character)
            self._open("run", ())
            return False
        match top.expects, character:
            case "first key" | "key", '"':
                self._begin(_Text())
            case "colon", ":":
                top.expects = "value"
                return (top.sort, top.key) == ("tooluse", "tool_result")
            case "value", _:
                self._begin_value(top, character)
            case "first task" | "task", "{":
                top.expects = "comma"
                node = (*top.node, top.tasks)
                top.tasks += 1
                self._events.append(NodeOpened(node, self._here[0]))
                self._open("node", node)
            case "comma", ",":
                top.expects = "task" if top.sort == "list" else "key"
            case (("comma" | "first task" | "first key"), ("]" | "}")) if (character == "]") == (top.sort == "list"):
                self._close(self._stack.pop())
            case _:
                raise self._malformed(character)
        return False

    def _begin_value(self, top: _Open, character: str) -> None:
        match _sort_of_value(top.sort, top.key), character:
            case "tasks", "[":
                self._open("list", top.node)
            case "tooluse", "{":
                self._open("tooluse", top.node)
            case "text" | "any", '"':
                self._begin(_Text())
            case "raw" | "any", _ if character not in ",:]}":
                self._begin(_Raw(character))
            case _:
                raise self._malformed(character)
        top.expects = "comma"

    def _open(self, sort: _Sort, node: Path) -> None:
        self._stack.append(_Open(sort, node, self._here, "first task" if sort == "list" else "first key"))

    def _begin(self, value: _Text | _Raw) -> None:
        self._value, self._value_start = value, self._here

    def _end_value(self, value: _Text | _Raw, stop: _Place) -> None:
        """A string, or other JSON, is complete."""
        self._flush()
        self._value = None
        top = self._stack[-1]
        if top.expects in ("first key", "key"):
            top.key, top.expects = value.text, "colon"
            return
        extent = _extent(self._value_start, stop)
        match top.sort, top.key:
            case "node", name:
                self._events.append(FieldClosed(top.node, name, extent))
                if name == "conclusion":
                    self._events.append(Concluded(top.node))
            case "tooluse", "tool_result":
                self._events.append(ToolAnswered(top.node, self._load(value), extent))
            case "tooluse", name:
                top.call[name] = self._load(value)
            case _:
                self._events.append(Answered(self._load(value)))

    def _close(self, closed: _Open) -> None:
        """An object, or a list of tasks, has ended."""
        if closed.sort == "node":
            self._events.append(NodeClosed(closed.node, _extent(closed.start, self._behind)))
        elif closed.sort == "list" and closed.node:
            token, character = closed.start
            self._events.append(ListClosed(closed.node, _extent((token + 1, character + 1), self._here)))
        self.finished = not self._stack

    def _request(self, rest: str) -> None:
        top = self._stack[-1]
        if not top.call.keys() >= {"tool_name", "parameters"}:
            raise MalformedTree("The run asks for a tool's result before it names the tool and its parameters.")
        self._events.append(ToolRequested(top.node, top.call["tool_name"], top.call["parameters"], rest))

    def _flush(self) -> None:
        """Say how far the string that is being read has come."""
        if not isinstance(self._value, _Text) or (top := self._stack[-1]).expects != "comma":
            return
        if top.sort in ("node", "run") and (text := self._value.take()):
            self._events.append(FieldDelta(top.node, top.key, text) if top.sort == "node" else AnswerDelta(text))

    def _load(self, value: _Text | _Raw) -> Any:
        if isinstance(value, _Text):
            return value.text
        try:
            return json.loads(value.text)
        except ValueError as fault:
            raise MalformedTree(f"The run holds {value.text[:50]!r}, which is not JSON.") from fault

    @property
    def _behind(self) -> _Place:
        """The place behind the character that is being read."""
        return self._here[0] + 1, self._here[1] + 1

    def _malformed(self, character: str) -> MalformedTree:
        place = f"character {self._here[1]} of the run is {character!r}"
        if not self._stack:
            return MalformedTree(f"The text is not a task tree: {place}, {'behind' if self.finished else 'before'} the object.")
        top = self._stack[-1]
        expected = f"value of '{top.key}'" if top.expects == "value" else top.expects.removeprefix("first ")
        return MalformedTree(f"The text is not a task tree: {place}, where a {expected} should stand.")


_Sort = Literal["run", "list", "node", "tooluse"]
_Expects = Literal["first key", "key", "colon", "value", "comma", "first task", "task"]


@dataclass
class _Open:
    """An object, or list of tasks, that has not ended."""

    sort: _Sort
    node: Path
    start: _Place
    expects: _Expects
    key: str = ""
    tasks: int = 0
    call: dict[str, Any] = field(default_factory=dict)


def _sort_of_value(sort: _Sort, key: str) -> Literal["tasks", "tooluse", "text", "raw", "any", "unknown"]:
    match sort, key:
        case ("run", "reasoning") | ("node", "subtasks"):
            return "tasks"
        case "node", "tooluse":
            return "tooluse"
        case ("tooluse", "tool_name") | ("node", _):
            return "text"
        case "tooluse", "parameters" | "tool_result":
            return "raw"
        case "run", "answer":
            return "any"
    return "unknown"


def _extent(start: _Place, stop: _Place) -> Extent:
    return Extent((start[0], max(start[0], stop[0])), (start[1], stop[1]))


class _Text:
    """A JSON string, decoded as it comes."""

    def __init__(self) -> None:
        self.text = ""
        self._taken = 0
        self._escape = ""
        self._high = ""
        """The first half of a character outside the basic plane."""

    def push(self, character: str) -> bool:
        """Take a character behind the opening quote; True if it closes the string."""
        if self._escape:
            self._escape += character
            if len(self._escape) == (6 if self._escape[1] == "u" else 2):
                escape, self._escape = self._escape, ""
                self._add(_unescape(escape))
        elif character == "\\":
            self._escape = character
        elif character == '"':
            self._add("")
            return True
        else:
            self._add(character)
        return False

    def push_plain(self, text: str, at: int) -> int:
        """Take what stands at place `at` of the text and means itself; how many characters that are."""
        if self._escape or self._high or (plain := _PLAIN.match(text, at)) is None:
            return 0
        self.text += plain[0]
        return len(plain[0])

    def take(self) -> str:
        """What is new since the last time."""
        new, self._taken = self.text[self._taken :], len(self.text)
        return new

    def _add(self, character: str) -> None:
        high, self._high = self._high, ""
        if high and "\udc00" <= character <= "\udfff":
            self.text += (high + character).encode("utf-16", "surrogatepass").decode("utf-16")
            return
        self.text += "\ufffd" if high else ""
        if "\ud800" <= character <= "\udbff":
            self._high = character
        else:
            self.text += "\ufffd" if "\udc00" <= character <= "\udfff" else character


def _unescape(escape: str) -> str:
    try:
        return str(json.loads(f'"{escape}"'))
    except ValueError as fault:
        raise MalformedTree(f"The run holds {escape!r}, which is no JSON escape.") from fault


class _Raw:
    """Any JSON value that is read as a whole."""

    def __init__(self, first: str) -> None:
        self._parts = [first]
        self._depth = int(first in "{[")
        self._in_string = first == '"'
        self._escaped = False
        self._scalar = not (self._depth or self._in_string)

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def ends_before(self, character: str) -> bool:
        """A number or a name ends where something else begins."""
        return self._scalar and character in ",]}" + _WHITE

    def push(self, character: str) -> bool:
        """Take a character; True if it closes the value."""
        self._parts.append(character)
        if self._in_string:
            if self._escaped or character == "\\":
                self._escaped = not self._escaped
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        else:
            self._depth += (character in "{[") - (character in "]}")
        return not (self._depth or self._in_string or self._scalar)
