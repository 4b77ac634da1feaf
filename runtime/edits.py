"""What changes the logits of tokens by the text so far: bias, bans, penalties and DRY, as `Sampling` defines them."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np

from runtime.arrays import Floats
from runtime.errors import InvalidSampling, UnknownToken
from runtime.sampling import Sampling
from runtime.vocabulary import Vocabulary

# The longest repeat that DRY looks for, as its author has it, and the most that it takes away: as good as all, but a number.
_LONGEST_REPEAT, _WORST = 50, 1e30


class Edit(Protocol):
    """Something that changes logits by what a text holds so far."""

    def accept(self, token: int) -> None: ...

    def apply(self, scores: Floats) -> None: ...


def edits_of(sampling: Sampling, vocabulary: Vocabulary, prompt_ids: Sequence[int]) -> list[Edit]:
    """Those that a sampling asks for, in the order in which they are applied.

    Raises:
        InvalidSampling: a string in `logit_bias` is no token of this vocabulary.
    """
    edits: list[Edit] = []
    if sampling.logit_bias:
        edits.append(Bias(sampling, vocabulary))
    if sampling.banned:
        edits.append(Bans(sampling, vocabulary))
    if sampling.repetition_penalty != 1:
        edits.append(Repetition(sampling, prompt_ids))
    if sampling.presence_penalty or sampling.frequency_penalty:
        edits.append(Presence(sampling))
    if sampling.dry_multiplier:
        edits.append(Dry(sampling, vocabulary, prompt_ids))
    return edits


class Bias:
    """Adds to the logits of some tokens; a string is all tokens that spell it."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary) -> None:
        biases: dict[int, float] = {}
        for key, bias in sampling.logit_bias.items():
            tokens = vocabulary.spelling(key.encode()).tolist() if isinstance(key, str) else [key]
            if not tokens:
                raise InvalidSampling(
                    f"Sampling(logit_bias): {key!r} is not one token of this model; name its tokens by their ids."
                )
            for token in tokens:
                biases[token] = biases.get(token, 0) + bias
        self._ids = np.array(list(biases))
        self._biases = np.array(list(biases.values()), dtype=np.float32)

    def accept(self, token: int) -> None:
        pass

    def apply(self, scores: Floats) -> None:
        if (most := self._ids.max()) >= len(scores):
            raise UnknownToken(f"Sampling(logit_bias): the model has no token {most}, only those from 0 to {len(scores) - 1}.")
        scores[self._ids] += self._biases


class Bans:
    """Forbids each token with which a banned string would be complete."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        strings = [string.encode() for string in sampling.banned]
        self._always = np.concatenate([vocabulary.containing(string) for string in strings])
        # What the text may end with, and what must then not follow.
        self._rests: dict[bytes, list[bytes]] = {}
        for string in strings:
            for at in range(1, len(string)):
                self._rests.setdefault(string[:at], []).append(string[at:])
        self._reach = max(map(len, strings)) - 1
        self._end = b""

    def accept(self, token: int) -> None:
        end = self._end + self._vocabulary.bytes_of(token)
        self._end = end[max(0, len(end) - self._reach) :]

    def apply(self, scores: Floats) -> None:
        rests = (rest for at in range(len(self._end)) for rest in self._rests.get(self._end[at:], ()))
        for ids in (self._always, *map(self._vocabulary.starting_with, rests)):
            scores[ids[ids < len(scores)]] = -np.inf  # there are tokenizers with more tokens than the model has


class Repetition:
    """The repetition penalty: once for each token of prompt and text."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self._penalty = sampling.repetition_penalty
        self._seen = dict.fromkeys(prompt_ids)

    def accept(self, token: int) -> None:
        self._seen[token] = None

    def apply(self, scores: Floats) -> None:
        ids = np.fromiter(self._seen, dtype=np.int64, count=len(self._seen))
        seen = scores[ids]
        scores[ids] = np.where(seen < 0, seen * self._penalty, seen / self._penalty)


class Presence:
    """The penalties for presence and frequency in the generated text."""

    def __init__(self, sampling: Sampling) -> None:
        self._presence, self._frequency = sampling.presence_penalty, sampling.frequency_penalty
        self._counts: Counter[int] = Counter()

    def accept(self, token: int) -> None:
        self._counts[token] += 1

    def apply(self, scores: Floats) -> None:
        ids = np.fromiter(self._counts, dtype=np.int64, count=len(self._counts))
        counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
        scores[ids] -= self._presence + self._frequency * counts


class Dry:
    """The penalty of DRY, as `Sampling` defines it."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary, prompt_ids: Sequence[int]) -> None:
        self._sampling, self._vocabulary = sampling, vocabulary
        self._breakers = [string.encode() for string in sampling.dry_breakers]
        self._names = [string.encode() for string in sampling.dry_exempt]
        self._reach = max(map(len, self._breakers + self._names), default=1) - 1
        # Of each token of prompt and text: its id, whether a repeat ends before it, whether it is part of an exempt string.
        self._tokens, self._breaks, self._exempt = array("q"), bytearray(), bytearray()
        self._extend(prompt_ids[-sampling.dry_range :])

    def accept(self, token: int) -> None:
        self._extend([token])

    def apply(self, scores: Floats) -> None:
        sampling = self._sampling
        tokens = np.frombuffer(self._tokens, dtype=np.int64)[-sampling.dry_range :]
        breaks = np.frombuffer(self._breaks, dtype=np.bool_)[-sampling.dry_range :]
        exempt = np.frombuffer(self._exempt, dtype=np.bool_)[-sampling.dry_range :]
        ending = breaks[::-1][:_LONGEST_REPEAT]
        most = int(ending.argmax()) if ending.any() else len(ending)
        if not most:
            return
        ends = np.flatnonzero(tokens[:-1] == tokens[-1])  # of what may be a repeat
        ends = ends[~(breaks | exempt)[ends + 1]]
        back = np.arange(most)
        places = ends[:, None] - back
        same = (places >= 0) & (tokens[places] == tokens[-1 - back])
        lengths = np.where(same.all(axis=1), most, same.argmin(axis=1))
        excess = (~exempt[::-1][:most]).cumsum()[lengths - 1] - sampling.dry_allowed_length
        repeated, excess = tokens[ends + 1][excess >= 0], excess[excess >= 0]
        with np.errstate(over="ignore"):
            penalties = np.minimum(sampling.dry_multiplier * np.float64(sampling.dry_base) ** excess, _WORST)
        # The same token may have come next at several places: the longest repeat counts.
        np.minimum.at(scores, repeated, scores[repeated] - penalties.astype(np.float32))

    def _extend(self, tokens: Sequence[int]) -> None:
        bytes_of = self._vocabulary.bytes_of
        first = len(self._tokens)
        before = 0
        while first > 0 and before < self._reach:  # a string that ends in the new tokens begins here at the earliest
            first -= 1
            before += len(bytes_of(self._tokens[first]))
        self._tokens.extend(tokens)
        self._breaks.extend(not bytes_of(token) for token in tokens)
        self._exempt.extend(bytes(len(tokens)))
        pieces = [bytes_of(token) for token in self._tokens[first:]]
        text, ends = b"".join(pieces), list(accumulate(map(len, pieces)))
        for string in self._breakers:
            for at in _occurrences(string, text, before):
                self._breaks[first + bisect_left(ends, at + len(string))] = True
        for string in self._names:
            for at in _occurrences(string, text, before):
                for place in range(bisect_right(ends, at), bisect_left(ends, at + len(string)) + 1):
                    self._exempt[first + place] = True


def _occurrences(string: bytes, text: bytes, before: int) -> Iterator[int]:
    """Where `string` begins in `text`, overlaps included, if it ends behind the first `before` bytes."""
    at = text.find(string, max(0, before - len(string) + 1))
    while at >= 0:
        yield at
        at = text.find(string, at + 1)
