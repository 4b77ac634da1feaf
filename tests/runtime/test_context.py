"""A live context: what an edit costs, where spans go, and what is refused. (What it means is in test_modes.py.)"""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Engine
from runtime.errors import (
    ContextBusy,
    EmptyContext,
    PositionsExhausted,
    SlotsExhausted,
    SpanGone,
    UnknownToken,
    UnsupportedMode,
)

TOLERANCE = 1e-4


def test_an_edit_encodes_exactly_what_is_behind_it(tiny_engine):
    with tiny_engine.context("Ada hid the ") as context:
        middle = context.append("brass ")
        tail = context.append("key under the stair")
        context.logits()
        encoded = context.stats.encoded_tokens
        assert encoded == len(context)
        context.replace(middle, "b")
        context.logits()
        assert context.stats.encoded_tokens - encoded <= 1 + len(tail)


def test_a_replacement_keeps_what_it_has_in_common(tiny_engine):
    with tiny_engine.context([10, 11]) as context:
        span = context.append([20, 21, 22, 23])
        context.logits()
        before = context.stats.encoded_tokens
        context.replace(span, [20, 21, 30])
        context.logits()
        assert context.stats.encoded_tokens - before == 1


def test_the_same_replacement_costs_nothing(tiny_engine):
    with tiny_engine.context([10, 11]) as context:
        span = context.append([20, 21])
        context.append([30])
        context.logits()
        before = context.stats.encoded_tokens
        context.replace(span, [20, 21])
        context.logits()
        assert context.stats.encoded_tokens == before


def test_positions_are_dense_and_used_again(tiny_engine):
    with tiny_engine.context([10, 11, 12]) as context:
        span = context.append([20] * 100)
        for _ in range(5):
            context.drop(span)
            span = context.append([20] * 200)
        assert context.positions == list(range(203))


def test_spans_follow_the_edits_before_them(tiny_engine):
    with tiny_engine.context([1]) as context:
        first, second, third = context.append([5, 6]), context.append([7, 8]), context.append([9])
        outer = context.span(1, 5)
        context.replace(first, [4, 4, 4])
        assert second.token_ids == [7, 8]
        assert outer.token_ids == [4, 4, 4, 7, 8]
        context.drop(second)
        assert third.token_ids == [9]
        assert outer.token_ids == [4, 4, 4]
        assert not first.alive
        assert not second.alive


def test_a_span_that_is_gone_is_refused(tiny_engine):
    with tiny_engine.context([1]) as context, tiny_engine.context([1]) as other:
        span = context.append([5, 6])
        context.drop(span)
        with pytest.raises(SpanGone, match="dropped or replaced"):
            context.drop(span)
        with pytest.raises(SpanGone, match="another context"):
            other.drop(context.append([3]))
        with pytest.raises(SpanGone, match="not in a context of 2 tokens"):
            context.span(0, 3)


def test_an_empty_span_dies_inside_an_edit_and_stays_at_its_edges(tiny_engine):
    with tiny_engine.context([1, 2, 3, 4, 5, 6]) as context:
        left, inside, right = context.span(1, 1), context.span(3, 3), context.span(5, 5)
        context.replace(context.span(1, 5), [7, 8])
        assert [span.alive for span in (left, inside, right)] == [True, False, True]
        assert (left.start, right.start) == (1, 3)


def test_an_empty_span_that_was_replaced_or_dropped_is_gone(tiny_engine):
    with tiny_engine.context([1, 2, 3]) as context:
        replaced, dropped = context.span(1, 1), context.span(2, 2)
        context.drop(dropped)
        assert context.replace(replaced, [7]).token_ids == [7]
        assert not replaced.alive
        assert not dropped.alive


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_token_that_the_model_does_not_have_changes_nothing(tiny_engine, token):
    with tiny_engine.context([1, 2]) as context:
        span = context.append([3])
        with pytest.raises(UnknownToken, match=rf"no token {token}: use token ids from 0 to {tiny_engine.vocab_size - 1}\."):
            context.append([4, token])
        with pytest.raises(UnknownToken):
            context.replace(span, [token])
        assert context.token_ids == [1, 2, 3]
        assert span.alive


def test_an_empty_context_has_no_logits(tiny_engine):
    with tiny_engine.context() as context:
        with pytest.raises(EmptyContext):
            context.logits()
        with pytest.raises(EmptyContext):
            context.generate()


def test_a_closed_context_says_so(tiny_engine):
    context = tiny_engine.context("Ada")
    context.close()
    context.close()
    with pytest.raises(ContextBusy, match="closed"):
        context.append("more")


def test_the_slots_of_a_forgotten_context_come_back(tiny_engine):
    free = tiny_engine.pool.free
    context = tiny_engine.context("Ada hid the brass key")
    context.logits()
    assert tiny_engine.pool.free < free
    del context
    gc.collect()
    assert tiny_engine.pool.free == free


def test_too_few_slots_is_an_error_that_names_the_numbers(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=10) as engine:
        context = engine.context([1] * 8)
        context.logits()
        span = context.append([2] * 5)
        with pytest.raises(SlotsExhausted, match="5 tokens have to be encoded but only 2"):
            context.logits()
        engine.check()
        context.drop(span)
        context.logits()


def test_too_long_a_context_is_an_error_that_changes_nothing(tiny_engine):
    with tiny_engine.context([1] * 250) as context:
        with pytest.raises(PositionsExhausted, match="257 tokens, and the model knows 256"):
            context.append([2] * 7)
        assert len(context) == 250


def test_a_long_text_goes_through_in_pieces(tiny_engine, monkeypatch, eager):
    monkeypatch.setattr(tiny_engine.scheduler, "_step_tokens", 16)
    with tiny_engine.context([3, 5, 7] * 30) as context:
        expected = eager(tiny_engine.model_path)(context.token_ids)
        assert (context.logits() - expected).abs().max() < TOLERANCE


def test_a_failure_in_the_model_leaves_the_context_whole(tiny_engine, monkeypatch, eager):
    with tiny_engine.context([3, 5]) as context:
        context.logits()
        context.append([7, 9])

        def fail(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(tiny_engine.decoder, "forward", fail)
        with pytest.raises(KeyboardInterrupt):
            context.logits()
        monkeypatch.undo()
        tiny_engine.check()
        assert (context.logits() - eager(tiny_engine.model_path)(context.token_ids)).abs().max() < TOLERANCE


def test_the_first_text_alone_gets_what_the_tokenizer_adds(tiny_engine, monkeypatch):
    seen = []
    encode = Engine.encode

    def spy(self, text, *, first=False, special=True):
        seen.append((text, first))
        return encode(self, text, first=first, special=special)

    monkeypatch.setattr(Engine, "encode", spy)
    with tiny_engine.context("one") as context:
        context.append("two")
        context.append([1])
    assert seen == [("one", True), ("two", False)]


def test_an_unknown_mode_is_refused(tiny_engine):
    with pytest.raises(UnsupportedMode, match="'sideways'"):
        tiny_engine.context("Ada", mode="sideways")


@settings(deadline=None, max_examples=20)
@given(ids=st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_a_forks_edits_do_not_reach_the_other(tiny_engine, eager, ids):
    oracle = eager(tiny_engine.model_path)
    with tiny_engine.context(ids) as context:
        context.logits()
        twin = context.fork()
        assert twin.stats.encoded_tokens == 0
        twin.append([5, 6])
        twin.logits()
        context.append([9])
        assert (context.logits() - oracle([*ids, 9])).abs().max() < TOLERANCE
        assert (twin.logits() - oracle([*ids, 5, 6])).abs().max() < TOLERANCE
        twin.close()
        tiny_engine.check()


def test_logits_are_float32_on_the_cpu(tiny_engine):
    with tiny_engine.context("Ada") as context:
        logits = context.logits()
        assert logits.dtype == torch.float32
        assert logits.shape == (tiny_engine.vocab_size,)
        assert logits.device.type == "cpu"
