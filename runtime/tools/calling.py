"""Calling a tool: off the caller's thread, with a time limit, and whatever happens becomes a result that a model can read."""

from __future__ import annotations

import asyncio
import inspect
import json
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from runtime.errors import MisdeclaredTool, ToolFailed
from runtime.tools.workers import Workers

# The least room for a result: a note on what was left out has to fit in.
_LEAST_RESULT = 100
_WORKERS = Workers()


@dataclass(frozen=True)
class Tool:
    """What a model may call.

    `parameters` is the JSON schema of an object. `call` takes such an object and returns any JSON value, or what pydantic makes
    one of, or a coroutine of it (which gets an event loop of its own); it may raise. `timeout` is in seconds, `max_result` in
    characters of JSON.

    Raises:
        MisdeclaredTool: a limit is out of its range, or `parameters` describes no object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[dict[str, Any]], Any]
    timeout: float = 30.0
    max_result: int = 4000

    def __post_init__(self) -> None:
        if not self.name:
            raise MisdeclaredTool("A tool has no name: give it one that the model can call it by.")
        if not self.timeout > 0:
            raise MisdeclaredTool(f"The tool '{self.name}' has a timeout of {self.timeout} seconds: give it more than 0.")
        if self.max_result < _LEAST_RESULT:
            raise MisdeclaredTool(
                f"The tool '{self.name}' may answer with {self.max_result} characters: allow at least {_LEAST_RESULT}."
            )
        if self.parameters.get("type") != "object":
            raise MisdeclaredTool(f"The parameters of the tool '{self.name}' must be a JSON schema of type 'object'.")


@dataclass(frozen=True)
class ToolResult:
    """What came of a call. `value` is JSON; with `error` it is `{"error": "..."}`."""

    value: Any
    seconds: float
    error: bool = False
    cut: bool = False
    """The result was too large; a note inside says how much was left out."""

    @property
    def text(self) -> str:
        """The value as JSON that the grammar accepts."""
        return dumps(self.value)


class ToolCall:
    """A tool at work, off the caller's thread.

    Each call has a thread of its own, so no call waits for another. What a function returns when its time is over is thrown away.
    """

    def __init__(self, tool: Tool, parameters: Mapping[str, Any]) -> None:
        self._tool = tool
        self._parameters = deepcopy(dict(parameters))  # the tool may change them; who asked may still need them
        self._began = perf_counter()
        self.future: Future[ToolResult] = Future()
        """For those who wait for several calls. It never gets an exception; it gets nothing if the tool hangs."""
        _WORKERS.run(self._work)

    @property
    def seconds_left(self) -> float:
        """How long the tool still has, 0 at least."""
        return max(0.0, self._tool.timeout - (perf_counter() - self._began))

    def done(self) -> bool:
        """True when `result` comes at once."""
        return self.future.done() or not self.seconds_left

    def result(self) -> ToolResult:
        """What came of the call: waits for it, at most until the tool's time is over. Never raises what the tool raises."""
        try:
            return self.future.result(self.seconds_left)
        except TimeoutError:
            return ToolResult({"error": _too_late(self._tool)}, perf_counter() - self._began, error=True)

    def _work(self) -> None:
        try:
            value, error = _to_json(_called(self._tool, self._parameters)), False
        except BaseException as fault:  # also SystemExit: no tool ends a run
            value, error = {"error": _why(fault)}, True
        short = shorten(value, self._tool.max_result)
        self.future.set_result(ToolResult(short, perf_counter() - self._began, error, cut=short != value))


def answer(tool: Tool, parameters: Mapping[str, Any]) -> ToolResult:
    """Call a tool and wait for its result."""
    return ToolCall(tool, parameters).result()


def dumps(value: Any) -> str:
    """Compact JSON as llguidance wants it: no white space, nothing printable escaped, and DEL escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("\x7f", "\\u007f")


def shorten(value: Any, room: int) -> Any:
    """A JSON value that takes at most `room` (100 or more) characters. What is left out is said inside, where it was."""
    if len(dumps(value)) <= room:
        return value
    if isinstance(value, list):
        return _short_list(value, room)
    if isinstance(value, dict):
        return _short_object(value, room)
    return _short_text(value if isinstance(value, str) else dumps(value), room)


def _short_text(text: str, room: int) -> str:
    def kept(count: int) -> str:
        return f"{text[:count]} [{len(text) - count} of {len(text)} characters left out]"

    return kept(bisect_right(range(len(text)), room, key=lambda count: len(dumps(kept(count)))) - 1)


def _short_list(items: list[Any], room: int) -> list[Any]:
    kept: list[Any] = []
    room -= _LEAST_RESULT // 2  # for the note
    for item in items:
        short = _fitting(item, room)
        if short is None:
            return [*kept, f"[{len(items) - len(kept)} of {len(items)} items left out]"]
        kept.append(short[0])
        room -= len(dumps(short[0])) + 1
    return kept


def _short_object(items: dict[str, Any], room: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    room -= _LEAST_RESULT // 2
    for key, item in items.items():
        size = len(dumps(key)) + 2
        short = _fitting(item, room - size)
        if short is None:
            return {**kept, "[left out]": f"{len(items) - len(kept)} of {len(items)} entries"}
        kept[key] = short[0]
        room -= size + len(dumps(short[0]))
    return kept


def _fitting(item: Any, room: int) -> tuple[Any] | None:
    """The item, shortened if need be and worth it; None if there is no room for it."""
    if len(dumps(item)) < room:
        return (item,)
    return (shorten(item, room - 1),) if room > 2 * _LEAST_RESULT else None


def _called(tool: Tool, parameters: dict[str, Any]) -> Any:
    outcome = tool.call(parameters)
    return asyncio.run(_in_time(tool, outcome)) if inspect.isawaitable(outcome) else outcome


async def _in_time(tool: Tool, outcome: Awaitable[Any]) -> Any:
    """Unlike a thread, a coroutine can be ended when its time is up."""
    try:
        async with asyncio.timeout(tool.timeout) as limit:
            return await outcome
    except TimeoutError as fault:
        if limit.expired():
            raise ToolFailed(_too_late(tool)) from fault
        raise


def _too_late(tool: Tool) -> str:
    return f"The tool '{tool.name}' did not answer within {tool.timeout:g} seconds."


def _to_json(value: Any) -> Any:
    """A value as plain JSON: models, dataclasses, dates and the like by pydantic. Raises whatever stands in the way."""
    text = json.dumps(to_jsonable_python(value), ensure_ascii=False, allow_nan=False)
    # A lone surrogate has no UTF-8, so no tokens.
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _why(fault: BaseException) -> str:
    if isinstance(fault, ToolFailed):
        return str(fault)
    if isinstance(fault, ValidationError):
        wrong = (f"{'.'.join(map(str, each['loc'])) or 'parameters'}: {each['msg']}" for each in fault.errors())
        return "; ".join(wrong)
    text = str(fault).encode("utf-8", "replace").decode()
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__
