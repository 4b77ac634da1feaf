"""Each filter is what its authors define, in the order that is promised, and always leaves a token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tests.runtime.sampling.samplers import CAT, END, LINE, SEEDS, THE, WIDE, choose, draw_logits, left, sampler


def hugging_face(logits, ids, repetition_penalty, temperature, top_k, top_p, min_p, typical_p):
    found = RepetitionPenaltyLogitsProcessor(repetition_penalty)(torch.tensor([ids]), logits.double())
    found = TemperatureLogitsWarper(temperature)(None, found)
    if top_k is not None:
        found = TopKLogitsWarper(top_k)(None, found)
    if top_p is not None and top_p < 1:
        found = TopPLogitsWarper(top_p)(None, found)
    if min_p is not None:
        found = MinPLogitsWarper(min_p)(None, found)
    if typical_p is not None and typical_p < 1:
        found = TypicalLogitsWarper(typical_p)(None, found)
    return found.softmax(-1)


@settings(deadline=None)
@given(
    seed=SEEDS,
    vocab=st.sampled_from([2, 40, 700]),
    repetition_penalty=st.just(1.0) | st.floats(0.5, 2),
    temperature=st.floats(0.1, 3),
    top_k=st.none() | st.integers(1, 60),
    limits=st.fixed_dictionaries(dict.fromkeys(["top_p", "min_p", "typical_p"], st.none() | st.floats(0.01, 0.99))),
)
def test_all_that_hugging_face_has_equals_hugging_face(seed, vocab, repetition_penalty, temperature, top_k, limits):
    logits, prompt, accepted = draw_logits(seed, 1, vocab), [1, 0, 1], [0] * (seed % 3)
    common = {"repetition_penalty": repetition_penalty, "temperature": temperature, "top_k": top_k}
    lower, expected, upper = (
        hugging_face(logits, prompt + accepted, **common, **{name: one and one * scale for name, one in limits.items()})
        for scale in (1 - 1e-5, 1, 1 + 1e-5)
    )
    # Not where the rounding of float32 decides about a token.
    assume(torch.equal(lower > 0, upper > 0))
    found = left(logits, sampler(prompt, accepted, **common, **limits))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@settings(deadline=None)
@given(seed=SEEDS, scale=st.floats(0.01, 4), likely=st.sampled_from([0, 4, 8]), typical_p=st.floats(0.05, 0.99))
def test_typical_keeps_the_fewest_that_are_nearest_to_the_entropy_and_reach_it(seed, scale, likely, typical_p):
    # Also where one token is far likelier than the rest, and so far from the entropy of a long tail.
    logits = draw_logits(seed, 1, 2000).double() * scale
    logits[0, 0] = logits.max() + likely
    plain = logits.softmax(-1)
    distances = (-plain.log() - torch.special.entr(plain).sum()).abs()
    kept = left(logits.float(), sampler(typical_p=typical_p)) > 0
    furthest = distances[kept].max()
    assert all(distances[~kept] >= furthest - 1e-4)
    assert plain[kept].sum() >= typical_p - 1e-4
    assert plain[distances < furthest - 1e-4].sum() <= typical_p + 1e-4


@settings(deadline=None)
@given(seed=SEEDS, top_p=st.floats(0.01, 0.99), scale=st.floats(0.01, 4))
def test_top_p_keeps_the_fewest_that_reach_it(seed, top_p, scale):
    logits = draw_logits(seed, 1, 700) * scale
    kept = logits.softmax(-1)[left(logits, sampler(top_p=top_p)) > 0].double()
    assert kept.sum() >= top_p - 1e-5
    assert kept.sum() - kept.min() <= top_p + 1e-5


@settings(deadline=None)
@given(seed=SEEDS, min_p=st.floats(0, 1))
def test_min_p_keeps_what_is_at_least_that_share_of_the_best(seed, min_p):
    logits = draw_logits(seed, 1, 50)
    plain = logits.double().softmax(-1)
    assume(all(abs(plain[0] / plain.max() - min_p)[plain[0] < plain.max()] > 1e-6))
    assert torch.equal(left(logits, sampler(min_p=min_p)) > 0, plain >= min_p * plain.max())


@pytest.mark.parametrize("filters", [{"top_k": 2}, {"min_p": 1.0}, {"typical_p": 0.1}])
def test_tokens_as_likely_as_the_last_that_is_kept_are_kept(filters):
    logits = torch.tensor([[0.0, 4.0, 1.0, 4.0, 4.0]])
    torch.testing.assert_close(left(logits, sampler(**filters))[0], torch.tensor([0, 1, 0, 1, 1], dtype=torch.double) / 3)


@settings(deadline=None)
@given(seed=SEEDS, vocab=st.sampled_from([8, 700]), threshold=st.floats(0.01, 0.6), min_p=st.none() | st.just(0.02))
def test_xtc_takes_away_all_above_its_threshold_but_the_least_likely_of_them(seed, vocab, threshold, min_p):
    logits = draw_logits(seed, 1, vocab)
    plain = left(logits, sampler(min_p=min_p))[0]
    assume(all(abs(plain - threshold) > 1e-6))
    above = sorted((plain >= threshold).nonzero().flatten().tolist(), key=plain.__getitem__)
    expected = plain.clone()
    expected[above[1:]] = 0
    found = left(logits, sampler(vocabulary=WIDE, min_p=min_p, xtc_probability=1, xtc_threshold=threshold))
    torch.testing.assert_close(found[0], expected / expected.sum())


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}])
@pytest.mark.parametrize("end", [LINE, 9, END])
def test_xtc_takes_nothing_away_where_a_line_or_the_text_could_end(end, filters):
    logits = torch.full((1, END + 1), -9.0)
    logits[0, [THE, end, CAT]] = torch.tensor([2.0, 1.9, 1.8])
    fields = {"xtc_probability": 1, "xtc_threshold": 0.1, **filters}
    assert torch.equal(left(logits, sampler(**fields)), left(logits, sampler(**filters)))
    logits[0, end] = 1.7  # as the least likely of them it would stay anyhow
    assert torch.nonzero(left(logits, sampler(**fields))[0] > 0.01).flatten().tolist() == [end]


def test_xtc_acts_as_often_as_it_should():
    logits = torch.tensor([[2.0, 1.9, -1.0]])
    one, acted = sampler(xtc_probability=0.3, xtc_threshold=0.2), 0
    for _ in range(2000):
        acted += bool(left(logits, one)[0, 0] == 0)
        one.accept(0)
    assert abs(acted / 2000 - 0.3) < 0.03


def test_the_stages_come_in_the_order_that_is_promised():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])
    one = sampler(
        [1], [2], logit_bias={4: 9.0, 0: -4.0}, repetition_penalty=2.0, presence_penalty=0.5, temperature=2.0, top_k=3
    )
    # Bias gives -1, 2, 1, 0, 8; the penalty for repetition -1, 1, 0.5, 0, 8; that for presence -1, 1, 0, 0, 8. Top-k keeps ties.
    expected = (torch.tensor([[-math.inf, 1.0, 0.0, 0.0, 8.0]]).double() / 2).softmax(-1)
    torch.testing.assert_close(left(logits, one), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"top_k": 2, "top_p": 0.55}, [0]),
        ({"top_p": 0.65, "typical_p": 0.5}, [0]),
        ({"min_p": 0.7, "xtc_probability": 1, "xtc_threshold": 0.42}, [1]),
        ({"xtc_probability": 1, "xtc_threshold": 0.42}, [0, 1, 2, 3]),
    ],
)
def test_each_filter_sees_what_the_one_before_has_left_as_a_whole(fields, kept):
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert torch.nonzero(left(logits, sampler(**fields))[0]).flatten().tolist() == kept


# Greedy and extreme settings


@given(seed=SEEDS)
def test_temperature_zero_takes_the_likeliest_whatever_the_filters(seed):
    logits = draw_logits(seed, 1, 50)
    one = sampler(temperature=0, top_k=3, typical_p=0.2, xtc_probability=1, xtc_threshold=0.01)
    assert choose(logits, [one])[0].token == int(logits.argmax())


@pytest.mark.parametrize("filters", [{}, {"min_p": 0.1}, {"top_p": 0.5}, {"typical_p": 0.5}, {"top_k": 3}])
@pytest.mark.parametrize("temperature", [1e-20, 1e-39, 1e-300])
def test_a_tiny_temperature_takes_the_likeliest(temperature, filters):
    logits = draw_logits(1, 1, 300)
    logits[0, 5] = -torch.inf
    assert choose(logits, [sampler(temperature=temperature, **filters)])[0].token == int(logits.argmax())


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_k": 40}, {"typical_p": 0.9}])
def test_a_huge_temperature_draws_evenly_from_what_is_allowed(filters):
    logits = draw_logits(1, 1, 10)
    allowed = torch.arange(10)[None] % 5 == 2
    torch.testing.assert_close(
        left(logits, sampler(temperature=1e300, **filters), allowed=allowed), allowed.double() / 2, atol=1e-6, rtol=0
    )


@settings(deadline=None)
@given(
    seed=SEEDS,
    fields=st.fixed_dictionaries(
        {},
        optional={
            "top_k": st.integers(1, 5),
            "top_p": st.floats(1e-9, 1),
            "min_p": st.floats(0, 1),
            "typical_p": st.floats(1e-9, 1),
            "xtc_probability": st.just(1),
            "xtc_threshold": st.floats(1e-9, 1),
        },
    ),
)
def test_filters_always_leave_a_token(seed, fields):
    found = left(draw_logits(seed, 1, 300), sampler(vocabulary=WIDE, **fields))
    assert float(found.sum()) == pytest.approx(1)


def test_tokens_behind_the_tokenizers_last_are_tokens_like_others():
    logits = torch.zeros(1, END + 9)
    logits[0, -1] = 20.0
    one = sampler([END + 7], banned="the", dry_multiplier=1, repetition_penalty=1.1, presence_penalty=0.1)
    assert choose(logits, [one])[0].token == END + 8
    one.accept(END + 8)
