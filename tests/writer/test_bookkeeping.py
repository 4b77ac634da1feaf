"""Bookkeeping replies: what is taken, what is refused and why, and what the short memory becomes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurrent_writer.bookkeeping import Add, Bookkeeping, Drop, InvalidBookkeeping
from recurrent_writer.sentences import split
from recurrent_writer.short_memory import MAX_SENTENCES, revise

MEMORY = ("Ada has the key.", "Bram is ill.", "It rains.")
PLANS = ("Ada goes.", "Bram comes.", "Both wait.")


def reply(drop=(), add=(), plans=PLANS):
    return json.dumps({"drop": list(drop), "add": list(add), "plans": list(plans)})


def test_a_good_reply_is_read():
    text = reply([{"number": 2, "why": "he is  well\nagain"}], [{"sentence": "Ada left.", "why": "she is gone"}])
    assert Bookkeeping.read(text, MEMORY) == Bookkeeping(
        (Drop(2, "he is well again"),), (Add("Ada left.", "she is gone"),), PLANS
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (reply()[:-5], "not complete JSON"),
        ("[]", "lists drop, add and plans"),
        ('{"drop":[],"add":[]}', "lists drop, add and plans"),
        (reply(drop=[{"number": 4, "why": "x"}]), "no sentence 4: the memory has 3"),
        (reply(drop=[{"number": 1, "why": "x"}] * 2), "dropped twice"),
        (reply(add=[{"sentence": " ", "why": "x"}]), "empty"),
        (reply(add=[{"sentence": "It rains.", "why": "x"}]), "in the memory already"),
        (reply(plans=["a", "A", "b"]), "3 plans, each different"),
        (reply(plans=["a", "", "b"]), "3 plans, each different"),
    ],
)
def test_a_bad_reply_is_refused_with_its_reason(text, problem):
    with pytest.raises(InvalidBookkeeping, match=problem):
        Bookkeeping.read(text, MEMORY)


def test_a_sentence_may_be_dropped_and_said_anew():
    text = reply([{"number": 3, "why": "x"}], [{"sentence": "It rains.", "why": "again"}])
    assert revise(MEMORY, Bookkeeping.read(text, MEMORY)) == ("Ada has the key.", "Bram is ill.", "It rains.")


SENTENCES = (
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)
    .map(lambda text: " ".join(text.split()))
    .filter(bool)
)


@given(memory=st.lists(SENTENCES, max_size=MAX_SENTENCES, unique=True), data=st.data())
def test_revising_keeps_the_order_and_never_grows_too_long(memory, data):
    drops = data.draw(st.lists(st.integers(1, len(memory)), unique=True)) if memory else []
    adds = data.draw(st.lists(SENTENCES.filter(lambda text: text not in memory), max_size=4, unique=True))
    edits = Bookkeeping(tuple(Drop(n, "x") for n in drops), tuple(Add(s, "x") for s in adds), PLANS)
    after = revise(memory, edits)
    wanted = [s for n, s in enumerate(memory, 1) if n not in drops] + adds
    assert len(after) <= MAX_SENTENCES
    assert list(after) == wanted[-MAX_SENTENCES:]
    assert Bookkeeping.read(edits.to_json(), memory) == edits
    assert Bookkeeping.from_dict(json.loads(json.dumps(asdict(edits)))) == edits


@pytest.mark.parametrize("sentences", [0, 1, 20])
def test_under_its_schema_any_model_writes_a_reply_that_can_be_parsed(tiny_engine, sentences):
    from runtime import Sampling

    memory = [f"Sentence {n}." for n in range(sentences)]
    with tiny_engine.context("x") as context:
        generation = context.generate(Sampling(max_tokens=220, seed=sentences, schema=Bookkeeping.schema(sentences)))
        text = generation.run()
    if generation.finish_reason == "stop":
        found = json.loads(text)
        assert list(found) == ["drop", "add", "plans"]
        assert all(1 <= item["number"] <= len(memory) for item in found["drop"])
        assert len(found["plans"]) == 3
    else:
        assert text.startswith('{"drop":[')


def test_a_capable_instruct_model_answers_these_prompts_as_they_ask(tiny_engine):
    """A recorded answer of a large model to exactly the prompts of `prompt.py`, with the instructions, and without a grammar."""
    recorded = json.loads((Path(__file__).parent / "replies" / "capable_model.json").read_text("utf-8"))
    assert 5 <= len(split(recorded["paragraph"])) <= 16
    assert "\n" not in recorded["paragraph"]
    memory = recorded["memory"]
    bookkeeping = Bookkeeping.read(recorded["reply"], memory)
    assert [item.number for item in bookkeeping.drop] == [7]
    assert len(revise(memory, bookkeeping)) == len(memory) + 2
    grammar = tiny_engine.grammars.compile(Bookkeeping.schema(len(memory)))
    for token in tiny_engine.encode(bookkeeping.to_json(), special=False):
        grammar.accept(token)
    assert grammar.finished
