"""Draws follow the probabilities, a row of a batch is drawn as it would be alone, and a choice reports what the model gave."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.sampling.samplers import END, SEEDS, WIDE, choose, draw_logits, left, sampler

# Random numbers


def assert_drawn_from(counts, shares):
    """Pearson's test, at four standard deviations of the statistic; rare tokens are counted together."""
    counts, expected = np.asarray(counts, dtype=float), np.asarray(shares) * np.sum(counts)
    assert not counts[expected == 0].any()
    rare = expected < 10
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(counts) - 1
    assert freedom > 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("vocab", "fields"),
    [
        (12, {}),
        (1000, {"temperature": 0.8}),
        (1000, {"top_p": 0.9}),
        (1000, {"min_p": 0.02, "temperature": 1.2}),
        (600, {"typical_p": 0.8}),
        (600, {"xtc_probability": 1, "xtc_threshold": 0.05}),
    ],
)
def test_draws_follow_the_probabilities(vocab, fields):
    logits, one = draw_logits(2, 1, vocab), sampler(seed=4, vocabulary=WIDE, **fields)
    logits[0, 3] = -torch.inf
    counts = np.zeros(vocab)
    for _ in range(3000):
        counts[choose(logits, [one])[0].token] += 1
        one.accept(0)
    assert_drawn_from(counts, left(logits, one)[0].numpy())


def test_whether_xtc_acts_says_nothing_about_the_draw():
    logits, one = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1]]).log(), sampler(xtc_probability=0.5, xtc_threshold=0.15)
    counts = np.zeros(5)
    for _ in range(3000):
        counts[choose(logits, [one])[0].token] += 1
        one.accept(0)
    assert_drawn_from(counts, [0.25, 0.1 + 0.2, 0.15, 0.15, 0.15])


def test_the_first_draws_of_many_seeds_follow_the_probabilities():
    logits = draw_logits(2, 1, 300)
    samplers = [sampler(seed=seed) for seed in range(3000)]
    counts = np.bincount([choice.token for choice in choose(logits.expand(3000, -1), samplers)], minlength=300)
    assert_drawn_from(counts, left(logits, samplers[0])[0].numpy())


def test_each_token_has_random_numbers_of_its_own_from_one_stream_of_philox():
    one, numbers = sampler(seed=2**64 - 1), []
    for _ in range(200):
        numbers.append(one.numbers())
        one.accept(0)
    stream = np.random.Generator(np.random.Philox(key=2**64 - 1)).random((200, 2))
    assert numbers == stream.tolist()


def test_without_a_seed_each_sampler_draws_its_own():
    assert sampler(seed=None).seed != sampler(seed=None).seed


def test_choosing_again_without_accepting_is_the_same_choice():
    logits, one = draw_logits(1, 1, 500), sampler(dry_multiplier=1, repetition_penalty=1.2, xtc_probability=0.5)
    kept = logits.clone()
    assert choose(logits, [one]) == choose(logits, [one])
    assert torch.equal(logits, kept)


# Batches

FIELDS = st.fixed_dictionaries(
    {"seed": SEEDS, "temperature": st.sampled_from([0, 0.3, 1, 2.5])},
    optional={
        "top_k": st.integers(1, 700),
        "top_p": st.floats(0.05, 1),
        "min_p": st.floats(0, 0.5),
        "typical_p": st.floats(0.05, 1),
        "xtc_probability": st.floats(0, 1),
        "xtc_threshold": st.floats(0.01, 0.5),
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "dry_multiplier": st.floats(0, 3),
        "dry_exempt": st.just(["w1w2", "w4"]),
        "logit_bias": st.dictionaries(st.integers(0, 600), st.floats(-5, 5), max_size=3),
        "banned": st.just(["w12", "4w3"]),
        "logprobs": st.integers(0, 4),
    },
)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(FIELDS, st.lists(st.integers(0, END), max_size=12)), min_size=2, max_size=6),
    vocab=st.sampled_from([601, 1500]),
    seed=SEEDS,
    grammar=st.booleans(),
)
def test_a_row_is_chosen_in_a_batch_as_alone(rows, vocab, seed, grammar):
    logits = draw_logits(seed, len(rows), vocab)
    allowed = draw_logits(seed + 1, len(rows), vocab) > 1 if grammar else None
    samplers = [sampler(text[:6], text[6:], WIDE, **fields) for fields, text in rows]
    alone = [
        choose(logits[row : row + 1].clone(), [one], None if allowed is None else allowed[row : row + 1])[0]
        for row, one in enumerate(samplers)
    ]
    assert choose(logits, samplers, allowed) == alone


def generate(logits_of, samplers, steps):
    """The tokens of each row, where the logits depend on the row's own tokens."""
    texts = [[] for _ in samplers]
    for _ in range(steps):
        choices = choose(torch.stack([logits_of(text) for text in texts]), samplers)
        for text, one, choice in zip(texts, samplers, choices, strict=True):
            one.accept(choice.token)
            text.append(choice.token)
    return texts


def test_the_same_seed_gives_the_same_text_alone_and_in_a_batch():
    def logits_of(text):
        return draw_logits(sum(text) + len(text), 700)

    fields = [{"seed": seed, "min_p": 0.01 * (seed % 3), "xtc_probability": 0.5 * (seed % 2)} for seed in range(6)]
    together = generate(logits_of, [sampler(vocabulary=WIDE, **one) for one in fields], 80)
    assert together == [generate(logits_of, [sampler(vocabulary=WIDE, **one)], 80)[0] for one in fields]
    assert len({tuple(text) for text in together}) == 6


# What is reported


@settings(deadline=None)
@given(seed=SEEDS, fields=FIELDS)
def test_a_choice_reports_what_the_model_gave(seed, fields):
    logits = draw_logits(seed, 1, 601)
    logits[0, 600] = -torch.inf
    allowed = torch.arange(601)[None] % 3 > 0
    choice = choose(logits, [sampler([1, 2], [1, 4], WIDE, **fields)], allowed)[0]
    plain = logits[0].double().log_softmax(-1)
    assert choice.logprob == pytest.approx(float(plain[choice.token]), abs=1e-5)
    assert choice.entropy == pytest.approx(float(torch.special.entr(plain.exp()).sum()), abs=1e-5)
    best = plain.topk(fields.get("logprobs") or 0)
    assert [token for token, _ in choice.top] == best.indices.tolist()
    assert [logprob for _, logprob in choice.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_no_more_tokens_are_reported_than_there_are():
    assert len(choose(torch.zeros(1, 5), [sampler(logprobs=20)])[0].top) == 5
