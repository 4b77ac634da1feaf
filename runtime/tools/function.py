"""Typed Python functions as tools."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, overload

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from runtime.errors import MisdeclaredTool, first_line
from runtime.tools.calling import Tool

_Function = TypeVar("_Function", bound=Callable[..., Any])
_ATTRIBUTE = "__runtime_tool__"


@overload
def tool(function: _Function, /) -> _Function: ...
@overload
def tool(*, name: str | None = None, timeout: float = 30.0, max_result: int = 4000) -> Callable[[_Function], _Function]: ...
def tool(
    function: _Function | None = None, /, *, name: str | None = None, timeout: float = 30.0, max_result: int = 4000
) -> _Function | Callable[[_Function], _Function]:
    """Declare a function, sync or async, as a tool; as `@tool` or `@tool(timeout=5)`. It stays the function it was.

    The type hints give the JSON schema of the parameters (`Annotated[str, Field(description=...)]` describes one), and the
    docstring is what the model is told about the tool. The model's parameters are validated by pydantic before each call.
    `timeout` is in seconds, `max_result` in characters of JSON; a longer result is cut, and says so.

    Raises:
        MisdeclaredTool: the function cannot be a tool, and why.
    """

    def declared(function: _Function) -> _Function:
        setattr(function, _ATTRIBUTE, _declare(function, name, timeout, max_result))
        return function

    return declared if function is None else declared(function)


def tools_of(offered: Iterable[Tool | Callable[..., Any]]) -> list[Tool]:
    """What was offered, as tools: functions under `@tool`, plain functions, and `Tool`s such as an MCP server's.

    Raises:
        MisdeclaredTool: one cannot be a tool, or two have the same name.
    """
    tools: dict[str, Tool] = {}
    for each in offered:
        found = each if isinstance(each, Tool) else getattr(each, _ATTRIBUTE, None) or _declare(each)
        if found.name in tools:
            raise MisdeclaredTool(f"Two tools are named '{found.name}': give one another name, as in tool(name='...').")
        tools[found.name] = found
    return list(tools.values())


def closed_schema(type_: Any) -> dict[str, Any]:
    """The JSON schema of a type in which every object has the keys it names and no others, unless its model allows extra ones.

    Raises:
        PydanticUserError, NameError: the type has no JSON schema.
    """
    return TypeAdapter(type_).json_schema(schema_generator=_Closed)


class _Closed(GenerateJsonSchema):
    """Without this a grammar would let the model put any key into any nested object."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        return _close(super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        return _close(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return _close(super().typed_dict_schema(schema))


def _close(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"additionalProperties": False, **schema} if schema.get("type") == "object" else schema


def _declare(function: Any, name: str | None = None, timeout: float = 30.0, max_result: int = 4000) -> Tool:
    if not inspect.isroutine(function):
        raise MisdeclaredTool(f"{function!r} is offered as a tool but is no function: offer a typed function or a Tool.")
    name = function.__name__ if name is None else name
    if not name.isidentifier():
        raise MisdeclaredTool(
            f"A tool cannot be named '{name}': give it a name of letters, digits and _, as in tool(name='...')."
        )
    _check_parameters(name, function)
    try:
        collector: Any = _collector(function)
        adapter, parameters = TypeAdapter(collector), closed_schema(function)
    except (PydanticUserError, NameError) as fault:
        raise MisdeclaredTool(f"The tool '{name}' has a type hint that JSON cannot carry: {first_line(fault)}") from fault

    def call(given: dict[str, Any]) -> Any:
        return function(**adapter.validate_python(given))

    return Tool(name, inspect.getdoc(function) or "", parameters, call, timeout, max_result)


def _collector(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function with the same parameters that returns them.

    Pydantic calls what it has validated for; a tool that still hangs when the program ends must not do so inside of its native code,
    which Python could not unwind.
    """

    @wraps(function)
    def collect(**given: Any) -> dict[str, Any]:
        return given

    return collect


def _check_parameters(name: str, function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as fault:
        raise MisdeclaredTool(f"The tool '{name}' does not show its parameters: wrap it in a typed function.") from fault
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise MisdeclaredTool(
                f"The tool '{name}' takes '{parameter}', which has no name for the model to give: name each parameter."
            )
        if parameter.annotation is parameter.empty:
            raise MisdeclaredTool(f"The parameter '{parameter.name}' of the tool '{name}' has no type hint: add one.")
