"""Runs a task tree on the runtime: the model writes JSON under a grammar, tools answer in the same run, finished lists are dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from runtime import Context, Engine
from runtime.errors import PositionsExhausted
from runtime.text_stream import TextStream
from training.examples import CHAT
from training.trees.task import Value, dumps

Tools = Mapping[str, Callable[[dict[str, Any]], Value]]


class Abandoned(Exception):
    """Raised by a tool to end a run that cannot come right any more."""


@dataclass(frozen=True)
class Ran:
    """What came of a run. `answer` is None if it did not end within its limits."""

    answer: str | None
    calls: int
    emitted_tokens: int
    peak_tokens: int
    """The most tokens that were resident at once, the question's included."""


def run_tree(
    engine: Engine, prompt: str, tools: Tools, *, prune: bool = True, max_calls: int = 5000, max_tokens: int = 200_000
) -> Ran:
    """Answer a prompt by a task tree, greedily. With `prune`, subtasks go when their parent has concluded (`keep=0`)."""
    ids = [
        *engine.encode(CHAT.start), *engine.encode(prompt, special=False), *engine.encode(CHAT.reply),
    ]  # fmt: skip
    with engine.context(ids) as context:
        return _Runner(engine, context, tools, prune).run(max_calls, max_tokens)


def schema(tools: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a run with these tools."""
    use = [
        _object(tool_name={"const": name}, parameters=_PARAMETERS[name], tool_result={"type": ["string", "integer"]})
        for name in tools
    ]
    task = {
        "type": "object",
        "properties": {
            "thought": {"type": "string"},
            "tooluse": use[0] if len(use) == 1 else {"anyOf": use},
            "subtasks": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/task"}},
            "conclusion": {"type": "string"},
        },
        "required": ["thought", "conclusion"],
        "additionalProperties": False,
    }
    reasoning = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/task"}}
    return {**_object(reasoning=reasoning, answer={"type": "string"}), "$defs": {"task": task}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_PARAMETERS = {
    "calc": _object(expression={"type": "string"}),
    "lookup": _object(name={"type": "string"}, relation={"type": "string"}),
    "clue": _object(place={"type": "string"}),
    "item": _object(),
}


class _Runner:
    def __init__(self, engine: Engine, context: Context, tools: Tools, prune: bool) -> None:
        self.engine, self.context, self.tools, self.prune = engine, context, tools, prune
        self.grammar = engine.grammars.compile(schema(list(tools)))
        self.stream = TextStream(engine.tokenizer.backend_tokenizer, [], ())
        self.reader = TreeReader()
        self.emitted = self.calls = 0

    def run(self, max_calls: int, max_tokens: int) -> Ran:
        with suppress(Abandoned, PositionsExhausted):
            while not self.grammar.finished and self.calls <= max_calls and self.emitted < max_tokens:
                for token in self.grammar.forced() or [self._choose()]:
                    self._push(token)
        answer = self.reader.answer if self.grammar.finished else None
        return Ran(answer, self.calls, self.emitted, self.context.stats.peak_tokens)

    def _choose(self) -> int:
        token = int(self.grammar.mask(self.context.logits()).argmax())
        self.grammar.accept(token)
        return token

    def _push(self, token: int) -> None:
        self.context.push(token)
        self.emitted += 1
        for event in self.reader.feed(self.stream.push(token), len(self.context) - 1):
            if isinstance(event, Called):
                self._answer(event)
            elif self.prune:
                self.context.drop(self.context.span(event.start, event.stop))

    def _answer(self, called: Called) -> None:
        result = self.tools[called.tool_name](called.parameters)
        self.calls += 1
        for token in self.engine.encode(dumps(result), special=False):
            self.grammar.accept(token)
            self._push(token)


@dataclass(frozen=True)
class Called:
    """The model has written a call and waits for its result."""

    tool_name: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Prunable:
    """A list of subtasks whose parent has concluded: tokens `start` to `stop` of the context."""

    start: int
    stop: int


@dataclass
class _Open:
    """An object or list that is not closed yet."""

    bracket: str
    key: str = ""
    start: int = 0
    """In the text, or for a list of subtasks in the context."""
    subtasks: tuple[int, int] | None = None
    texts: dict[str, str] = field(default_factory=dict)


class TreeReader:
    """Reads a run character by character and says when a tool is called and when a list can go."""

    def __init__(self) -> None:
        self.answer: str | None = None
        self._stack: list[_Open] = []
        self._string: list[str] | None = None
        self._escaped = False
        self._is_key = True
        self._parameters: list[str] | None = None

    def feed(self, text: str, token: int) -> list[Called | Prunable]:
        """Read on; `token` is where in the context the token stands that the text came from."""
        events: list[Called | Prunable] = []
        for character in text:
            if self._parameters is not None:
                self._parameters.append(character)
            if self._string is not None:
                self._in_string(character, events)
            else:
                self._outside(character, token, events)
        return events

    def _in_string(self, character: str, events: list[Called | Prunable]) -> None:
        assert self._string is not None
        if self._escaped or character != '"':
            self._escaped = character == "\\" and not self._escaped
            self._string.append(character)
            return
        text, self._string = json.loads(f'"{"".join(self._string)}"'), None
        owner = self._stack[-1]
        if self._is_key and owner.bracket == "{":
            owner.key = text
            return
        owner.texts[owner.key] = text
        if owner.key == "conclusion" and owner.subtasks is not None:
            events.append(Prunable(*owner.subtasks))
        if owner.key == "answer" and len(self._stack) == 1:
            self.answer = text

    def _outside(self, character: str, token: int, events: list[Called | Prunable]) -> None:
        if character == '"':
            self._string = []
        elif character in "{[":
            if self._stack and self._stack[-1].key == "parameters" and character == "{":
                self._parameters = ["{"]
            self._stack.append(_Open(character, start=token + 1))
            self._is_key = character == "{"
        elif character in "}]":
            closed = self._stack.pop()
            if self._stack:
                owner = self._stack[-1]
                if character == "]" and owner.key == "subtasks":
                    owner.subtasks = (closed.start, token)
                if character == "}" and owner.key == "parameters" and self._parameters is not None:
                    owner.texts["parameters"], self._parameters = "".join(self._parameters), None
        elif character == ":":
            self._is_key = False
            owner = self._stack[-1]
            if owner.key == "tool_result":
                events.append(Called(owner.texts["tool_name"], json.loads(owner.texts["parameters"])))
        elif character == ",":
            self._is_key = self._stack[-1].bracket == "{"
