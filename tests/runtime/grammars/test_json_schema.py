"""A JSON schema is enforced to the letter, and what cannot be enforced is refused by name."""

from __future__ import annotations

import pytest

from runtime.errors import UnsupportedSchema
from tests.runtime.grammars.schemas import INTEGER, SCHEMAS, TEXT, closed
from tests.runtime.grammars.writing import COMPILER, fits


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_lets_pass_what_follows_it_and_nothing_else(name):
    schema, good, bad = SCHEMAS[name]
    assert [text for text in good if not fits(schema, text)] == []
    assert [text for text in bad if fits(schema, text)] == []


REFUSED = [
    ({"properties": {"tags": {"type": "array", "uniqueItems": True}}}, "'uniqueItems' at /properties/tags"),
    ({"type": "array", "contains": INTEGER}, "'contains' at the top"),
    ({"not": TEXT}, "'not' at the top"),
    ({"if": TEXT, "then": {"minLength": 1}}, "'if' at the top"),
    ({"type": "object", "propertyNames": {"maxLength": 3}}, "'propertyNames' at the top"),
    ({"type": "object", "unevaluatedProperties": False}, "'unevaluatedProperties' at the top"),
    ({"type": "array", "unevaluatedItems": INTEGER}, "'unevaluatedItems' at the top"),
    ({"$dynamicRef": "#x"}, "'$dynamicRef' at the top"),
    ({"prefixItems": [TEXT], "additionalItems": False}, "'additionalItems' at the top"),
    ({"items": {"oneOf": [INTEGER, {"minimum": 2}]}}, "'oneOf' at /items"),
    ({"anyOf": [TEXT, {"$ref": "other.json"}]}, "'$ref' at /anyOf/1 leads out of this schema, to 'other.json'"),
    ({"type": "string", "format": "hostname"}, "'format' at the top is 'hostname'"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "'$schema' at the top"),
    ({"type": "string", "pattern": "^(?!a)"}, "'pattern' at the top is not supported (look-around"),
    ({"type": "string", "pattern": r"^\Aa"}, r"\A is not known"),
    ({"type": "object", "patternProperties": {"a": {}, "b": {}}}, "'patternProperties' at the top"),
    ({"type": "object", "minProperties": 2}, "'minProperties' at the top"),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 1}, "'maxProperties' at the top"),
    ({"const": 2**53 + 1}, "'const' at the top has 9007199254740993"),
    ({"type": "array", "minItems": 1e20}, "'minItems' at the top"),
    ({"type": "integer", "maximum": 2**60}, "'maximum' at the top"),
    ({"type": "number", "multipleOf": 1e-12}, "'multipleOf' at the top"),
    ({"enum": ["a", "\x01"]}, "'enum' at the top has control characters"),
    ({"type": "object", "properties": {"a/b": {"enum": []}}, "required": ["a/b"]}, "'enum' at /properties/a~1b leaves no value"),
    ({"items": {"type": "string", "minLength": 3, "maxLength": 2}, "minItems": 1, "type": "array"}, "at /items leaves no value"),
    (closed("next", next={"$ref": "#"}), "'$ref' at /properties/next leads to values that never end"),
    ({"$ref": "#"}, "'$ref' at the top leads to values that never end"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_cannot_be_enforced_is_refused_by_name_and_place(schema, told):
    with pytest.raises(UnsupportedSchema) as refusal:
        COMPILER.compile(schema)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"}, {"properties": []}, {"required": "a"}, {"items": [TEXT]}, {"minLength": -1}, {"minLength": "3"},
        {"anyOf": []}, {"enum": "a"}, {"minimum": "1"}, {"pattern": 1}, {"format": []}, {"$ref": 1}, {"$id": 1}, {"properties": {"a": 3}},
        {"default": float("nan")}, {"default": object()}, {"default": {1, 2}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_schema_is_refused_in_one_sentence(schema):
    with pytest.raises(UnsupportedSchema, match=r"^This JSON schema cannot be (read|enforced): .*\.$"):
        COMPILER.compile(schema)


def test_a_schema_that_is_nested_too_deep_is_refused():
    schema = INTEGER
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UnsupportedSchema, match="nested too deep"):
        COMPILER.compile(schema)


def test_the_schema_cannot_change_how_it_is_written():
    free = {"x-guidance": {"whitespace_flexible": True, "lenient": True}, "type": "array", "items": INTEGER}
    assert fits(free, "[1,2]")
    assert not fits(free, "[1, 2]")
