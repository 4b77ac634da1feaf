"""JSON schemas, with texts that follow them and texts that do not."""

from __future__ import annotations

import uuid


def closed(*required, **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": closed("name", name=TEXT, inner={"type": "array", "items": {"$ref": "#/$defs/node"}})},
}

# A schema, texts that follow it, and texts that do not.
SCHEMAS = {
    "anything": ({}, ["1", '"a"', "null", "[]", '{"a":[1,{}]}'], ["", "nil", "01", "[1, 2]", "'a'", '{"a":1,}']),
    "types": ({"type": ["integer", "null"]}, ["0", "-7", "null"], ["1.5", '"1"', "true"]),
    "number": ({"type": "number"}, ["0", "-1.5", "2e10", "1.0E-3"], ["+1", ".5", "1.", "NaN", "0x1"]),
    "range": ({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, ["-3", "0", "11"], ["-4", "12", "100", "1.5"]),
    "fractions": ({"type": "number", "minimum": 0.1, "maximum": 2.5}, ["0.1", "1", "2.5"], ["0", "0.09", "2.51", "3"]),
    "multiple": ({"type": "number", "multipleOf": 0.25}, ["0.75", "-2", "3.50"], ["0.3", "1.2"]),
    "length": ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"\u00e9\U0001f600\u4f60"', '"\\n\\""'], ['"a"', '"abcd"']),
    "pattern": ({"type": "string", "pattern": "^[a-f]{2}-\\d+$"}, ['"ab-7"'], ['"ab-"', '"xab-7"', '"ab-\u0663"']),
    "search": ({"type": "string", "pattern": "cat"}, ['"cat"', '"a cat!"'], ['"dog"']),
    "enum": ({"enum": ["red", 2, None, {"a": [1]}]}, ['"red"', "2", "null", '{"a":[1]}'], ['"blue"', "3", '{"a":[2]}']),
    "const": ({"const": 'say "hi"\n'}, ['"say \\"hi\\"\\n"'], ['"say"']),
    "array": ({"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 2}, ["[1]", "[1,2]"], ["[]", "[1,2,3]", '["a"]']),
    "tuple": ({"type": "array", "prefixItems": [TEXT, INTEGER], "items": False}, ['["a",1]', '["a"]'], ['[1,"a"]', '["a",1,2]']),
    "object": (closed("b", a=INTEGER, b=TEXT), ['{"a":1,"b":""}', '{"b":"x"}'], ['{"a":1}', '{"b":"","a":1}', '{"b":"","c":1}']),
    "open object": (
        {"type": "object", "properties": {"foo": INTEGER}},
        ['{"foo":1,"bar":"x"}', "{}"],
        ['{"foo":"x"}', '{"\\u0066oo":"x"}', '{"foo":1,"foo":2}'],
    ),
    "map": ({"type": "object", "additionalProperties": INTEGER, "minProperties": 1}, ['{"a":1,"b":2}'], ["{}", '{"a":"b"}']),
    "patterns of names": (
        {"type": "object", "patternProperties": {"^n_": INTEGER}, "additionalProperties": False},
        ['{"n_a":1}', "{}"],
        ['{"n_a":"x"}', '{"a":1}'],
    ),
    "names": ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, ['{"a":1}', '{"a":1,"b":2}'], ['{"c":1}']),
    "anyOf": ({"anyOf": [TEXT, {"type": "array", "items": TEXT}]}, ['"a"', '["a"]'], ["1", "[1]"]),
    "oneOf": ({"oneOf": [closed("k", k={"const": "a"}, x=INTEGER), closed("k", k={"const": "b"})]}, ['{"k":"a","x":1}', '{"k":"b"}'], ['{"k":"b","x":1}']),
    "allOf": (
        {"allOf": [{"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}, {"properties": {"b": TEXT}}]},
        ['{"a":1,"b":"x"}'],
        ['{"b":"x"}', '{"a":1,"b":2}'],
    ),
    "dependentRequired": (
        {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "dependentRequired": {"a": ["b"]}},
        ['{"a":1,"b":2}', '{"b":2}', "{}"],
        ['{"a":1}'],
    ),
    "recursion": (TREE, ['{"name":"a","inner":[{"name":"b","inner":[]},{"name":"c"}]}'], ['{"name":"a","inner":[{"inner":[]}]}']),
    "recursion to the top": ({"type": "object", "additionalProperties": {"$ref": "#"}}, ['{"a":{"b":{}}}'], ['{"a":1}']),
    "anchor": ({"$ref": "#n", "$defs": {"x": {"$anchor": "n", "type": "null"}}}, ["null"], ["1"]),
    "date": ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2023-02-29"', '"2024-13-01"', '"24-01-01"']),
    "uuid": ({"type": "string", "format": "uuid"}, [f'"{uuid.UUID(int=7)}"'], ['"7"']),
    "notes": (
        {"title": "T", "description": "D", "default": 1, "examples": [1], "deprecated": True, "x-order": 3, "$comment": "", **INTEGER},
        ["1"],
        ['"a"'],
    ),
}  # fmt: skip
