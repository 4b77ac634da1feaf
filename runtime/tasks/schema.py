"""The JSON schema of a run, and typed trees.

Left alone, a run is a list of tasks of any depth, and an answer in words: `{"reasoning":[Task,...],"answer":"..."}`. To shape the
tree, write its tasks as pydantic models. `tooluse`, `subtasks` and `conclusion` are what they are in `Task`; any other field is text:

    class Search(BaseModel):
        query: str
        tooluse: ToolUse[Literal["search", "fetch"]]  # one call of one of these; plain ToolUse: of any tool
        conclusion: str

    class Question(BaseModel):
        thought: str
        subtasks: list[Search]  # or list[Search | Question], or tuple[Search, Search]
        conclusion: str

    schema = task_schema([search, fetch], tasks=[Question], answer=Report)

A field that the model may leave out has the type `... | None` and the default None. Fields are written in the order in which they are
declared, the conclusion last. A finished task can be read back: `Question.model_validate(tree.reasoning[0].to_json())`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Union

from pydantic import BaseModel
from pydantic.errors import PydanticUserError
from typing_extensions import TypeVar

from runtime.errors import MisdeclaredTask, first_line
from runtime.tasks.json_schema import enforceable, moved
from runtime.tools import Tool, tools_of
from runtime.tools.function import closed_schema

_Name = TypeVar("_Name", bound=str, default=str)
_Schema = dict[str, Any]


class ToolUse(BaseModel, Generic[_Name]):
    """One call of a tool and its result. `ToolUse[Literal["search"]]` is a call of that tool alone."""

    tool_name: _Name
    parameters: dict[str, Any]
    tool_result: Any


class Task(BaseModel):
    """A task of a tree that is not typed."""

    thought: str
    tooluse: ToolUse | None = None
    subtasks: list[Task] | None = None
    conclusion: str


def task_schema(
    tools: Sequence[Tool | Callable[..., Any]] = (),
    tasks: Sequence[type[BaseModel]] | None = None,
    answer: Any = None,
) -> dict[str, Any]:
    """The JSON schema of a run in which the model may call these tools.

    `tasks` are the classes that may stand at the top; None is `[Task]`. `answer` is a JSON schema, or a type that pydantic makes one
    of; None is a string. Objects are closed, lists of tasks hold at least one, and a tool's result is any JSON, because the runtime
    writes it. Of a tool's parameters only those keywords are kept that llguidance enforces: the tool checks the rest itself.

    Raises:
        MisdeclaredTool: something offered cannot be a tool.
        MisdeclaredTask: a class cannot be a task, or the answer has no JSON schema.
    """
    offered = tools_of(tools)
    if tasks is not None and not tasks:
        raise MisdeclaredTask("tasks=[] allows no task at all: give a class, or None for trees that are not typed.")
    for each in tasks or ():
        if not (isinstance(each, type) and issubclass(each, BaseModel)):
            raise MisdeclaredTask(f"{each!r} cannot be a task: give a class that is a pydantic model.")
    whole = _schema_of(list[Union[tuple(tasks or [Task])]], "The tasks have")  # type: ignore[misc]  # noqa: UP007
    definitions = _task_definitions(whole, [tool.name for tool in offered])
    for index, tool in enumerate(offered):
        definitions[f"run.tool{index}"] = _tooluse(tool, f"#/$defs/run.tool{index}/properties/parameters")
    definitions["run.answer"] = _answer(answer)
    reasoning = {"type": "array", "minItems": 1, "items": whole["items"]}
    return {**_object(reasoning=reasoning, answer={"$ref": "#/$defs/run.answer"}), "$defs": definitions}


def _object(**properties: Any) -> _Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _schema_of(type_: Any, whose: str) -> _Schema:
    try:
        return closed_schema(type_)
    except (PydanticUserError, NameError) as fault:
        raise MisdeclaredTask(f"{whose} a type that JSON cannot carry: {first_line(fault)}") from fault


def _answer(answer: Any) -> _Schema:
    if answer is None:
        return {"type": "string"}
    schema = dict(answer) if isinstance(answer, Mapping) else _schema_of(answer, "The answer has")
    fit: _Schema = moved(schema, "#/$defs/run.answer")
    return fit


def _tooluse(tool: Tool, place: str) -> _Schema:
    parameters = enforceable(tool.parameters)
    if not parameters.keys() & {"$ref", "allOf", "anyOf"}:
        parameters = {"additionalProperties": False, **parameters}
    return _object(tool_name={"const": tool.name}, parameters=moved(parameters, place), tool_result={})


def _task_definitions(whole: _Schema, tools: Sequence[str]) -> _Schema:
    """The schemas of all tasks that may occur, by the names that pydantic gave them."""
    tasks: _Schema = {}
    waiting = _references(whole["items"])
    while waiting:
        name = waiting.pop()
        if name not in tasks:
            tasks[name] = _task(name, whole["$defs"], tools)
            lists = tasks[name]["properties"].get("subtasks", {})
            waiting += [each for array in lists.get("anyOf", [lists]) for part in _parts(array) for each in _references(part)]
    _check_that_they_end(tasks)
    return tasks


def _task(name: str, models: Mapping[str, Any], tools: Sequence[str]) -> _Schema:
    model = models[name]
    required = model.get("required", [])
    properties: _Schema = {}
    for field, described in model.get("properties", {}).items():
        schema, optional = _without_null(described)
        if optional and field in required:
            raise _wrong(name, f"its field '{field}' may be None and has no default: write '= None' behind it")
        if field == "subtasks":
            properties[field] = _subtasks(name, schema)
        elif field == "tooluse":
            properties |= _tool_choice(name, schema, models, tools, needed=field in required)
        else:
            properties[field] = _text(name, field, schema, models)
    if not properties:
        raise _wrong(name, "it has no fields: give it a thought and a conclusion")
    if "subtasks" in properties and "conclusion" not in required:
        raise _wrong(name, "it has subtasks and no conclusion, so nothing would stay of them once they are dropped: add one")
    if "conclusion" in properties:
        properties["conclusion"] = properties.pop("conclusion")
    return {**_object(**properties), "required": [field for field in properties if field in required]}


def _without_null(schema: _Schema) -> tuple[_Schema, bool]:
    """A field's schema without what only describes it, and whether it may be None."""
    plain = {key: value for key, value in schema.items() if key not in ("title", "description", "default", "discriminator")}
    choices = plain.pop("anyOf", plain.pop("oneOf", None))
    if choices is None:
        return plain, False
    kept = [choice for choice in choices if choice.get("type") != "null"]
    return kept[0] if len(kept) == 1 else {"anyOf": kept}, len(kept) < len(choices)


def _text(name: str, field: str, schema: _Schema, models: Mapping[str, Any]) -> _Schema:
    if "$ref" in schema:  # an enumeration
        schema, _ = _without_null(models[_references(schema)[0]])
    if any(choice.get("type") != "string" for choice in schema.get("anyOf", [schema])):
        raise _wrong(name, f"its field '{field}' is no string, as all but tooluse and subtasks must be: make it a str")
    return schema


def _subtasks(name: str, schema: _Schema) -> _Schema:
    if "anyOf" in schema:
        return {"anyOf": [_subtasks(name, choice) for choice in schema["anyOf"]]}
    parts = [_references(part) for part in _parts(schema)]
    if not parts or not all(parts):
        raise _wrong(name, "its field 'subtasks' is no list of task classes: write list[A], list[A | B] or tuple[A, B]")
    choices = [{"anyOf": [{"$ref": f"#/$defs/{each}"} for each in part]} for part in parts]
    array = {"type": "array", "minItems": max(1, schema.get("minItems", 1))}
    if "maxItems" in schema:
        array["maxItems"] = schema["maxItems"]
    return {**array, "prefixItems": choices} if "prefixItems" in schema else {**array, "items": choices[0]}


def _parts(array: _Schema) -> list[_Schema]:
    return list(array["prefixItems"]) if "prefixItems" in array else [array["items"]] if "items" in array else []


def _references(schema: _Schema) -> list[str]:
    """The names of the models that a schema allows; none if it also allows something else."""
    if "$ref" in schema:
        return [str(schema["$ref"]).rpartition("/")[2]]
    found = [_references(choice) for choice in schema.get("anyOf") or schema.get("oneOf") or ()]
    return [name for names in found for name in names] if all(found) else []


def _tool_choice(name: str, schema: _Schema, models: Mapping[str, Any], tools: Sequence[str], needed: bool) -> _Schema:
    """The property `tooluse`; none if no tool is offered and the task does without."""
    uses = [models[each].get("properties", {}) for each in _references(schema)]
    if not uses or not all("tool_name" in use for use in uses):
        raise _wrong(name, "its field 'tooluse' is no ToolUse: write ToolUse, or ToolUse[Literal['name']]")
    wanted = [each for use in uses for each in _named(use["tool_name"], tools)]
    for each in wanted:
        if each not in tools:
            raise _wrong(name, f"it calls the tool '{each}', and offered are only: {', '.join(tools) or 'none'}")
    if not wanted and needed:
        raise _wrong(name, "it calls a tool, and none is offered")
    calls = [{"$ref": f"#/$defs/run.tool{tools.index(each)}"} for each in dict.fromkeys(wanted)]
    return {"tooluse": {"anyOf": calls}} if calls else {}


def _named(tool_name: _Schema, tools: Sequence[str]) -> Sequence[str]:
    """The tools that a ToolUse allows; all that are offered if it says nothing."""
    if "const" in tool_name:
        return [tool_name["const"]]
    return list(tool_name["enum"]) if "enum" in tool_name else tools


def _check_that_they_end(tasks: Mapping[str, _Schema]) -> None:
    """Raise if a task cannot be finished because each of its subtasks needs another."""
    ending: set[str] = set()

    def ends(subtasks: _Schema) -> bool:
        if "anyOf" in subtasks:
            return any(map(ends, subtasks["anyOf"]))
        return all(not ending.isdisjoint(_references(part)) for part in _parts(subtasks))

    while more := {
        name
        for name in tasks.keys() - ending
        if "subtasks" not in tasks[name]["required"] or ends(tasks[name]["properties"]["subtasks"])
    }:
        ending |= more
    for name in tasks.keys() - ending:
        raise _wrong(name, "it never ends, for its subtasks always have subtasks: write 'subtasks: list[...] | None = None'")


def _wrong(name: str, why: str) -> MisdeclaredTask:
    return MisdeclaredTask(f"The class {name} cannot be a task: {why}.")
