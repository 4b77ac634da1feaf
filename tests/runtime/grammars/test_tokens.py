"""Which tokens a grammar allows and forces, one after the other, and back again."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.json_schema import TASK_TREE
from runtime.errors import GrammarStuck, InvalidGrammar, TokenRefused, UnsupportedSchema
from runtime.grammars.grammar import GrammarCompiler
from runtime.grammars.schema import Choices, Regex
from tests.runtime.grammars.schemas import INTEGER, SCHEMAS, TEXT, TREE, closed
from tests.runtime.grammars.writing import COMPILER, EOS, TOKENIZER, encode, random_text


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
    assert COMPILER.masks([grammar])[0].nonzero()[0].tolist() == [EOS]


def test_the_mask_leaves_the_logits_of_what_is_allowed():
    grammar = COMPILER.compile(Choices(["yes", "no"]))
    logits = torch.randn(len(TOKENIZER))
    masked, allowed = grammar.mask(logits), COMPILER.masks([grammar])[0]
    assert np.array_equal(masked[allowed], logits[allowed])
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
            allowed = COMPILER.masks([free])[0].nonzero()[0].tolist()
            without.append(random.Random(seed + step).choice(allowed))
            free.accept(without[-1])
        assert TOKENIZER.decode(without).startswith(forced)
        if twin.finished:
            break
        grammar = twin
        grammar.accept(
            random.Random(seed + step).choice([t for t in COMPILER.masks([grammar])[0].nonzero()[0].tolist() if t != EOS])
        )


def test_masks_of_many_are_the_masks_of_each():
    schemas = [SCHEMAS[name][0] for name in ("open object", "recursion", "length", "anything")]
    grammars = [COMPILER.compile(schema) for schema in schemas] + [None, COMPILER.compile(Regex("[ab]+"))]
    for grammar, text in zip(grammars, ['{"fo', '{"name":"x', '"a', "[[1"], strict=False):
        grammar.accept(*encode(text))
    masks = COMPILER.masks(grammars)
    assert masks.shape == (6, len(TOKENIZER))
    assert masks.dtype == np.bool_
    assert masks[4].all()
    for grammar, row in zip(grammars, masks, strict=True):
        assert grammar is None or np.array_equal(COMPILER.masks([grammar])[0], row)
    assert np.array_equal(COMPILER.masks_ahead(grammars)(), masks)
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
        assert np.array_equal(COMPILER.masks([grammar]), before)
    assert grammar.allows(encode(",2]"))
    assert np.array_equal(COMPILER.masks([grammar]), before)


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
    assert np.array_equal(COMPILER.masks([grammar]), COMPILER.masks([fresh]))
    assert not grammar.finished
    grammar.accept(*ids[-cut:])
    assert grammar.finished


def test_a_grammar_that_can_go_nowhere_says_so():
    grammar = COMPILER.compile(closed("a", a={"type": "string", "pattern": "^\\x01$"}))
    grammar.accept(*encode('{"a":'))
    assert not COMPILER.masks([grammar, None])[0].any()
    with pytest.raises(GrammarStuck):
        grammar.mask(torch.zeros(len(TOKENIZER)))


def test_a_schema_is_compiled_once():
    compiler = GrammarCompiler(TOKENIZER, len(TOKENIZER), [EOS])
    times = []
    for _ in range(2):
        began = time.perf_counter()
        compiler.compile(TASK_TREE)
        times.append(time.perf_counter() - began)
    assert times[1] < times[0] < 1
