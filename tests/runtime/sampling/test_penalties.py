"""Penalties and biases change the logits by what is defined: for tokens that came before, for given ones, and by DRY."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Sampling
from runtime.errors import InvalidSampling, UnknownToken
from runtime.sampler import Sampler
from runtime.vocabulary import Vocabulary
from tests.runtime.sampling.samplers import (
    AB,
    CAT,
    END,
    LINE,
    MY,
    SAT,
    THE,
    TO,
    TOM,
    WORDS,
    A,
    B,
    M,
    choose,
    draw_logits,
    left,
    sampler,
)
from tests.runtime.tokenizers import byte_level


def test_presence_and_frequency_count_generated_tokens_only():
    logits = draw_logits(3, 1, 6)
    expected = logits.clone()
    expected[0, 2] -= 0.5 + 3 * 0.25
    expected[0, 4] -= 0.5 + 0.25
    one = sampler([1, 2, 2], [2, 4, 2, 2], presence_penalty=0.5, frequency_penalty=0.25)
    torch.testing.assert_close(left(logits, one), expected.double().softmax(-1), rtol=1e-5, atol=1e-7)


def test_a_bias_is_added_to_a_token_and_to_all_that_spell_a_string():
    vocabulary = Vocabulary(byte_level(b"a", b"ab", b"b"))
    one = Sampler(Sampling(logit_bias={2: -1.5, "a": 2.0, 0: 0.25}), vocabulary, [])
    expected = torch.tensor([[2.25, 0.0, -1.5, 0.0]]).double().softmax(-1)
    torch.testing.assert_close(left(torch.zeros(4), one), expected, rtol=1e-6, atol=0)


def test_a_bias_for_a_string_of_several_tokens_is_refused():
    with pytest.raises(InvalidSampling, match="'ab ba' is not one token"):
        sampler(logit_bias={"ab ba": 1.0})


def test_a_bias_for_a_token_that_the_model_has_not_is_refused():
    with pytest.raises(UnknownToken, match="no token 99, only those from 0 to 15"):
        choose(torch.zeros(1, END + 1), [sampler(logit_bias={99: 1.0})])


# DRY


def dry_reference(history, pieces, names, breakers, allowed_length, base, multiplier, range_):
    """The penalties by token, from the definition: every earlier place, token by token."""
    text = b"".join(pieces[token] for token in history)
    owner = [at for at, token in enumerate(history) for _ in pieces[token]]
    breaks = {at for at, token in enumerate(history) if not pieces[token]}
    exempt = set()
    for at in range(len(text)):
        for breaker in breakers:
            if text.startswith(breaker, at):
                breaks.add(owner[at + len(breaker) - 1])
        for name in names:
            if text.startswith(name, at):
                exempt |= set(range(owner[at], owner[at + len(name) - 1] + 1))
    penalties = {}
    first, last = max(0, len(history) - range_), len(history) - 1
    for came_next in range(first + 1, len(history)):
        if came_next in breaks or came_next in exempt:
            continue
        matched = counted = 0
        while matched < 50:
            here, there = last - matched, came_next - 1 - matched
            if there < first or history[here] != history[there] or here in breaks:
                break
            matched += 1
            counted += here not in exempt
        if matched and counted >= allowed_length:
            token = history[came_next]
            penalties[token] = max(penalties.get(token, 0), multiplier * base ** (counted - allowed_length))
    return penalties


PHRASES = [[TO, M, MY], [TOM], [TOM, MY], [CAT, SAT], [THE, CAT], [THE], [SAT], [M], [LINE], [9], [10, 11], [A, B, A], [END]]
STORIES = st.lists(st.sampled_from(PHRASES), max_size=20).map(lambda phrases: [token for phrase in phrases for token in phrase])


@settings(deadline=None, max_examples=300)
@given(
    prompt=STORIES | st.lists(st.sampled_from([THE, CAT]), max_size=60),
    accepted=STORIES,
    names=st.lists(st.sampled_from(["Tom", " Tommy", "cat sat", "t.", "aba", "\u00e9"]), max_size=2),
    breakers=st.lists(st.sampled_from(["\n", ".", "sat", "m the", "\u00e9"]), max_size=2),
    allowed_length=st.integers(1, 3),
    base=st.floats(1, 3),
    range_=st.integers(1, 70),
)
def test_dry_is_what_its_definition_says(prompt, accepted, names, breakers, allowed_length, base, range_):
    fields = {"dry_allowed_length": allowed_length, "dry_base": base, "dry_range": range_}
    one = sampler(prompt, accepted, dry_multiplier=0.8, dry_exempt=names, dry_breakers=breakers, **fields)
    penalties = dry_reference(
        prompt[-range_:] + accepted,
        [*WORDS, b""],
        [name.encode() for name in names],
        [breaker.encode() for breaker in breakers],
        allowed_length,
        base,
        0.8,
        range_,
    )
    expected = torch.zeros(END + 1, dtype=torch.double)
    for token, penalty in penalties.items():
        expected[token] -= penalty
    torch.testing.assert_close(left(torch.zeros(END + 1), one)[0], expected.softmax(-1), rtol=1e-4, atol=1e-9)


@settings(deadline=None)
@given(tokens=STORIES, split=st.integers(0, 60))
def test_dry_sees_prompt_and_text_as_one(tokens, split):
    fields = {"dry_multiplier": 1.0, "dry_exempt": ["Tommy", "cat sat"], "dry_breakers": ["\u00e9", "m the"]}
    parts = left(torch.zeros(END + 1), sampler(tokens[:split], tokens[split:], **fields))
    assert torch.equal(parts, left(torch.zeros(END + 1), sampler(tokens, **fields)))


def test_dry_penalises_what_would_go_on_with_a_repeat():
    found = left(torch.zeros(END + 1), sampler([THE, CAT, SAT, TOM, THE, CAT], dry_multiplier=2.0, dry_base=3.0))[0]
    assert float((found[SAT] / found[TOM]).log()) == pytest.approx(-2.0)


def test_of_several_repeats_before_the_same_token_the_longest_counts():
    found = left(torch.zeros(END + 1), sampler([THE, CAT, SAT, TOM, LINE, CAT, SAT, TOM, THE, CAT, SAT], dry_multiplier=1.0))[0]
    assert float((found[TOM] / found[LINE]).log()) == pytest.approx(-1.75)


def test_dry_does_not_reach_over_a_breaker():
    found = left(torch.zeros(END + 1), sampler([THE, LINE, CAT, SAT, THE, LINE, CAT], dry_multiplier=2.0))[0]
    assert found[SAT] == found[TOM]


def test_a_name_may_come_again_and_so_may_what_follows_it():
    story = [TO, M, MY, SAT, THE, TO, M]
    assert left(torch.zeros(END + 1), sampler(story, dry_multiplier=2.0))[0, MY] < 0.02
    for more in ([], [MY]):
        named = left(torch.zeros(END + 1), sampler(story + more, dry_multiplier=2.0, dry_exempt="Tommy"))[0]
        assert torch.equal(named, torch.full_like(named, 1 / (END + 1)))


def test_exempt_strings_may_overlap():
    found = left(
        torch.zeros(END + 1), sampler([THE, CAT, AB, AB, A, SAT, THE, CAT, AB, AB], dry_multiplier=2.0, dry_exempt="aba")
    )
    assert found[0, A] == found[0, B]


def test_a_repeat_with_a_name_in_it_is_still_one():
    repeat = [THE, CAT, TOM, SAT]
    found = left(torch.zeros(END + 1), sampler([*repeat, LINE, *repeat[:3]], dry_multiplier=2.0, dry_exempt="Tom"))[0]
    assert float((found[SAT] / found[CAT]).log()) == pytest.approx(-2.0)


def test_dry_never_penalises_the_end_of_the_text():
    found = left(torch.zeros(END + 1), sampler([THE, CAT, SAT, END, THE, CAT, SAT], dry_multiplier=9.0))[0]
    assert found[END] == found.max()


def test_no_more_than_fifty_tokens_of_a_repeat_count():
    found = left(torch.zeros(END + 1), sampler([THE] * 80, dry_multiplier=0.01, dry_base=1.1))[0]
    assert float((found[THE] / found[CAT]).log()) == pytest.approx(-0.01 * 1.1**48)


def test_a_steep_penalty_is_large_but_never_forbids():
    one = sampler([THE, CAT] * 60, dry_multiplier=1e30, dry_base=1e30, dry_allowed_length=1)
    only = torch.arange(END + 1)[None] == THE
    assert left(torch.zeros(END + 1), one)[0, THE] == 0
    assert choose(torch.zeros(1, END + 1), [one], only)[0].token == THE
