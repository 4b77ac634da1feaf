"""Python functions as tools: what the type hints say is what the model may write, and what cannot be a tool is said at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from runtime.errors import MisdeclaredTool
from runtime.tools import Tool, answer, tool, tools_of
from runtime.tools.function import closed_schema


class Person(BaseModel):
    name: str
    friends: list[Person] = []


@dataclass
class Place:
    name: str


def greet(person: Person, place: Place | None = None, times: Annotated[int, Field(ge=1, description="How often.")] = 1) -> str:
    """Greet somebody.

    They may have friends.
    """
    return f"hello {person.name} {type(place).__name__} {times}"


def test_the_hints_and_the_docstring_declare_the_tool():
    (found,) = tools_of([greet])
    assert found.name == "greet"
    assert found.description == "Greet somebody.\n\nThey may have friends."
    assert (found.timeout, found.max_result) == (30, 4000)
    assert found.parameters["required"] == ["person"]
    assert found.parameters["properties"]["times"]["minimum"] == 1
    assert found.parameters["properties"]["times"]["description"] == "How often."


def test_every_object_is_closed():
    parameters = tools_of([greet])[0].parameters
    objects = [parameters, *parameters["$defs"].values()]
    assert len(objects) == 3
    assert all(each["additionalProperties"] is False for each in objects)


def test_a_model_that_allows_more_keys_stays_open():
    assert closed_schema(dict[str, int])["additionalProperties"] == {"type": "integer"}

    class Open(BaseModel, extra="allow"):
        pass

    assert closed_schema(Open)["additionalProperties"] is True


def test_parameters_come_as_the_types_of_the_hints():
    (found,) = tools_of([greet])
    assert answer(found, {"person": {"name": "Ada"}, "place": {"name": "x"}, "times": 2}).value == "hello Ada Place 2"


def test_a_decorated_function_stays_a_function():
    @tool
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8
    assert answer(tools_of([double])[0], {"number": 4}).value == 8


def test_the_decorator_sets_the_limits_and_the_name():
    @tool(timeout=5, max_result=200, name="twice")
    def double(number: int) -> int:
        return 2 * number

    (found,) = tools_of([double])
    assert (found.name, found.timeout, found.max_result) == ("twice", 5, 200)


def test_a_method_can_be_a_tool():
    class Shelf:
        def __init__(self):
            self.books = ["a"]

        def count(self) -> int:
            return len(self.books)

    assert answer(tools_of([Shelf().count])[0], {}).value == 1


def untyped(number) -> int: ...
def many(*numbers: int) -> int: ...
def keywords(**numbers: int) -> int: ...
def positional(number: int, /) -> int: ...
def function(call: Callable[[int], int]) -> int: ...
def foreign(thing: partial) -> int: ...
def unknown(thing: Nowhere) -> int: ...  # noqa: F821
def fine(number: int) -> int: ...


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (untyped, "The parameter 'number' of the tool 'untyped' has no type hint"),
        (many, r"'many' takes '\*numbers: .*int.*', which has no name"),
        (keywords, "'keywords' takes"),
        (positional, "'positional' takes"),
        (function, "'function' has a type hint that JSON cannot carry"),
        (foreign, "'foreign' has a type hint that JSON cannot carry"),
        (unknown, "'unknown' has a type hint that JSON cannot carry: name 'Nowhere' is not defined"),
        (lambda: 1, "cannot be named '<lambda>'"),
        (partial(fine, 1), "is offered as a tool but is no function"),
        (5, "5 is offered as a tool but is no function"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_and_why(offered, why):
    with pytest.raises(MisdeclaredTool, match=why):
        tools_of([offered])


def test_a_function_is_refused_where_it_is_decorated():
    with pytest.raises(MisdeclaredTool, match="no type hint"):
        tool(untyped)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": "two words"}, "cannot be named 'two words'"),
        ({"timeout": 0}, "timeout of 0 seconds"),
        ({"timeout": float("nan")}, "timeout of nan seconds"),
        ({"max_result": 99}, "99 characters: allow at least 100"),
    ],
)
def test_options_out_of_their_range_are_refused(options, why):
    with pytest.raises(MisdeclaredTool, match=why):
        tool(**options)(fine)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(MisdeclaredTool, match="Two tools are named 'fine'"):
        tools_of([fine, Tool("fine", "", {"type": "object"}, dict)])


@pytest.mark.parametrize(("name", "parameters", "why"), [("", {"type": "object"}, "no name"), ("a", {}, "of type 'object'")])
def test_a_tool_made_by_hand_is_checked_too(name, parameters, why):
    with pytest.raises(MisdeclaredTool, match=why):
        Tool(name, "", parameters, dict)


def test_tools_load_neither_torch_nor_mcp():
    code = (
        "import sys; from runtime.tools import tool; import runtime.tasks; print({'torch', 'mcp', 'rich'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
