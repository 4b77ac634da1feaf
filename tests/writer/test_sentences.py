"""Cutting prose into sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurrent_writer.sentences import split, whole, windows


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('"Why?" he asked. "I do not know."', ['"Why?" he asked.', '"I do not know."']),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("It cost 3.50 at noon. Dear.", ["It cost 3.50 at noon.", "Dear."]),
        ('"Hush. The river rises," she said. Nobody spoke.', ['"Hush. The river rises," she said.', "Nobody spoke."]),
        ("no end", ["no end"]),
        ("She waited\u2026 Then she went.", ["She waited\u2026", "Then she went."]),
    ],
)
def test_sentences(text, sentences):
    assert split(text) == sentences


@given(st.text(st.sampled_from("aB .!?\"'\u2026\n")))
def test_nothing_but_space_is_lost(text):
    assert "".join("".join(split(text)).split()) == "".join(text.split())
    assert "".join("".join(windows(text)).split()) == "".join(text.split())


def test_windows_are_pairs_and_the_last_may_be_three():
    assert windows("A. B. C. D. E.") == ["A. B.", "C. D. E."]
    assert windows("A.") == ["A."]


@pytest.mark.parametrize(
    ("text", "finished"),
    [("One. Two and", "One."), ('"Yes." And', '"Yes."'), ("no end at all", "no end at all"), ("Done.", "Done.")],
)
def test_whole_ends_with_the_last_finished_sentence(text, finished):
    assert whole(text) == finished
