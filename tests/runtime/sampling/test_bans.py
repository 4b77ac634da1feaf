"""What is forbidden never comes, whether a grammar, a bias or a banned string forbids it; what cannot be kept is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Sampling
from runtime.errors import BrokenLogits, NothingAllowed, UnsupportedModel
from runtime.sampler import Sampler
from runtime.vocabulary import Vocabulary
from tests.runtime.sampling.samplers import END, SEEDS, choose, draw_logits, forbidden, left, sampler
from tests.runtime.tokenizers import byte_level, word_piece


@settings(deadline=None)
@given(
    seed=SEEDS,
    fields=st.sampled_from([{}, {"min_p": 0.1}, {"top_p": 0.4}, {"top_k": 30}, {"typical_p": 0.3}, {"temperature": 0}]),
)
def test_only_what_the_grammar_allows_is_chosen(seed, fields):
    logits = draw_logits(seed, 1, 60)
    allowed = draw_logits(seed + 1, 1, 60) > 4
    allowed[0, seed % 60] = True
    expected = left(logits.masked_fill(~allowed, -torch.inf), sampler(**fields))
    assert torch.equal(left(logits, sampler(**fields), allowed=allowed), expected)
    assert not expected[~allowed].any()


def test_a_row_without_any_token_left_is_named():
    allowed = torch.zeros(2, END + 1, dtype=torch.bool)
    allowed[0, 3], allowed[1, [4, 5]] = True, True
    with pytest.raises(NothingAllowed, match="Row 1 of the batch .* forbid all 2 tokens") as fault:
        choose(torch.zeros(2, END + 1), [sampler(), sampler(banned="the", logit_bias={" cat": -math.inf})], allowed)
    assert fault.value.row == 1


def test_logits_that_are_not_numbers_are_refused():
    for broken in (math.nan, math.inf):
        with pytest.raises(BrokenLogits, match=str(broken)):
            choose(torch.tensor([[0.0, 1.0], [0.0, broken]]), [sampler(), sampler()])


@pytest.mark.parametrize("fields", [{"banned": "a"}, {"dry_multiplier": 1}, {"xtc_probability": 1}, {"logit_bias": {"a": 1}}])
def test_what_needs_the_bytes_of_tokens_is_refused_from_the_start_where_they_cannot_be_told(fields):
    vocabulary = Vocabulary(word_piece())
    sampler(vocabulary=vocabulary, logit_bias={1: 1}, repetition_penalty=1.1, top_p=0.9)
    with pytest.raises(UnsupportedModel):
        sampler(vocabulary=vocabulary, **fields)


def test_a_bias_of_minus_infinity_forbids():
    assert forbidden(sampler(logit_bias={3: -math.inf, " cat": -math.inf})) == {3, 5}


# Banned strings


@settings(deadline=None, max_examples=200)
@given(
    pieces=st.lists(st.text("ab\u00e9\U0001f600 ", min_size=1, max_size=4).map(str.encode), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 4), min_size=8, max_size=8),
    banned=st.lists(st.text("ab\u00e9\U0001f600 ", min_size=1, max_size=4), min_size=1, max_size=3),
    seed=SEEDS,
)
def test_a_banned_string_is_never_in_the_text_whatever_the_tokens(pieces, cuts, banned, seed):
    # Tokens that begin and end in the middle of characters, and all single bytes, with which any string could be formed.
    tokens = {piece[cut:] or piece for piece, cut in zip(pieces, cuts, strict=False)} | set(pieces)
    tokens |= {bytes([byte]) for byte in "ab\u00e9\U0001f600 ".encode()}
    tokens = sorted(tokens)
    tokenizer = byte_level(*tokens)
    one = Sampler(Sampling(seed=seed, banned=banned), Vocabulary(tokenizer), [])
    strings = [string.encode() for string in banned]
    text, ids = b"", []
    for step in range(25):
        logits = draw_logits(seed + step, 1, len(tokens) + 1)
        exactly = [any((text + token).count(string) > text.count(string) for string in strings) for token in tokens]
        assert (left(logits, one)[0] == 0).tolist() == [*exactly, False]
        ids.append(choose(logits, [one])[0].token)
        one.accept(ids[-1])
        text += tokens[ids[-1]] if ids[-1] < len(tokens) else b""
    assert not any(string in tokenizer.decode(ids, skip_special_tokens=True) for string in banned)


def test_a_string_is_banned_in_the_generated_text_not_across_its_beginning():
    assert 3 not in forbidden(sampler([2], banned="Tom"))  # the prompt ends with " To"
    assert 3 in forbidden(sampler([], [2], banned="Tom"))


def test_forced_tokens_count_towards_a_banned_string():
    assert {11} == forbidden(sampler([], [10], banned="\u00e9"))
