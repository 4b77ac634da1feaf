"""Each filter is what its definition says; Hugging Face's own processors are the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from runtime import Sampling
from runtime.errors import InvalidSampling
from runtime.sampling import choose, probabilities

SEEDS = st.integers(0, 2**31)


def draw_logits(seed, size=50):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


@settings(deadline=None)
@given(
    seed=SEEDS,
    temperature=st.floats(0.1, 3),
    top_k=st.none() | st.integers(1, 60),
    top_p=st.none() | st.floats(0.05, 1),
    min_p=st.none() | st.floats(0, 1),
)
def test_filters_together_equal_hugging_face(seed, temperature, top_k, top_p, min_p):
    logits = draw_logits(seed)
    expected = TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None and top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    if min_p is not None:
        expected = MinPLogitsWarper(min_p)(None, expected)
    found = probabilities(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p))
    torch.testing.assert_close(found, expected[0].softmax(-1), atol=1e-6, rtol=1e-4)


@given(seed=SEEDS)
def test_temperature_zero_takes_the_likeliest(seed):
    logits = draw_logits(seed)
    assert choose(logits, Sampling(temperature=0), torch.Generator()) == int(logits.argmax())


@pytest.mark.parametrize("temperature", [1e-20, 1e-39, 1e-300])
def test_a_tiny_temperature_takes_the_likeliest(temperature):
    logits = torch.cat([draw_logits(1), torch.tensor([-torch.inf])])
    assert choose(logits, Sampling(temperature=temperature), torch.Generator()) == int(logits.argmax())


def test_the_largest_seed_is_one(tiny_engine):
    assert len(tiny_engine.generate(["Ada"], Sampling(max_tokens=1, seed=2**64 - 1))) == 1


@given(seed=SEEDS, min_p=st.floats(0, 1))
def test_min_p_keeps_what_is_at_least_that_share_of_the_best(seed, min_p):
    logits = draw_logits(seed)
    plain = logits.softmax(-1)
    kept = probabilities(logits, Sampling(min_p=min_p)) > 0
    assert torch.equal(kept, plain >= min_p * plain.max())


@given(seed=SEEDS, top_p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_that_reach_it(seed, top_p):
    logits = draw_logits(seed)
    plain = logits.softmax(-1)
    kept = plain[probabilities(logits, Sampling(top_p=top_p)) > 0]
    assert kept.sum() >= top_p - 1e-5
    assert kept.sum() - kept.min() <= top_p + 1e-5


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    generator = torch.Generator().manual_seed(1)
    draws = torch.tensor([choose(logits, Sampling(), generator) for _ in range(4000)])
    shares = torch.bincount(draws, minlength=4) / 4000
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.03, rtol=0)
    assert shares[3] == 0


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"max_tokens": 0}, "at least 1"),
        ({"temperature": -1}, "at least 0"),
        ({"temperature": float("nan")}, "at least 0"),
        ({"temperature": float("inf")}, "finite"),
        ({"top_p": float("nan")}, "at most 1"),
        ({"min_p": float("nan")}, "from 0 to 1"),
        ({"seed": -1}, r"from 0 to 2\*\*64 - 1"),
        ({"seed": 2**64}, r"from 0 to 2\*\*64 - 1"),
        ({"top_k": 0}, "at least 1"),
        ({"top_p": 0}, "above 0"),
        ({"top_p": 1.5}, "at most 1"),
        ({"min_p": 2}, "from 0 to 1"),
        ({"stop": ("",)}, "not empty"),
    ],
)
def test_a_value_out_of_range_is_named(wrong, hint):
    with pytest.raises(InvalidSampling, match=hint) as fault:
        Sampling(**wrong)
    assert next(iter(wrong)) in str(fault.value)


def test_one_stop_string_may_stand_alone():
    assert Sampling(stop="\n").stop == ("\n",)
