"""Text at random under a schema is an instance of it: of classes of pydantic, and of schemas at random."""

from __future__ import annotations

import datetime
import ipaddress
import json
import uuid
from enum import Enum
from typing import Annotated, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from runtime.errors import UnsupportedSchema
from tests.runtime.grammars.schemas import INTEGER, TEXT
from tests.runtime.grammars.writing import COMPILER, fits, random_text


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int = Field(ge=0, lt=10)
    y: float = Field(gt=-1, le=1)


class Folder(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=8, pattern="^[a-z]+$")]
    folders: list[Folder] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    good: bool


class Record(BaseModel):
    id: uuid.UUID
    colour: Colour
    corner: Point
    pair: tuple[int, str]
    counts: dict[Colour, int]
    note: str | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    born: datetime.date
    woke: datetime.time
    seen: datetime.datetime
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    root: Folder
    tags: list[Literal["a", "b"]] = Field(min_length=1, max_length=3)


@pytest.mark.parametrize("model", [Point, Folder, Record])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_text_under_a_pydantic_model_is_read_by_it(model, seed):
    text = random_text(COMPILER.compile(model), seed)
    read = model.model_validate_json(text)
    assert json.loads(read.model_dump_json()).keys() >= json.loads(text).keys() & model.model_fields.keys()


def test_a_tagged_union_wants_its_tag():
    assert fits(Record, '{"pet":') is False
    pets = {"oneOf": [Cat.model_json_schema(), Dog.model_json_schema()], "discriminator": {"propertyName": "kind"}}
    assert fits(pets, '{"kind":"dog","good":true}')
    assert not fits(pets, '{"kind":"dog","lives":9}')
    assert not fits(pets, '{"lives":9}')


scalars = st.one_of(
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, INTEGER, {"type": "number"}, TEXT]),
    st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(
        lambda p: {"type": "integer", "minimum": p[0], "maximum": p[0] + p[1]}
    ),
    st.tuples(st.floats(-9, 9).map(lambda x: round(x, 3)), st.sampled_from(["minimum", "exclusiveMinimum", "maximum"])).map(
        lambda p: {"type": "number", p[1]: p[0]}
    ),
    st.sampled_from([2, 3, 0.5, 0.25]).map(lambda step: {"type": "number", "multipleOf": step, "minimum": -20, "maximum": 20}),
    st.tuples(st.integers(0, 3), st.integers(0, 4)).map(
        lambda p: {"type": "string", "minLength": p[0], "maxLength": p[0] + p[1]}
    ),
    st.sampled_from(["^[ab]+$", "x", "^.{2}$", "^\\w+ \\d$", "^(ab|c)*$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text('ab"\\\n\u00e9', max_size=3)), min_size=1, max_size=4
    ).map(lambda values: {"enum": values}),
)
names = st.sampled_from(["a", "b", "ab", "a b", 'q"', "\u00e9"])


def arrays(inner):
    return st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(2, 4),
        },
    )


def objects(inner):
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(names, inner, max_size=3)},
        optional={
            "required": st.lists(names, max_size=2, unique=True),
            "additionalProperties": st.one_of(st.just(False), inner),
        },
    )


def unions(inner):
    return st.tuples(st.sampled_from(["anyOf", "allOf", "oneOf"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda p: {p[0]: p[1]}
    )


schemas = st.recursive(scalars, lambda inner: st.one_of(arrays(inner), objects(inner), unions(inner)), max_leaves=6)


@given(schema=schemas, seed=st.integers(0, 2**32))
@settings(max_examples=250, deadline=None)
def test_text_under_a_schema_is_an_instance_of_it(schema, seed):
    jsonschema = pytest.importorskip("jsonschema")
    try:
        grammar = COMPILER.compile(schema)
    except UnsupportedSchema:
        assume(False)
    text = random_text(grammar, seed)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
