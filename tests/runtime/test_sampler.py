"""Each stage of sampling is what its authors define; a row of a batch is as it would be alone."""

from __future__ import annotations

import math

import numpy as np
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

from runtime import Sampling
from runtime.errors import BrokenLogits, InvalidSampling, NothingAllowed, UnknownToken, UnsupportedModel
from runtime.sampler import Sampler, choose, probabilities
from runtime.vocabulary import Vocabulary
from tests.runtime.test_vocabulary import byte_level, word_piece

SEEDS = st.integers(0, 2**31)
# Words, parts of words, a letter of two bytes in halves, a line break, and at the end the special token.
WORDS = [b" Tom", b"my", b" To", b"m", b" the", b" cat", b" sat", b"t", b"\n", b".\n", b"\xc3", b"\xa9", b"a", b"ab", b"b"]
END = len(WORDS)
TOM, MY, TO, M, THE, CAT, SAT, LINE, A, AB, B = 0, 1, 2, 3, 4, 5, 6, 8, 12, 13, 14
VOCABULARY = Vocabulary(byte_level(*WORDS))
WIDE = Vocabulary(byte_level(*(f"w{number}".encode() for number in range(1500))))


def draw_logits(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def sampler(prompt=(), accepted=(), vocabulary=VOCABULARY, **fields):
    made = Sampler(Sampling(**{"seed": 1, **fields}), vocabulary, list(prompt))
    for token in accepted:
        made.accept(token)
    return made


def left(logits, *samplers, allowed=None):
    return probabilities(logits.reshape(len(samplers), -1), samplers, allowed)


def forbidden(one):
    """The tokens of the small vocabulary that may not come next."""
    return set(torch.nonzero(left(torch.zeros(END + 1), one)[0] == 0).flatten().tolist())


def generate(logits_of, samplers, steps):
    """The tokens of each row, where the logits depend on the row's own tokens."""
    texts = [[] for _ in samplers]
    for _ in range(steps):
        choices = choose(torch.stack([logits_of(text) for text in texts]), samplers)
        for text, one, choice in zip(texts, samplers, choices, strict=True):
            one.accept(choice.token)
            text.append(choice.token)
    return texts


# The stages, one by one


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


def test_a_bias_of_minus_infinity_forbids():
    assert forbidden(sampler(logit_bias={3: -math.inf, " cat": -math.inf})) == {3, 5}


def test_a_bias_for_a_string_of_several_tokens_is_refused():
    with pytest.raises(InvalidSampling, match="'ab ba' is not one token"):
        sampler(logit_bias={"ab ba": 1.0})


def test_a_bias_for_a_token_that_the_model_has_not_is_refused():
    with pytest.raises(UnknownToken, match="no token 99, only those from 0 to 15"):
        choose(torch.zeros(1, END + 1), [sampler(logit_bias={99: 1.0})])


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


# What is allowed


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
