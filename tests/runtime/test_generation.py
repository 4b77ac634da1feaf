"""Streaming, stopping, cancelling, and text under a schema."""

from __future__ import annotations

import json
import threading
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Engine, Sampling
from runtime.errors import ContextBusy, SlotsExhausted, UnsupportedSchema
from tests.conftest import make_it_say


@pytest.fixture
def context(tiny_engine):
    with tiny_engine.context("Ada hid the brass key under the stair.") as context:
        yield context
    tiny_engine.check()


def test_the_same_seed_gives_the_same_text(context):
    texts = []
    for seed in (5, 5, 6):
        generation = context.generate(Sampling(max_tokens=30, seed=seed))
        texts.append(generation.run())
        context.drop(generation.span)
    assert texts[0] == texts[1] != texts[2]


def test_the_pieces_are_the_text_and_the_tokens_stay(context, tiny_engine):
    before = len(context)
    generation = context.generate(Sampling(max_tokens=25, seed=3))
    pieces = list(generation)
    assert "".join(pieces) == generation.text
    assert generation.span.token_ids == context.token_ids[before:]
    assert tiny_engine.decode(generation.span.token_ids).startswith(generation.text)
    assert context.stats.generated_tokens == 25
    assert generation.finish_reason == "length"


def test_the_end_token_ends_the_text_and_does_not_stay(context, tiny_engine, monkeypatch):
    make_it_say(monkeypatch, tiny_engine, [*tiny_engine.encode("Why?"), tiny_engine.tokenizer.eos_token_id])
    generation = context.generate(Sampling(temperature=0))
    assert generation.run() == "Why?"
    assert generation.finish_reason == "stop"
    assert tiny_engine.tokenizer.eos_token_id not in context.token_ids


def test_the_end_token_can_be_ignored(context, tiny_engine, monkeypatch):
    end = tiny_engine.tokenizer.eos_token_id
    make_it_say(monkeypatch, tiny_engine, [end] * 9)
    generation = context.generate(Sampling(temperature=0, max_tokens=4, ignore_eos=True))
    generation.run()
    assert generation.span.token_ids == [end] * 4


@settings(deadline=None, max_examples=80)
@given(
    text=st.text(st.sampled_from("ab<>\n\u00e9\U0001f600 "), min_size=1, max_size=30),
    stop=st.lists(st.text(st.sampled_from("ab<>\n"), min_size=1, max_size=4), min_size=1, max_size=2).filter(
        # Of two stop strings, one in the other, the tokens decide which is met first.
        lambda stops: not any(one in other for one, other in permutations(stops, 2))
    ),
)
def test_a_stop_string_is_found_wherever_the_tokens_divide(tiny_engine, text, stop):
    with pytest.MonkeyPatch.context() as monkeypatch, tiny_engine.context([1]) as context:
        make_it_say(monkeypatch, tiny_engine, [*tiny_engine.encode(text), tiny_engine.tokenizer.eos_token_id] + [5] * 99)
        generation = context.generate(Sampling(temperature=0, stop=stop))
        streamed = "".join(generation)
        expected = text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]
        assert streamed == generation.text == expected
        assert tiny_engine.decode(context.token_ids[1:]) == expected
        assert generation.span.token_ids == context.token_ids[1:]


def test_characters_of_many_bytes_come_whole(context, tiny_engine, monkeypatch):
    text = "\u4f60\u597d \U0001f600!"
    make_it_say(monkeypatch, tiny_engine, [*tiny_engine.encode(text), tiny_engine.tokenizer.eos_token_id])
    pieces = list(context.generate(Sampling(temperature=0)))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_leaving_early_keeps_what_came_and_frees_the_context(context):
    generation = context.generate(Sampling(max_tokens=50, seed=1))
    next(generation)
    with pytest.raises(ContextBusy, match="running"):
        context.append("more")
    with pytest.raises(ContextBusy, match="being generated"):
        context.drop(generation.span)
    generation.close()
    assert generation.finish_reason == "cancelled"
    assert len(generation.span) >= 1
    context.append("more")


def test_cancel_ends_before_the_next_token(context):
    generation = context.generate(Sampling(max_tokens=50, seed=1))
    next(generation)
    tokens = len(generation.span)
    context.cancel()
    generation.run()
    assert generation.finish_reason == "cancelled"
    assert len(generation.span) == tokens


def test_leaving_the_loop_ends_the_generation(context):
    for _ in context.generate(Sampling(max_tokens=50, seed=1)):
        break
    context.append("more")
    context.generate(Sampling(max_tokens=2)).run()


def test_cancel_ends_a_generation_that_nobody_advances(context):
    generation = context.generate(Sampling(max_tokens=50, seed=1))
    next(generation)
    tokens = list(generation.span.token_ids)
    context.cancel()
    assert generation.finish_reason == "cancelled"
    context.append("more")
    generation.run()
    assert generation.span.token_ids == tokens


def test_cancel_from_another_thread_waits_for_the_token_at_hand(context, monkeypatch):
    decoder = context.engine.decoder
    forward, entered, go_on = decoder.forward, threading.Event(), threading.Event()

    def slow(batch):
        entered.set()
        assert go_on.wait(10)
        return forward(batch)

    monkeypatch.setattr(decoder, "forward", slow)
    generation = context.generate(Sampling(max_tokens=50, seed=1, ignore_eos=True))
    thread = threading.Thread(target=generation.run)
    thread.start()
    assert entered.wait(10)
    context.cancel()
    assert generation.finish_reason == "running"
    go_on.set()
    thread.join(10)
    assert generation.finish_reason == "cancelled"
    assert len(generation.span) == 1
    context.append("more")


def test_the_last_position_ends_the_text_like_max_tokens(tiny_engine):
    with tiny_engine.context([1] * 250) as context:
        generation = context.generate(Sampling(max_tokens=50, seed=1, ignore_eos=True))
        assert "".join(generation) == generation.text
        assert generation.finish_reason == "length"
        assert len(context) == tiny_engine.max_positions


def test_slots_that_run_out_are_an_error(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=10) as engine, engine.context([1] * 8) as context:
        generation = context.generate(Sampling(max_tokens=50, seed=1, ignore_eos=True))
        with pytest.raises(SlotsExhausted):
            generation.run()
        assert generation.finish_reason == "cancelled"
        context.append([2])


def test_the_text_before_may_be_dropped_before_the_first_token(tiny_engine):
    with tiny_engine.context([1, 2]) as context:
        memory = context.append([5, 6, 7])
        generation = context.generate(Sampling(max_tokens=4, seed=1, ignore_eos=True))
        context.drop(memory)
        generation.run()
        assert generation.span.token_ids == context.token_ids[2:]
        assert len(generation.span) == 4


def test_text_before_may_be_edited_while_it_streams(tiny_engine, eager):
    with tiny_engine.context([1, 2]) as context:
        memory = context.append([5, 6, 7])
        generation = context.generate(Sampling(max_tokens=6, seed=1, ignore_eos=True))
        next(generation)
        context.drop(memory)
        generation.run()
        assert context.token_ids[:2] == [1, 2]
        assert generation.span.token_ids == context.token_ids[2:]
        expected = eager(tiny_engine.model_path)(context.token_ids)
        assert (context.logits() - expected).abs().max() < 1e-4


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["yes", "no"]}},
     "required": ["a", "b"], "additionalProperties": False},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"$defs": {"t": {"type": "object", "properties": {"x": {"enum": [1, 2]}, "k": {"type": "array", "maxItems": 1, "items": {"$ref": "#/$defs/t"}}},
     "required": ["x", "k"], "additionalProperties": False}}, "$ref": "#/$defs/t"},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "recursive"])
@pytest.mark.parametrize("seed", range(4))
def test_text_under_a_schema_is_an_instance_of_it(context, schema, seed):
    generation = context.generate(Sampling(max_tokens=200, seed=seed, schema=schema))
    text = generation.run()
    if generation.finish_reason == "stop":
        value = json.loads(text)
        assert " " not in text
        assert text == json.dumps(value, separators=(",", ":"))
    else:  # a random model may nest for ever; what it wrote is still a beginning
        assert generation.finish_reason == "length"


def test_forced_tokens_are_not_sampled_one_by_one(context):
    schema = {"type": "object", "properties": {"a_rather_long_key": {"const": "and its value"}},
              "required": ["a_rather_long_key"], "additionalProperties": False}  # fmt: skip
    steps = context.engine.stats.steps
    assert context.generate(Sampling(schema=schema)).run() == '{"a_rather_long_key":"and its value"}'
    assert context.engine.stats.steps - steps <= 2


def test_a_greedy_draw_is_the_likeliest_of_what_the_grammar_allows(tiny_engine):
    schema, text, expected = {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}, "List: ", []
    with tiny_engine.context(text) as context:
        written = context.generate(Sampling(schema=schema, temperature=0, max_tokens=40)).run()
        drawn = context.token_ids
    with tiny_engine.context(text) as context:
        grammar = tiny_engine.grammars.compile(schema)
        while not grammar.finished and len(context) < len(drawn):
            tokens = grammar.forced()
            if not tokens:
                logits = context.logits()
                tokens = [int(grammar.mask(logits).argmax())]
                expected.append(tokens[0] == int(logits.argmax()))
                if tokens[0] in tiny_engine.eos_ids:
                    break
                grammar.accept(*tokens)
            context.append(tokens)
        assert context.token_ids == drawn
        assert written
    assert not all(expected)  # the model wanted something else at times


def test_a_schema_that_cannot_be_enforced_says_so(context):
    with pytest.raises(UnsupportedSchema, match="uniqueItems"):
        context.generate(Sampling(schema={"type": "array", "uniqueItems": True}))
    context.append("the context is as it was")


def test_several_prompts_are_answered_each_on_its_own(tiny_engine):
    prompts, sampling = ["Ada hid", "Bram saw"], Sampling(max_tokens=5, temperature=0)
    texts = []
    for prompt in prompts:
        with tiny_engine.context(prompt) as context:
            texts.append(context.generate(sampling).run())
    assert tiny_engine.generate(prompts, sampling) == texts
    tiny_engine.check()
