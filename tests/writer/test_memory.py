"""The long memory recalls by names and words, and its index can always be made anew."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_writer.embedding import DIMENSION, Rarity, embed, embed_all
from recurrent_writer.errors import WriterError
from recurrent_writer.long_memory import LongMemory, Memory

MEMORIES = [
    Memory("1.1", 1, "Ada hid the brass key under the mill stair."),
    Memory("2.1", 2, "Bram bought a goose from the ferry keeper."),
    Memory("3.1", 3, "Cora knows that the well has run dry."),
    Memory("4.1", 4, "Ada quarrelled with Bram about the goose."),
]


def test_vectors_are_of_length_one_and_the_same_every_time():
    vector = embed("Ada hid the brass key.")
    assert vector.shape == (DIMENSION,)
    assert vector.dtype == np.float32
    assert np.isclose(np.linalg.norm(vector), 1)
    assert np.array_equal(vector, embed("Ada hid the brass key."))
    assert not embed("the and of it").any()


def test_what_was_named_once_is_recalled_before_whoever_is_in_every_paragraph(tmp_path):
    everywhere = [Memory(f"{n}.1", n, f"Ada said: {word}.") for n, word in enumerate(("no", "yes", "come", "wait", "never"), 2)]
    hidden = Memory(
        "1.1", 1, "In the yard behind the chapel, under a mat of moss, Bram buried the lead-grey belt that evening."
    )
    memory = LongMemory(tmp_path / "index", [hidden, *everywhere])
    assert memory.recall("Ada looks for the belt.", 1, before_step=9) == [hidden]
    memory.add([Memory(f"{n}.1", n, "A belt.") for n in range(10, 60)])
    assert memory.recall("Ada looks for the belt.", 1, before_step=9) != [hidden], "belts have become common"


def test_the_rarer_a_word_the_more_it_weighs():
    rarity = Rarity()
    for text in ("Ada Bram", "Ada Cora", "Ada Bram Dora"):
        rarity.add(text)
    assert rarity("unheard") > rarity("dora") == rarity("cora") > rarity("bram") > rarity("ada") > 0
    assert embed("Ada Dora", rarity) @ embed("Dora") > embed("Ada Dora") @ embed("Dora")


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_has_a_vector(texts):
    assert embed_all(texts).shape == (len(texts), DIMENSION)


@pytest.mark.parametrize(
    ("plan", "step"),
    [
        ("Ada fetches the brass key from where she hid it.", 1),
        ("Bram roasts the goose he bought.", 2),
        ("Cora tells what she knows of the well.", 3),
        ("Ada and Bram quarrel again over geese and the goose.", 4),
    ],
)
def test_a_plan_recalls_what_it_is_about(tmp_path, plan, step):
    memory = LongMemory(tmp_path / "index", MEMORIES)
    assert memory.recall(plan, 1, before_step=9)[0].step == step


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 99))
def test_the_nearest_are_those_of_an_exact_scan(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    words = [f"w{n}" for n in range(60)]
    memories = [Memory(f"{n}.1", n, " ".join(rng.choice(words, 6))) for n in range(1, 200)]
    query = " ".join(rng.choice(words, 6))
    found = LongMemory(tmp_path_factory.mktemp("i") / "index", memories).recall(query, 5, before_step=999)
    rarity = Rarity()
    for memory in memories:
        rarity.add(memory.text)
    scores = (embed_all(m.text for m in memories) @ embed(query, rarity)).round(6)
    assert found == [memories[place] for place in np.argsort(-scores, kind="stable")[:5]]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_recalled_does_not_depend_on_the_way_the_index_was_built(tmp_path, seed):
    # Many are equally near, and many have no word of the query.
    memories = [Memory(f"{n}.1", n, f"Ada {('sang', 'slept', 'ran')[n % 3]}. w{n}") for n in range(1, 90)]
    grown = LongMemory(tmp_path / "grown", [])
    for memory in memories:
        grown.add([memory])
    whole = LongMemory(tmp_path / "whole", memories)
    for query in ("Bram sang.", "Ada slept and ran.", "Nobody knows.", "w7 w70 sang"):
        found = whole.recall(query, 9, before_step=60, known=[memories[seed].text])
        assert grown.recall(query, 9, before_step=60, known=[memories[seed].text]) == found
        assert len(found) == 9
    assert whole.recall("And of it.", 3, before_step=60) == memories[:3]


def test_recall_leaves_out_later_steps_and_what_is_known(tmp_path):
    memory = LongMemory(tmp_path / "index", MEMORIES)
    assert {m.step for m in memory.recall("Ada and Bram and the goose", 9, before_step=4)} <= {1, 2, 3}
    known = [MEMORIES[0].text, MEMORIES[3].text]
    assert [m.step for m in memory.recall("Ada", 4, before_step=9, known=known)].count(1) == 0


def test_adding_again_changes_nothing(tmp_path):
    memory = LongMemory(tmp_path / "index", MEMORIES)
    memory.add(MEMORIES[:2])
    assert len(memory.recall("Ada Bram Cora", 9, before_step=9)) == len(MEMORIES)


def test_an_index_that_is_there_is_used(tmp_path):
    LongMemory(tmp_path / "index", []).add(MEMORIES)
    assert not LongMemory(tmp_path / "index", MEMORIES).rebuilt


@pytest.mark.parametrize("harm", ["missing", "stranger", "stale", "broken", "emptied", "file"])
def test_an_index_that_is_not_right_is_made_anew(tmp_path, harm):
    folder = tmp_path / "index"
    LongMemory(folder, MEMORIES)
    from chromadb.api.client import SharedSystemClient

    SharedSystemClient.clear_system_cache()
    match harm:
        case "missing":
            shutil.rmtree(folder)
        case "stranger":
            LongMemory(folder, [*MEMORIES[:3], Memory("9.1", 9, "something else")])
        case "stale":
            LongMemory(folder, MEMORIES[:2])
        case "broken":
            (folder / "chroma.sqlite3").write_bytes(b"no database at all" * 99)
        case "emptied":
            (folder / "chroma.sqlite3").write_bytes(b"")
        case "file":
            shutil.rmtree(folder)
            folder.write_text("no folder")
    SharedSystemClient.clear_system_cache()
    memory = LongMemory(folder, MEMORIES)
    assert memory.rebuilt
    assert memory.recall("the brass key of Ada", 1, before_step=9)[0].step == 1


def test_an_index_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    from chromadb.errors import InternalError

    def full(**_):
        raise InternalError("database or disk is full")

    memory = LongMemory(tmp_path / "index", MEMORIES)
    monkeypatch.setattr(memory._collection, "upsert", full)
    with pytest.raises(WriterError, match="disk is full.*make room"):
        memory.add(MEMORIES)
