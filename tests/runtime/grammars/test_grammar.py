"""Text under a grammar is what was asked for, and what cannot be enforced is refused by name."""

from __future__ import annotations

import datetime
import ipaddress
import json
import random
import time
import uuid
from enum import Enum
from typing import Annotated, Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from transformers import AutoTokenizer

from benchmarks.json_schema import MODEL, TASK_TREE
from runtime.errors import GrammarStuck, InvalidGrammar, TokenRefused, UnsupportedSchema
from runtime.grammars.grammar import GrammarCompiler
from runtime.grammars.schema import Choices, Ebnf, Regex

TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
EOS = TOKENIZER.eos_token_id
COMPILER = GrammarCompiler(TOKENIZER, len(TOKENIZER), [EOS])
# What ends a string, a list, an object or a number.
CLOSERS = torch.tensor([TOKENIZER.convert_tokens_to_ids(text) for text in '"]},'])


def encode(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def fits(schema, text):
    """Whether the whole text can be written, token by token."""
    grammar = COMPILER.compile(schema)
    for token in encode(text):
        if not COMPILER.masks([grammar])[0, token]:
            return False
        grammar.accept(token)
    return grammar.can_end


def random_text(grammar, seed, length=3000):
    """Text of a model that knows nothing, but likes to come to an end."""
    rng, ids = random.Random(seed), []
    while len(ids) < length:
        ids += grammar.forced()
        allowed = COMPILER.masks([grammar])[0]
        if allowed[EOS] and (rng.random() < 0.5 or allowed.sum() == 1):
            assert grammar.can_end
            return TOKENIZER.decode(ids, clean_up_tokenization_spaces=False)
        allowed[EOS] = False
        closers = CLOSERS[allowed[CLOSERS]]
        near = len(closers) and rng.random() < min(len(ids) / 30, 0.7)
        ids.append(rng.choice((closers if near else allowed.nonzero().flatten()).tolist()))
        grammar.accept(ids[-1])
    raise AssertionError(TOKENIZER.decode(ids))


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


@given(year=st.integers(0, 9999), month=st.integers(0, 13), day=st.integers(0, 32))
@settings(max_examples=300, deadline=None)
def test_dates_are_those_of_the_calendar(year, month, day):
    try:
        datetime.date(year, month, day)
        there_is = True
    except ValueError:
        there_is = False
    assert fits({"type": "string", "format": "date"}, f'"{year:04}-{month:02}-{day:02}"') is there_is


@given(
    address=st.ip_addresses(v=6).map(lambda a: [str(a), a.exploded])
    | st.lists(st.text("0aF:.1", min_size=2, max_size=20), max_size=2)
)
@settings(max_examples=200, deadline=None)
def test_an_address_is_one_that_python_reads(address):
    for text in address:
        try:
            ipaddress.IPv6Address(text)
            good = True
        except ValueError:
            good = False
        assert fits({"type": "string", "format": "ipv6"}, f'"{text}"') is good


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^a.b$", "a\u00e9b", "a\u2028b"), ("^\\s$", "\ufeff", "\u0085"), ("^\\S$", "\u0085", "\u3000"), ("^[\\s]$", "\u00a0", "a"),
        ("^[^\\s]$", "a", "\ufeff"), ("^[a\\S]$", "b", " "), ("^[[]$", "[", "a"), ("^[a&&b]$", "&", "c"), ("^[~~^]$", "^", "a"),
        ("^\\w$", "_", "\u00e9"), ("^\\d$", "7", "\u0663"), ("^[.]$", ".", "a"), ("^a|b$", "axx", "xax"), ("^\\u0041\\x42$", "AB", "ab"),
        ("^\\p{Lu}$", "\u00c9", "\u00e9"), ("^a\\/b\\-c$", "a/b-c", "ab-c"),
    ],
)  # fmt: skip
def test_patterns_mean_what_they_mean_in_ecmascript(pattern, good, bad):
    schema = {"type": "string", "pattern": pattern}
    assert fits(schema, json.dumps(good, ensure_ascii=False))
    assert not fits(schema, json.dumps(bad, ensure_ascii=False))


def test_a_regular_expression_matches_the_whole_text():
    assert fits(Regex(r"[a-z]+ \d{2}"), "ab 12")
    assert not fits(Regex(r"[a-z]+ \d{2}"), "ab 123")
    assert fits(Regex("a*"), "")


def test_one_of_the_choices_is_written():
    options = ["yes", "no", "no idea", 'a "b"\\', "line\nline", "\U0001f600"]
    assert all(fits(Choices(options), option) for option in options)
    assert not fits(Choices(options), "no i")
    assert not fits(Choices(options), "maybe")


@pytest.mark.parametrize(
    "text",
    [
        'start: expr\nexpr: NUMBER | "(" expr "+" expr ")"\nNUMBER: /[0-9]+/',
        'root ::= expr\nexpr ::= [0-9]+ | "(" expr "+" expr ")"',
    ],
    ids=["lark", "gbnf"],
)
def test_an_ebnf_grammar_is_followed(text):
    assert fits(Ebnf(text), "((1+22)+3)")
    assert not fits(Ebnf(text), "((1+22)+3")
    assert not fits(Ebnf(text), "(1+2))")


@pytest.mark.parametrize(
    "schema", [Regex("("), Regex("(?!a)b"), Regex(r"[^\s\S]"), Ebnf("start: nowhere"), Ebnf("root ::= ("), Ebnf("")], ids=str
)
def test_a_grammar_that_cannot_be_read_is_refused(schema):
    with pytest.raises(InvalidGrammar):
        COMPILER.compile(schema)


@pytest.mark.parametrize("schema", ["yes|no", ["yes", "no"], None, int], ids=str)
def test_anything_else_is_no_schema(schema):
    with pytest.raises(InvalidGrammar, match="is not a JSON schema"):
        COMPILER.compile(schema)


@pytest.mark.parametrize("options", [[], "yes", [1, 2]])
def test_choices_are_a_list_of_strings(options):
    with pytest.raises(InvalidGrammar, match="at least one"):
        Choices(options)


@pytest.mark.parametrize(
    "schema",
    [{"const": "a <|im_end|>"}, {"properties": {"<|im_end|>": {}}}, Choices(["<|im_end|>"]), Regex("<|im_end|>")],
    ids=str,
)
def test_the_name_of_a_special_token_is_not_taken_for_text(schema):
    with pytest.raises((UnsupportedSchema, InvalidGrammar), match="special token"):
        COMPILER.compile(schema)


def test_special_tokens_are_never_allowed_in_a_text():
    grammar = COMPILER.compile(TEXT)
    grammar.accept(*encode('"a'))
    assert not COMPILER.masks([grammar])[0][TOKENIZER.all_special_ids].any()


def test_the_end_is_allowed_where_the_text_may_end():
    grammar = COMPILER.compile({"type": "array", "items": INTEGER})
    for token in encode("[1,2]"):
        assert not grammar.can_end
        assert not COMPILER.masks([grammar])[0, EOS]
        grammar.accept(token)
    assert grammar.can_end
    assert grammar.finished
    assert COMPILER.masks([grammar])[0].nonzero().flatten().tolist() == [EOS]


def test_the_mask_leaves_the_logits_of_what_is_allowed():
    grammar = COMPILER.compile(Choices(["yes", "no"]))
    logits = torch.randn(len(TOKENIZER))
    masked, allowed = grammar.mask(logits), COMPILER.masks([grammar])[0]
    assert torch.equal(masked[allowed], logits[allowed])
    assert (masked[~allowed] == -torch.inf).all()
    assert 0 < allowed.sum() < 20


@given(seed=st.integers(0, 2**32), name=st.sampled_from(["object", "anyOf", "recursion", "const", "tuple", "oneOf"]))
@settings(max_examples=40, deadline=None)
def test_forced_tokens_begin_whatever_else_may_follow(seed, name):
    grammar = COMPILER.compile(SCHEMAS[name][0])
    for step in range(12):
        free, twin = grammar.fork(), grammar.fork()
        forced = TOKENIZER.decode(twin.forced())
        without = []  # another model, which is never helped
        while len(TOKENIZER.decode(without)) < len(forced):
            allowed = COMPILER.masks([free])[0].nonzero().flatten().tolist()
            without.append(random.Random(seed + step).choice(allowed))
            free.accept(without[-1])
        assert TOKENIZER.decode(without).startswith(forced)
        if twin.finished:
            break
        grammar = twin
        grammar.accept(
            random.Random(seed + step).choice(
                [t for t in COMPILER.masks([grammar])[0].nonzero().flatten().tolist() if t != EOS]
            )
        )


def test_masks_of_many_are_the_masks_of_each():
    schemas = [SCHEMAS[name][0] for name in ("open object", "recursion", "length", "anything")]
    grammars = [COMPILER.compile(schema) for schema in schemas] + [None, COMPILER.compile(Regex("[ab]+"))]
    for grammar, text in zip(grammars, ['{"fo', '{"name":"x', '"a', "[[1"], strict=False):
        grammar.accept(*encode(text))
    masks = COMPILER.masks(grammars)
    assert masks.shape == (6, len(TOKENIZER))
    assert masks.dtype == torch.bool
    assert masks[4].all()
    for grammar, row in zip(grammars, masks, strict=True):
        assert grammar is None or torch.equal(COMPILER.masks([grammar])[0], row)
    assert torch.equal(COMPILER.masks_ahead(grammars).result(), masks)
    assert COMPILER.masks([]).shape == (0, len(TOKENIZER))


def test_given_tokens_are_taken_like_sampled_ones():
    grammar = COMPILER.compile(closed("result", "next", result={"type": ["integer", "string"]}, next=INTEGER))
    grammar.accept(*encode('{"result":'))
    result = encode('"a tool wrote this"')
    assert grammar.allows(result)
    grammar.accept(*result)
    assert TOKENIZER.decode(grammar.forced()).startswith(',"next')


def test_a_token_that_does_not_fit_changes_nothing():
    grammar = COMPILER.compile({"type": "array", "items": INTEGER})
    grammar.accept(*encode("[1"))
    before = COMPILER.masks([grammar])
    for wrong in (encode(',2,"a"]'), encode("x"), [EOS], encode("]]")):
        assert not grammar.allows(wrong)
        with pytest.raises(TokenRefused):
            grammar.accept(*wrong)
        assert torch.equal(COMPILER.masks([grammar]), before)
    assert grammar.allows(encode(",2]"))
    assert torch.equal(COMPILER.masks([grammar]), before)


def test_a_fork_goes_its_own_way():
    grammar = COMPILER.compile({"type": "array", "items": INTEGER})
    grammar.accept(*encode("[1"))
    twin = grammar.fork()
    twin.accept(*encode("]"))
    assert twin.finished
    assert not grammar.finished
    assert grammar.allows(encode(",2]"))


@given(seed=st.integers(0, 2**32), cut=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_what_is_taken_back_was_never_there(seed, cut):
    ids = encode(random_text(COMPILER.compile(TREE), seed))
    cut = min(cut, len(ids))
    grammar, fresh = COMPILER.compile(TREE), COMPILER.compile(TREE)
    grammar.accept(*ids)
    grammar.rollback(cut)
    fresh.accept(*ids[:-cut])
    assert torch.equal(COMPILER.masks([grammar]), COMPILER.masks([fresh]))
    assert not grammar.finished
    grammar.accept(*ids[-cut:])
    assert grammar.finished


def test_a_grammar_that_can_go_nowhere_says_so():
    grammar = COMPILER.compile(closed("a", a={"type": "string", "pattern": "^\\x01$"}))
    grammar.accept(*encode('{"a":'))
    assert not COMPILER.masks([grammar, None])[0].any()
    with pytest.raises(GrammarStuck):
        grammar.mask(torch.zeros(len(TOKENIZER)))


def test_the_schema_cannot_change_how_it_is_written():
    free = {"x-guidance": {"whitespace_flexible": True, "lenient": True}, "type": "array", "items": INTEGER}
    assert fits(free, "[1,2]")
    assert not fits(free, "[1, 2]")


def test_a_schema_is_compiled_once():
    compiler = GrammarCompiler(TOKENIZER, len(TOKENIZER), [EOS])
    times = []
    for _ in range(2):
        began = time.perf_counter()
        compiler.compile(TASK_TREE)
        times.append(time.perf_counter() - began)
    assert times[1] < times[0] < 1
