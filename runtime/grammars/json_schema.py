"""JSON schemas (draft 2020-12) in words that llguidance enforces to the letter, or an error that names the keyword.

llguidance refuses most keywords that it lacks. What it enforces wrongly or only partly was found by experiment with the
public suite (`python -m benchmarks.json_schema`) and beyond it; that is put in other words here, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias
from urllib.parse import unquote

from llguidance import LLMatcher
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from runtime.errors import UnsupportedSchema
from runtime.grammars import json_formats
from runtime.grammars.ecma_regex import to_rust

_Schema: TypeAlias = bool | dict[str, Any]
# A schema keyword by keyword: what each asks for in the library's words.
_Words: TypeAlias = dict[str, dict[str, Any]]

# Without \u a string has one spelling only: `"\u0066oo"` would be a second property foo, and follow no schema.
_OPTIONS: Any = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":", "json_allowed_escapes": 'nrbtf\\"'}
_UNWRITABLE = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f\ud800-\udfff]")
# The library counts in float64.
_LARGEST = 2**53

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Keywords that are blamed only if no other one is to blame.
_SHAPES = frozenset(("type", "properties", "additionalProperties", "items", "prefixItems"))
# How the library begins to say that nothing fulfils a schema.
_EMPTY = "Unsatisfiable schema: "
# How deep the branches of a `oneOf` are compared.
_DEPTH = 8

_TYPES = frozenset(("null", "boolean", "integer", "number", "string", "array", "object"))
_COUNTS = frozenset(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"))
_BOUNDS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_IN_PLACE = {"$ref", "allOf", "anyOf", "const", "enum"}
# Keywords for which there is no grammar here, and the values with which they ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "$dynamicRef": (),
    "$recursiveRef": (),
    "additionalItems": (),
    "contains": (),
    "dependencies": ({},),
    "not": (False,),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "uniqueItems": (False,),
}


@dataclass(frozen=True)
class JsonSchema:
    """A schema of which every keyword is enforced; `read` makes one."""

    root: dict[str, Any]
    """The schema in the library's words, with what it refers to in `$defs`."""
    parts: list[tuple[str, _Words]]
    """Each of its subschemas, the inner ones first, with its place in the schema that was given."""

    @classmethod
    def read(cls, schema: dict[str, Any]) -> JsonSchema:
        """Raises `UnsupportedSchema`, which names the keyword that cannot be enforced, and its place as a JSON pointer."""
        reader = _Reader(schema)
        try:
            root = reader.read(schema, reader.resolver, "")
        except RecursionError as fault:
            raise UnsupportedSchema(
                "This JSON schema cannot be read: it is nested too deep; give its parts names in '$defs'."
            ) from fault
        assert isinstance(root, dict)
        reader.check_references()
        reader.check_alternatives()
        return cls({**root, "$defs": reader.definitions} if reader.definitions else root, reader.parts)

    @property
    def grammar(self) -> str:
        """What llguidance's matcher takes."""
        return _grammar(self.root)

    def fault(self, complaint: str) -> UnsupportedSchema:
        """The error for a complaint of llguidance: with the keyword without which it would not complain."""
        definitions: dict[str, _Schema] = self.root.get("$defs", {})
        unknown: dict[str, _Schema] = dict.fromkeys(definitions, True)
        for known in (unknown, definitions):
            for place, words in self.parts:
                found = _complaint(words, known)
                if found is None or found.startswith(_EMPTY) != complaint.startswith(_EMPTY):
                    continue
                for keyword in sorted(words, key=_SHAPES.__contains__):
                    if _complaint({name: words[name] for name in words if name != keyword}, known) is None:
                        why = "leaves no value" if found.startswith(_EMPTY) else "is not supported"
                        return _unsupported(keyword, place, f"{why} ({found.removeprefix(_EMPTY)})")
        return UnsupportedSchema(f"This JSON schema cannot be enforced: {complaint}.")


class _Reader:
    """One walk over a schema and what it refers to."""

    def __init__(self, root: dict[str, Any]) -> None:
        resource = _resource(root, "")
        uri = resource.id() or ""
        self.resolver: Any = Registry().with_resource(uri, resource).resolver(uri)
        self.definitions: dict[str, _Schema] = {}
        self.parts: list[tuple[str, _Words]] = []
        self._names: dict[int, str] = {}
        self._first_reference: dict[str, str] = {}
        self._alternatives: list[tuple[list[_Schema], frozenset[str], str]] = []

    def read(self, schema: Any, resolver: Any, place: str) -> _Schema:
        """A schema in the library's words. `place` is the JSON pointer to it, `resolver` knows what its `$ref` are relative to."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise UnsupportedSchema(f"This JSON schema cannot be read: what stands {_at(place)} is not a schema.")
        words = {keyword: self._in_words(keyword, value, schema, resolver, place) for keyword, value in schema.items()}
        self.parts.append((place, words))
        return _together(words)

    def check_references(self) -> None:
        """Raise `UnsupportedSchema` for a reference to values that never come to an end."""
        complete: set[str] = set()
        while more := {name for name, to in self.definitions.items() if name not in complete and _completes(to, complete)}:
            complete |= more
        for name in self.definitions.keys() - complete:
            raise _unsupported("$ref", self._first_reference[name], "leads to values that never end")

    def check_alternatives(self) -> None:
        """Raise `UnsupportedSchema` for a `oneOf` that more than one branch may fulfil."""
        for branches, present, place in self._alternatives:
            for one, other in combinations(branches, 2):
                if not self._disjoint(one, other, present, _DEPTH):
                    raise _unsupported("oneOf", place, "is not supported where two branches may hold at once")

    def _in_words(self, keyword: str, value: Any, schema: dict[str, Any], resolver: Any, place: str) -> dict[str, Any]:
        """What a keyword asks for in the library's words; nothing if it asks for nothing."""
        here = f"{place}/{keyword}"
        match keyword:
            case "$ref":
                return {"$ref": self._reference(value, resolver, place)}
            case "items" | "additionalProperties":
                return {keyword: self._inner(value, resolver, here)}
            case "prefixItems" | "allOf" | "anyOf":
                return {keyword: self._list(value, resolver, here)}
            case "oneOf":
                branches = self._list(value, resolver, here)
                # OpenAPI: the property that tells the branches apart has to be there.
                required = [name] if (name := _discriminator(schema)) is not None else []
                self._alternatives.append((branches, frozenset(required), place))
                return {"allOf": [{"anyOf": branches, "required": required}]}
            case "properties":
                return {keyword: self._named(value, resolver, here)}
            case "patternProperties":
                named = self._named(value, resolver, here)
                patterns = {_pattern(keyword, name, place): asked for name, asked in named.items()}
                _expect(len(patterns) == len(named), keyword, place, "a list of different patterns")
                return {keyword: patterns}
            case "propertyNames":
                return self._property_names(self._inner(value, resolver, here), place)
            case "dependentSchemas":
                named = self._named(value, resolver, here)
                return {"allOf": [_unless_absent(name, named[name]) for name in named]}
            case "dependentRequired":
                _expect(isinstance(value, dict), keyword, place, "an object of lists of strings")
                return {"allOf": [_unless_absent(name, _plain("required", value[name], here)) for name in value]}
            case "minProperties":
                _check_countable(value, schema, place)
                return _plain(keyword, value, place)
            case "then" | "else" if "if" in schema:
                raise _unsupported("if", place)
            case _ if keyword in _REFUSED and value not in _REFUSED[keyword]:
                raise _unsupported(keyword, place)
        return _plain(keyword, value, place)

    def _inner(self, schema: Any, resolver: Any, place: str) -> _Schema:
        return self.read(schema, resolver.in_subresource(_resource(schema, place)), place)

    def _list(self, value: Any, resolver: Any, here: str) -> list[_Schema]:
        _expect(isinstance(value, list) and value != [], *_parent(here), "a list of schemas")
        return [self._inner(part, resolver, f"{here}/{index}") for index, part in enumerate(value)]

    def _named(self, value: Any, resolver: Any, here: str) -> dict[str, _Schema]:
        _expect(isinstance(value, dict), *_parent(here), "an object of schemas")
        return {name: self._inner(part, resolver, f"{here}/{_escape(name)}") for name, part in value.items()}

    def _reference(self, value: Any, resolver: Any, place: str) -> str:
        _expect(isinstance(value, str), "$ref", place, "a string")
        try:
            found = resolver.lookup(value)
        except (Unresolvable, AttributeError, TypeError, ValueError) as fault:
            raise _unsupported("$ref", place, f"leads out of this schema, to '{value}'") from fault
        name = self._names.get(id(found.contents))
        if name is None:
            name = self._names[id(found.contents)] = str(len(self._names))
            self._first_reference[name] = place
            self.definitions[name] = False  # until it is read
            self.definitions[name] = self.read(found.contents, found.resolver, unquote(value.removeprefix("#")))
        return f"#/$defs/{name}"

    def _target(self, reference: str) -> _Schema:
        return self.definitions[reference.removeprefix("#/$defs/")]

    def _property_names(self, names: _Schema, place: str) -> dict[str, Any]:
        while isinstance(names, dict) and names.keys() == {"$ref"}:
            names = self._target(names["$ref"])
        if names is True or names == {}:
            return {}
        if isinstance(names, dict) and names.get("type", "string") == "string":
            keywords = names.keys() - {"type"}
            if keywords in ({"enum"}, {"const"}):
                listed = dict.fromkeys((name for name in _values(names) or () if isinstance(name, str)), True)
                return {"allOf": [{"properties": listed, "additionalProperties": False}]}
            if keywords == {"pattern"}:
                return {"allOf": [{"patternProperties": {names["pattern"]: True}, "additionalProperties": False}]}
        raise _unsupported("propertyNames", place, "is supported with 'enum', 'const' or 'pattern' only")

    def _disjoint(self, one: _Schema, other: _Schema, present: frozenset[str], depth: int) -> bool:
        """Whether it is plain that no value is an instance of both, if objects have the properties in `present`."""
        if one is False or other is False:
            return True
        if one is True or other is True or depth == 0:
            return False
        for this, that in ((one, other), (other, one)):
            present |= set(this.get("required", ()))
            if "$ref" in this and self._disjoint(self._target(this["$ref"]), that, present, depth - 1):
                return True
            if any(self._disjoint(part, that, present, depth - 1) for part in this.get("allOf", ())):
                return True
            if "anyOf" in this and all(self._disjoint(part, that, present, depth - 1) for part in this["anyOf"]):
                return True
        values, others = _values(one), _values(other)
        if values is not None and others is not None:
            return not any(value in others for value in values)
        common = _types(one) & _types(other)
        if common == {"object"}:
            return any(self._disjoint(_property(one, k), _property(other, k), frozenset(), depth - 1) for k in present)
        return not common


def _resource(schema: Any, place: str) -> Resource[Any]:
    found = schema if isinstance(schema, dict) else {}
    _expect(isinstance(found.get("$id", ""), str), "$id", place, "a string")
    return DRAFT202012.create_resource(found)


def _plain(keyword: str, value: Any, place: str) -> dict[str, Any]:
    """A keyword that holds no schema, in the library's words; nothing for one that only describes."""
    if keyword == "type":
        types = value if isinstance(value, list) else [value]
        _expect(
            all(isinstance(name, str) and name in _TYPES for name in types),
            keyword,
            place,
            "one of JSON's types, or a list of them",
        )
    elif keyword == "required":
        _expect(isinstance(value, list) and all(isinstance(name, str) for name in value), keyword, place, "a list of strings")
    elif keyword in _COUNTS:
        _expect(_is_number(value) and value >= 0 and value == int(value), keyword, place, "a whole number, 0 or more")
        _check_exact(keyword, value, place)
        value = int(value)
    elif keyword in _BOUNDS:
        _expect(_is_number(value) and (keyword != "multipleOf" or value > 0), keyword, place, "a number")
        _check_exact(keyword, value, place)
    elif keyword in ("const", "enum"):
        _expect(keyword == "const" or isinstance(value, list), keyword, place, "a list")
        _check_exact(keyword, value, place)
    elif keyword == "pattern":
        value = _pattern(keyword, value, place)
    elif keyword == "format":
        return _format(value, place)
    elif keyword == "$schema" and value not in (_DRAFT, f"{_DRAFT}#"):
        raise _unsupported(keyword, place, f"is not '{_DRAFT}'")
    else:
        return {}
    return {keyword: value}


def _pattern(keyword: str, value: Any, place: str) -> str:
    _expect(isinstance(value, str), keyword, place, "a regular expression")
    try:
        return to_rust(value)
    except ValueError as fault:
        raise _unsupported(keyword, place, f"is not supported ({fault} in '{value}')") from fault


def _format(value: Any, place: str) -> dict[str, Any]:
    _expect(isinstance(value, str), "format", place, "a string")
    if value in json_formats.FREE:
        return {}
    if value in json_formats.PATTERNS:
        return {"allOf": [{"pattern": json_formats.PATTERNS[value]}]}
    if value in json_formats.OF_THE_LIBRARY:
        return {"format": value}
    raise _unsupported("format", place, f"is '{value}', which is not supported")


def _unless_absent(name: str, schema: _Schema) -> dict[str, Any]:
    """What the `dependent` keywords are short for."""
    return {"anyOf": [{"properties": {name: False}}, schema]}


def _discriminator(schema: dict[str, Any]) -> str | None:
    found = schema.get("discriminator")
    name = found.get("propertyName") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _check_countable(least: Any, schema: dict[str, Any], place: str) -> None:
    """A grammar cannot see that a key of the model's own making comes twice, so it can ask for one such key at most."""
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    if _is_number(least) and least > 1 + len(set(schema.get("required", ()))) and not closed:
        raise _unsupported("minProperties", place, "is more than one above the number of required properties")


def _check_exact(keyword: str, value: Any, place: str) -> None:
    """Raise `UnsupportedSchema` for numbers that float64 rounds, and for characters that are not written."""
    for leaf in _leaves(value):
        if _is_number(leaf) and abs(leaf) > _LARGEST:
            raise _unsupported(keyword, place, f"has {leaf}, which is beyond 2**53")
        if isinstance(leaf, str) and _UNWRITABLE.search(leaf):
            raise _unsupported(keyword, place, f"has control characters, in {leaf!r}")


def _leaves(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        yield value
    else:
        for part in inner:
            yield from _leaves(part)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _together(words: _Words) -> dict[str, Any]:
    """One schema of all that its keywords ask for.

    The library takes keywords in turn, and what stands beside `properties` on the far side of an `allOf` for a schema of its
    own: so those that apply in place go before all others, or behind, as they stand to `properties`, whose order counts.
    """
    names = [name for name, asked in words.items() if asked]
    in_place = [name for name in names if words[name].keys() <= _IN_PLACE]
    front = names[: names.index("properties")] if "properties" in names else []
    merged: dict[str, Any] = {}
    for name in sorted(names, key=lambda name: (name in in_place) * (-1 if name in front else 1)):
        for keyword, value in words[name].items():
            merged[keyword] = [*merged.get("allOf", ()), *value] if keyword == "allOf" else value
    return merged


def _completes(schema: _Schema, complete: set[str]) -> bool:
    """Whether a value of it can come to an end, given the definitions of which that is known."""
    if isinstance(schema, bool):
        return True
    if "$ref" in schema and schema["$ref"].removeprefix("#/$defs/") not in complete:
        return False
    if not all(_completes(part, complete) for part in schema.get("allOf", ())):
        return False
    if "anyOf" in schema and not any(_completes(part, complete) for part in schema["anyOf"]):
        return False
    types = _types(schema)
    if types - {"array", "object"} or _values(schema) is not None:
        return True
    items = [*schema.get("prefixItems", ()), schema.get("items", True)][: schema.get("minItems", 0)]
    return (
        "object" in types and all(_completes(_property(schema, name), complete) for name in schema.get("required", ()))
    ) or ("array" in types and all(_completes(item, complete) for item in items))


def _property(schema: dict[str, Any], name: str) -> _Schema:
    """What a schema by itself asks of a property."""
    others = True if schema.get("patternProperties") else schema.get("additionalProperties", True)
    found: _Schema = schema.get("properties", {}).get(name, others)
    return found


def _values(schema: dict[str, Any]) -> list[Any] | None:
    """The only values that `const` or `enum` leave."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: dict[str, Any]) -> set[str]:
    """The types that a schema by itself leaves; "number" is for those that are no integers."""
    named = schema.get("type", list(_TYPES))
    types = {named} if isinstance(named, str) else set(named)
    if "number" in types:
        types.add("integer")
    values = _values(schema)
    return types if values is None else types & {name for value in values for name in _types_of(value)}


def _types_of(value: Any) -> set[str]:
    if _is_number(value):
        return {"integer"} if value == int(value) else {"number"}
    return {{str: "string", bool: "boolean", list: "array", dict: "object"}.get(type(value), "null")}


def _grammar(schema: dict[str, Any]) -> str:
    return LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)


def _complaint(words: _Words, definitions: dict[str, _Schema]) -> str | None:
    """What llguidance has against a schema, in a line."""
    found = LLMatcher.validate_grammar(_grammar({**_together(words), "$defs": definitions}))
    return reason(found) if found else None


def reason(complaint: str) -> str:
    """The line of a complaint of llguidance that says why."""
    lines = complaint.strip().splitlines() or [""]
    return lines[-1].removeprefix("error: ") if lines[0].endswith(":") else lines[0]


def _unsupported(keyword: str, place: str, why: str = "is not supported") -> UnsupportedSchema:
    return UnsupportedSchema(
        f"This JSON schema cannot be enforced: '{keyword}' {_at(place)} {why}; leave it out, and check it afterwards."
    )


def _expect(good: bool, keyword: str, place: str, shape: str) -> None:
    if not good:
        raise UnsupportedSchema(f"This JSON schema cannot be read: '{keyword}' {_at(place)} is not {shape}.")


def _at(place: str) -> str:
    return f"at {place}" if place else "at the top"


def _parent(here: str) -> tuple[str, str]:
    place, _, keyword = here.rpartition("/")
    return keyword, place


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
