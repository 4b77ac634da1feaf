"""The next token of each row of a batch, every row with settings and a state of its own."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.arrays import Bools, Doubles, Floats, Ids
from runtime.edits import edits_of
from runtime.errors import BrokenLogits, NothingAllowed
from runtime.sampling import Sampling
from runtime.vocabulary import Vocabulary

# Random numbers are made for this many tokens at a time.
_DRAWS = 64
# The whole vocabulary is summed in blocks of this many, as adding up 32,000 weights one by one takes 100 microseconds.
_BLOCK = 256
_NOTHING = np.float32(-1e4)  # the logarithm of a share that is 0 in float32
_TINY, _HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that was chosen, and what the model itself gave: all before bias, penalties, temperature and filters."""

    token: int
    logprob: float
    """The natural logarithm of the token's probability."""
    entropy: float
    """The entropy of the distribution, in nats."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log-probabilities, best first; as many as `Sampling.logprobs` asks for."""


class Sampler:
    """The state of one generation: all that its next token depends on, but for the logits.

    The random numbers of a choice are those that a counter-based generator (Philox; Salmon et al. 2011) has for the seed
    and the number of tokens accepted so far. So neither the other rows of a batch nor a choice that was not accepted make
    a difference, and another sampler that is given the same tokens goes on as this one does.
    """

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary, prompt_ids: Sequence[int]) -> None:
        """The state at the end of `prompt_ids`, before any token is generated.

        Raises:
            InvalidSampling: a string in `logit_bias` is no token of this vocabulary.
            UnsupportedModel: what `sampling` asks for needs the bytes of tokens, which this vocabulary cannot tell.
        """
        self.sampling = sampling
        self.greedy = sampling.temperature == 0
        """Whether it takes the likeliest token."""
        self._vocabulary = vocabulary
        self.seed = random.randrange(2**64) if sampling.seed is None else sampling.seed
        """The seed in use: a fresh one if `sampling` has none."""
        self._accepted = 0
        self._block = -1
        self._numbers: list[list[float]] = []
        self._edits = edits_of(sampling, vocabulary, prompt_ids)
        if sampling.dry_multiplier or sampling.xtc_probability:
            vocabulary.bytes_of(0)  # what cannot be told then is refused now

    def accept(self, token: int) -> None:
        """Take a token into the text, whether it was chosen or forced."""
        self._accepted += 1
        for edit in self._edits:
            edit.accept(token)

    # What follows is for the functions of this module.

    @property
    def edits(self) -> bool:
        """Whether `edit` does anything."""
        return bool(self._edits)

    def edit(self, scores: Floats) -> None:
        """Apply bias, bans, penalties and DRY to the logits `[vocab]`, in place."""
        for edit in self._edits:
            edit.apply(scores)

    def ends_text(self, token: int) -> bool:
        """Whether a token ends a line or is special: XTC must not make a text run on."""
        piece = self._vocabulary.bytes_of(token)
        return not piece or b"\n" in piece

    def numbers(self) -> list[float]:
        """The random numbers for the next token, from 0 to below 1: one to draw it, one for XTC."""
        block, place = divmod(self._accepted, _DRAWS)
        if block != self._block:
            # One count of Philox makes four numbers.
            generator = np.random.Philox(key=self.seed, counter=block * _DRAWS * 2 // 4)
            self._block, self._numbers = block, np.random.Generator(generator).random((_DRAWS, 2)).tolist()
        return self._numbers[place]


def draw(logits: Floats, samplers: Sequence[Sampler], allowed: Bools | None = None) -> list[int]:
    """Draw the next token of each row; as a row is drawn alone, so it is in any batch.

    Nothing is written to, neither the arrays nor the samplers: call `accept` with the token that enters the text.

    Args:
        logits: `[rows, vocab]`. Ids behind the tokenizer's last are tokens without text.
        samplers: one for each row.
        allowed: `[rows, vocab]`, what a grammar allows; None: everything.

    Raises:
        NothingAllowed: bans, biases and grammar leave no token for a row.
        BrokenLogits: the highest logit is NaN or inf.
        UnknownToken: a token id in a `logit_bias` is not in the vocabulary.
    """
    assert len(logits) == len(samplers), "one sampler for each row"
    scores = _edited(logits, samplers, allowed)
    tokens, best = _likeliest(scores, allowed)
    for rows, ids, left in _remaining(scores, best, samplers):
        shares = np.array([1 - samplers[row].numbers()[0] for row in rows])
        tokens[rows] = _locate_in_blocks(left, shares) if ids is None else ids[np.arange(len(rows)), _locate(left, shares)[0]]
    found: list[int] = tokens.tolist()
    return found


def describe(logits: Floats, tokens: Sequence[int], samplers: Sequence[Sampler]) -> list[Choice]:
    """How likely a token of each row was. Raises `BrokenLogits` where some are NaN or inf."""
    peaks = logits.max(axis=1)
    _check_finite(peaks.tolist())
    # Not below what is as good as nothing: a token that the model itself forbids would be 0 times -inf.
    surplus = logits - peaks[:, None]
    np.maximum(surplus, _NOTHING, out=surplus)
    weights = np.exp(surplus)
    masses = weights.sum(axis=1)
    logs = np.log(masses)
    entropies, totals = logs - np.vecdot(weights, surplus) / masses, peaks + logs
    logprobs = logits[np.arange(len(tokens)), tokens] - totals
    return [
        Choice(token, logprob, entropy, _top(logits[row], totals[row], samplers[row].sampling.logprobs))
        for row, (token, logprob, entropy) in enumerate(zip(tokens, logprobs.tolist(), entropies.tolist(), strict=True))
    ]


def probabilities(logits: Floats, samplers: Sequence[Sampler], allowed: Bools | None = None) -> Doubles:
    """What `draw` draws from: `[rows, vocab]`, each row sums to 1. Arguments and errors are those of `draw`."""
    scores = _edited(logits, samplers, allowed)
    tokens, best = _likeliest(scores, allowed)
    found = np.zeros(scores.shape)
    found[np.arange(len(samplers)), tokens] = 1
    for rows, ids, left in _remaining(scores, best, samplers):
        found[rows] = 0
        columns = np.arange(left.shape[1]) if ids is None else ids
        np.add.at(found, (np.array(rows)[:, None], columns), left / left.sum(axis=1, keepdims=True, dtype=np.float64))
    return found


def _top(logits: Floats, total: float, count: int | None) -> tuple[tuple[int, float], ...]:
    if not count:
        return ()
    best = torch.from_numpy(logits).topk(min(count, len(logits)))
    return tuple(zip(best.indices.tolist(), (best.values.numpy() - total).tolist(), strict=True))


def _edited(logits: Floats, samplers: Sequence[Sampler], allowed: Bools | None) -> Floats:
    """The logits `[rows, vocab]` after grammar, bias, bans, penalties and DRY; -inf where a token must not come."""
    if allowed is None and not any(sampler.edits for sampler in samplers):
        return logits
    scores: Floats = logits.copy() if allowed is None else np.where(allowed, logits, np.float32(-np.inf))
    for row, sampler in zip(scores, samplers, strict=True):
        if sampler.edits:
            sampler.edit(row)
    return scores


def _likeliest(scores: Floats, allowed: Bools | None) -> tuple[Ids, list[float]]:
    """The token with the highest score in each row, and that score."""
    tokens: Ids = scores.argmax(axis=1)
    best = [float(row[token]) for row, token in zip(scores, tokens.tolist(), strict=True)]
    if -math.inf in best:
        row = best.index(-math.inf)
        raise NothingAllowed(row, scores.shape[1] if allowed is None else int(allowed[row].sum()))
    _check_finite(best)
    return tokens, best


def _check_finite(peaks: Sequence[float]) -> None:
    for peak in peaks:
        if not math.isfinite(peak):
            raise BrokenLogits(f"The model gave a logit of {peak}: load it with dtype='float32', or download it again.")


def _remaining(
    scores: Floats, peaks: Sequence[float], samplers: Sequence[Sampler]
) -> Iterator[tuple[list[int], Ids | None, NDArray[Any]]]:
    """What is left of the rows that are not greedy: their numbers, token ids `[n, k]`, and weights `[n, k]` above or at 0.

    Rows without filters, whose k is the whole vocabulary and whose ids are None, are apart from those with filters, which
    leave a few tokens.
    """
    drawn = [row for row, sampler in enumerate(samplers) if not sampler.greedy]
    for filtered in (False, True) if drawn else ():
        rows = [row for row in drawn if _filters(samplers[row].sampling) == filtered]
        if not rows:
            continue
        own = [samplers[row] for row in rows]
        settings = [sampler.sampling for sampler in own]
        ids: Ids | None = None
        left: NDArray[Any] = _weights(
            scores if len(rows) == len(scores) else scores[rows], [peaks[row] for row in rows], settings
        )
        if filtered:
            ids, left = _filtered(left, settings)
        _exclude_top(ids, left, own)
        yield rows, ids, left


def _filters(sampling: Sampling) -> bool:
    return _cuts_tail(sampling) or (sampling.typical_p or 1) < 1


def _cuts_tail(sampling: Sampling) -> bool:
    return sampling.top_k is not None or (sampling.top_p or 1) < 1 or (sampling.min_p or 0) > 0


def _weights(scores: Floats, peaks: Sequence[float], samplings: Sequence[Sampling]) -> Floats:
    """Probabilities `[n, vocab]` at each row's temperature, as shares of the likeliest token's, whose score is in `peaks`."""
    temperatures = [min(max(sampling.temperature, _TINY), _HUGE) for sampling in samplings]
    weights: Floats = scores - np.array(peaks, dtype=np.float32)[:, None]
    with np.errstate(over="ignore"):  # a temperature so low that the others become -inf is greedy
        weights /= np.array(temperatures, dtype=np.float32)[:, None]
    np.exp(weights, out=weights)
    return weights


def _filtered(weights: Floats, samplings: Sequence[Sampling]) -> tuple[Ids, Doubles]:
    """Top-k, top-p, min-p and typical: token ids `[n, k]` and their weights, best first, 0 for what is filtered out."""
    masses = weights.sum(axis=1)
    floors = [_floor(row, mass, sampling) for row, mass, sampling in zip(weights, masses.tolist(), samplings, strict=True)]
    ids, left = _best(weights, floors)
    # Each of the first three keeps the beginning of a sorted vocabulary, and that of top-k is just what is here.
    top_p = np.array([sampling.top_p or 1 for sampling in samplings])
    if (top_p < 1).any():
        sums = left.cumsum(axis=1)
        masses = np.where([sampling.top_k is None for sampling in samplings], masses, sums[:, -1])
        left[sums - left >= np.where(top_p < 1, top_p * masses, np.inf)[:, None]] = 0
    left[left < np.array([sampling.min_p or 0 for sampling in samplings])[:, None]] = 0
    for row, sampling in enumerate(samplings):
        if sampling.typical_p is not None and sampling.typical_p < 1:
            _keep_typical(left[row], left[row] if _cuts_tail(sampling) else weights[row], sampling.typical_p)
    return ids, left


def _floor(weights: Floats, mass: float, sampling: Sampling) -> float:
    """A weight that every token has which passes the filters of a row, so that the others need not be sorted."""
    if sampling.top_k is not None:
        return float(torch.from_numpy(weights).topk(min(sampling.top_k, len(weights))).values[-1])
    share = mass / len(weights)
    if _cuts_tail(sampling):
        # Tokens rarer than this share of 1 - p are together less than 1 - p, so the others reach p.
        return max(sampling.min_p or 0, (1 - (sampling.top_p or 1)) * share)
    # So it is with the typical ones, unless the likeliest token is further from the entropy than all that are so rare.
    floor = (1 - (sampling.typical_p or 1)) * share
    return floor if 2 * _entropy(weights) <= 2 * np.log(mass) - np.log(floor) else 0


def _best(weights: Floats, floors: Sequence[float]) -> tuple[Ids, Doubles]:
    """The tokens of each row whose weights are at least its floor, best first, then weights of 0: `[n, k]` both."""
    count, vocab = weights.shape
    # Not rounded up, and never so low that tokens without any weight pass.
    least = np.array([[max(floor * (1 - 1e-6), _TINY)] for floor in floors], dtype=np.float32)
    found = np.flatnonzero(weights >= least)
    rows, tokens = np.divmod(found, vocab)
    widths = np.bincount(rows, minlength=count)
    places = np.arange(len(found)) - np.repeat(widths.cumsum() - widths, widths)
    ids = np.zeros((count, widths.max()), dtype=np.int64)
    left = np.zeros(ids.shape)
    ids[rows, places], left[rows, places] = tokens, weights[rows, tokens]
    every, order = np.arange(count)[:, None], np.argsort(-left, axis=1, kind="stable")
    return ids[every, order], left[every, order]


def _keep_typical(left: Doubles, seen: NDArray[Any], typical_p: float) -> None:
    """Make 0 what is not typical among the weights `left`, in place; `seen` are those of the whole distribution."""
    seen = seen[seen > 0]
    kept = np.flatnonzero(left)
    shares = left[kept] / seen.sum()
    distances = np.abs(-np.log(shares) - _entropy(seen))
    order = distances.argsort(kind="stable")
    last = min(int((shares[order].cumsum() < typical_p).sum()), len(order) - 1)
    left[kept[distances > distances[order[last]]]] = 0


def _exclude_top(ids: Ids | None, left: NDArray[Any], samplers: Sequence[Sampler]) -> None:
    """XTC: makes weights 0, in place."""
    for row, (sampler, weights) in enumerate(zip(samplers, left, strict=True)):
        sampling = sampler.sampling
        if not sampling.xtc_probability or sampler.numbers()[1] >= sampling.xtc_probability:
            continue
        # One by one where they are few, so that the padding makes no difference.
        mass = weights.sum() if ids is None else weights.cumsum()[-1]
        above = np.flatnonzero(weights >= sampling.xtc_threshold * mass)
        gone = above[above != above[weights[above].argmin()]] if len(above) else above
        if not any(map(sampler.ends_text, (gone if ids is None else ids[row, gone]).tolist())):
            weights[gone] = 0


def _entropy(weights: NDArray[Any]) -> float:
    shares = weights[weights > 0]
    shares = shares / shares.sum()
    return float(-(shares * np.log(shares)).sum())


def _locate(weights: NDArray[Any], shares: Doubles) -> tuple[Ids, Doubles]:
    """Where so much of each row's sum is still to come: the places `[n]`, and how much of the weight there is.

    Shares are above 0 and at most 1, of the whole and of the weight. As they count from the end, where nothing is to come,
    rounding leads neither behind the end nor to a weight of 0.
    """
    every = np.arange(len(weights))
    sums = weights.cumsum(axis=1, dtype=np.float64)
    coming = sums[:, -1:] - sums
    wanted = shares * sums[:, -1]
    places = (coming < wanted[:, None]).argmax(axis=1)
    return places, np.minimum((wanted - coming[every, places]) / weights[every, places], 1)


def _locate_in_blocks(weights: Floats, shares: Doubles) -> Ids:
    """`_locate` in whole vocabularies: first the block, then the place in it."""
    vocab = weights.shape[1]
    blocks = np.add.reduceat(weights, np.arange(0, vocab, _BLOCK), axis=1)
    block, shares = _locate(blocks, shares)
    places = block[:, None] * _BLOCK + np.arange(_BLOCK)
    inside = weights[np.arange(len(weights))[:, None], np.minimum(places, vocab - 1)]
    inside[places >= vocab] = 0
    return block * _BLOCK + _locate(inside, shares)[0]
