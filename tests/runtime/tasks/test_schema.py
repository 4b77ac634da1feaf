"""The schema of a run, judged by the grammar engine that will enforce it."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Literal

import llguidance
import pytest
from hypothesis import given, settings
from pydantic import BaseModel, Field

from runtime.errors import MisdeclaredTask, MisdeclaredTool
from runtime.tasks import Task, ToolUse, task_schema
from runtime.tools import Tool, dumps
from tests.runtime.tasks.runs import json_values, runs

BYTES = llguidance.LLTokenizer("byte")


def lookup(name: str, relation: str = "friend") -> str:
    """Who somebody's friend is."""


def calc(expression: str) -> int:
    """What an expression comes to."""


class Depth(Enum):
    SHALLOW = "shallow"
    DEEP = "deep"


class Search(BaseModel):
    query: Annotated[str, Field(max_length=5)]
    tooluse: ToolUse[Literal["lookup"]]
    conclusion: str


class Note(BaseModel):
    title: Literal["note"]
    depth: Depth
    remark: str | None = None


class Plan(BaseModel):
    conclusion: str
    thought: str
    subtasks: list[Search | Plan]


class Pair(BaseModel):
    subtasks: tuple[Search, Note]
    conclusion: str


class Report(BaseModel):
    headline: str
    points: list[Point]


class Point(BaseModel):
    text: str


def rest_of(schema, text):
    """What is left of a text behind the last character that the schema allows; None if the whole is a run."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_flexible": False})
    matcher = llguidance.LLMatcher(BYTES, grammar)
    assert not matcher.is_error(), matcher.get_error()
    encoded = text.encode()
    taken = matcher.try_consume_tokens(list(encoded))
    return None if taken == len(encoded) and matcher.is_accepting() else encoded[taken:].decode(errors="replace")


def accepts(schema, run):
    return rest_of(schema, run if isinstance(run, str) else dumps(run)) is None


def run_of(*tasks, answer="a"):
    return {"reasoning": list(tasks), "answer": answer}


def use(tool_name, parameters, result=None):
    return {"tool_name": tool_name, "parameters": parameters, "tool_result": result}


LEAF = {"thought": "t", "conclusion": "c"}
SEARCH = {"query": "q", "tooluse": use("lookup", {"name": "Ada"}), "conclusion": "c"}
NOTE = {"title": "note", "depth": "deep"}


def test_the_format_is_that_of_the_bundled_model():
    run = (
        '{"reasoning":[{"thought":"level 1","subtasks":[{"thought":"2+3","tooluse":{"tool_name":"calc","parameters":'
        '{"expression":"2+3"},"tool_result":5},"conclusion":"5"}],"conclusion":"5"}],"answer":"5"}'
    )
    assert accepts(task_schema([calc]), run)


@settings(deadline=None, max_examples=50)
@given(run=runs)
def test_any_tree_passes(run):
    free = Tool("lookup", "", {"type": "object", "additionalProperties": True}, dict)
    other = Tool("calc", "", {"type": "object", "additionalProperties": True}, dict)
    assert accepts(task_schema([free, other], answer={}), run)


@settings(deadline=None, max_examples=50)
@given(result=json_values)
def test_any_result_passes(result):
    task = {"thought": "t", "tooluse": use("calc", {"expression": "1"}, result), "conclusion": "c"}
    assert accepts(task_schema([calc]), run_of(task))


@pytest.mark.parametrize(
    "result",
    [
        *[None, True, 0, -1, 10**300, -0.0, 1e-7, 1e16, 5e-324, "", "x" * 100_000, {"": {"a": [[], {}, None]}}],
        *["".join(map(chr, range(0x3000))), "\ufeff\uffff\U0010ffff", json.loads("[" * 400 + "]" * 400)],
    ],
    ids=lambda result: repr(result)[:20],
)
def test_results_at_the_edges_pass(result):
    task = {"thought": "t", "tooluse": use("calc", {"expression": "1"}, result), "conclusion": "c"}
    assert accepts(task_schema([calc]), run_of(task))


@pytest.mark.parametrize(
    ("task", "refused"),
    [
        ({"thought": "t"}, "}]"),
        ({"conclusion": "c", "thought": "t"}, 'conclusion":"c'),
        ({**LEAF, "more": "m"}, ',"more"'),
        ({"thought": "t", "subtasks": [], "conclusion": "c"}, "],"),
        ({"thought": "t", "subtasks": [{"thought": "t"}], "conclusion": "c"}, "}],"),
        ({"thought": "t", "tooluse": use("search", {}), "conclusion": "c"}, "search"),
        ({"thought": "t", "tooluse": use("calc", {}), "conclusion": "c"}, "},"),
        ({"thought": "t", "tooluse": use("calc", {"expression": 1}), "conclusion": "c"}, "1}"),
        ({"thought": "t", "tooluse": use("calc", {"expression": "1", "x": 1}), "conclusion": "c"}, ',"x"'),
    ],
)
def test_what_is_no_task_is_refused_where_it_goes_wrong(task, refused):
    assert rest_of(task_schema([calc, lookup]), dumps(run_of(task))).startswith(refused)


def test_a_parameter_with_a_default_may_be_left_out():
    for parameters in ({"name": "Ada"}, {"name": "Ada", "relation": "sister"}):
        assert accepts(task_schema([lookup]), run_of({"thought": "t", "tooluse": use("lookup", parameters), "conclusion": "c"}))


def test_a_run_has_at_least_one_task():
    assert rest_of(task_schema(), '{"reasoning":[],"answer":""}').startswith("]")


def test_without_tools_there_is_no_tooluse():
    assert "tooluse" not in task_schema()["$defs"]["Task"]["properties"]


@pytest.mark.parametrize(
    ("answer", "good", "bad"),
    [
        (None, "text", 5),
        (str, "text", 5),
        (int, 5, "5"),
        (list[str], ["a"], "a"),
        (Report, {"headline": "h", "points": [{"text": "t"}]}, {"headline": "h", "points": [{"text": "t", "more": 1}]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"enum": ["yes", "no"]}}, "$schema": "x:y"}, "yes", "perhaps"),
    ],
)
def test_the_answer_has_the_type_that_was_asked_for(answer, good, bad):
    schema = task_schema(answer=answer)
    assert accepts(schema, run_of(LEAF, answer=good))
    assert not accepts(schema, run_of(LEAF, answer=bad))


def test_a_typed_tree_allows_its_classes_and_no_others():
    schema = task_schema([lookup, calc], tasks=[Plan])
    plan = {"thought": "t", "subtasks": [SEARCH, {"thought": "t", "subtasks": [SEARCH], "conclusion": "c"}], "conclusion": "c"}
    assert accepts(schema, run_of(plan))
    assert not accepts(schema, run_of(SEARCH))
    assert not accepts(schema, run_of({"thought": "t", "conclusion": "c"}))


def test_a_tuple_says_which_subtask_comes_when():
    schema = task_schema([lookup], tasks=[Pair, Search])
    assert accepts(schema, run_of(SEARCH, {"subtasks": [SEARCH, NOTE], "conclusion": "c"}))
    for subtasks in ([SEARCH], [NOTE, SEARCH], [SEARCH, NOTE, NOTE]):
        assert not accepts(schema, run_of({"subtasks": subtasks, "conclusion": "c"}))


def test_a_task_calls_the_tools_that_its_class_names():
    schema = task_schema([lookup, calc], tasks=[Search])
    assert accepts(schema, run_of(SEARCH))
    assert not accepts(schema, run_of({**SEARCH, "tooluse": use("calc", {"expression": "1"})}))


def test_text_fields_keep_what_their_type_says():
    schema = task_schema([lookup], tasks=[Search, Note])
    assert accepts(schema, run_of({**NOTE, "remark": "r"}))
    assert not accepts(schema, run_of({**SEARCH, "query": "longer"}))
    assert not accepts(schema, run_of({"title": "note", "depth": "abyss"}))


def test_the_conclusion_is_written_last_wherever_it_was_declared():
    assert list(task_schema([lookup], tasks=[Plan])["$defs"]["Plan"]["properties"]) == ["thought", "subtasks", "conclusion"]


def test_a_written_task_can_be_read_back_as_its_class():
    plan = Plan.model_validate({"thought": "t", "subtasks": [SEARCH], "conclusion": "c"})
    assert plan.subtasks[0].tooluse.parameters == {"name": "Ada"}
    assert Task.model_validate({**LEAF, "subtasks": [LEAF]}).subtasks == [Task(**LEAF)]


def test_parameters_of_any_server_can_be_enforced():
    parameters = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "x:y",
        "type": "object",
        "properties": {
            "default": {"$ref": "#/definitions/Kind"},
            "when": {"oneOf": [{"type": "string", "format": "made-up"}, {"type": "string", "pattern": "^(?!a)"}]},
            "many": {"type": "array", "uniqueItems": True, "items": {"not": {"type": "null"}}},
        },
        "required": ["default"],
        "definitions": {"Kind": {"enum": ["x", "y"], "title": "Kind"}},
        "dependentRequired": {"when": ["many"]},
    }
    schema = task_schema([Tool("get-it/now", "", parameters, dict), calc])
    good = {"default": "x", "when": "b", "many": [1, 1]}
    assert accepts(schema, run_of({"thought": "t", "tooluse": use("get-it/now", good), "conclusion": "c"}))
    assert not accepts(schema, run_of({"thought": "t", "tooluse": use("get-it/now", {"default": "z"}), "conclusion": "c"}))


def declare(**fields):
    """A class `Bad` with these annotated fields."""
    return type("Bad", (BaseModel,), {"__annotations__": fields, "__module__": __name__})


class Endless(BaseModel):
    subtasks: list[Endless]
    conclusion: str


@pytest.mark.parametrize(
    ("task", "why"),
    [
        (declare(subtasks=list[Search]), "Bad cannot be a task: it has subtasks and no conclusion"),
        (declare(subtasks=list[str], conclusion=str), "'subtasks' is no list of task classes"),
        (declare(subtasks=list[Search | str], conclusion=str), "'subtasks' is no list of task classes"),
        (declare(subtasks=Search, conclusion=str), "'subtasks' is no list of task classes"),
        (declare(score=int), "'score' is no string"),
        (declare(note=Search), "'note' is no string"),
        (declare(note=str | None), "'note' may be None and has no default"),
        (declare(tooluse=str), "'tooluse' is no ToolUse"),
        (declare(tooluse=ToolUse[Literal["weather"]]), "calls the tool 'weather', and offered are only: lookup"),
        (declare(), "no fields"),
        (declare(thing=object), "'thing' is no string"),
        (Endless, "Endless cannot be a task: it never ends"),
        (int, "<class 'int'> cannot be a task"),
    ],
)
def test_a_class_that_is_no_task_is_refused_and_why(task, why):
    with pytest.raises(MisdeclaredTask, match=why):
        task_schema([lookup], tasks=[task])


def test_a_task_that_must_call_needs_a_tool():
    with pytest.raises(MisdeclaredTask, match="calls a tool, and none is offered"):
        task_schema(tasks=[declare(tooluse=ToolUse)])


def test_no_classes_at_all_are_refused():
    with pytest.raises(MisdeclaredTask, match=r"tasks=\[\] allows no task"):
        task_schema(tasks=[])


def test_an_answer_that_json_cannot_carry_is_refused():
    with pytest.raises(MisdeclaredTask, match="The answer has a type that JSON cannot carry"):
        task_schema(answer=type("Thing", (), {}))


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(MisdeclaredTool, match="Two tools are named 'calc'"):
        task_schema([calc, calc])
