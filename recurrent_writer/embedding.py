"""Vectors of our own for recall: words and their beginnings, hashed; in a query the rare ones count most. No model, no download.

Feature hashing after Weinberger et al. (2009); inverse document frequency after Robertson and Spärck Jones (1976). What a plan
has to recall is about the same people, places and things that it names, so the words themselves are the best evidence; a sentence
model would add kinship of meaning.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DIMENSION = 512
NAME = f"hashed-words-{DIMENSION}.2"
"""Whose vectors these are; the number after the dot changes with what `embed` gives."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+")
_STOP_WORDS = frozenset(
    """a about after again all also am an and any are as at away back be been before being but by can come could did do does done
    down each even ever every few for from get go goes had has have having he her here hers herself him himself his how i if
    in into is it its itself just let like made make many may me might more most much must my no nor not now of off on once
    one only or other our out over own said same say says shall she should so some still such than that the their them then
    there these they this those though through till to too under until up upon us very was we well went were what when where
    which while who whom why will with within without would yet you your""".split()
)


class Rarity:
    """How telling a word is among the texts of a story: a name that stands in every one says little, a thing named once much."""

    def __init__(self) -> None:
        self._texts = 0
        self._holding: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count a text."""
        self._texts += 1
        self._holding.update({feature for feature, _ in _features_of(text)})

    def __call__(self, feature: str) -> float:
        """The weight of a feature, above 0."""
        holding = self._holding[feature]
        return math.log(1 + (self._texts - holding + 0.5) / (holding + 0.5))


def embed(text: str, rarity: Rarity | None = None) -> NDArray[np.float32]:
    """The vector of a text, float32 `[DIMENSION]` of length 1; all zeros for a text without words.

    Args:
        text: what is remembered, or the query.
        rarity: for a query, what its words are weighed by.
    """
    vector = np.zeros(DIMENSION, np.float32)
    for feature, weight in _features_of(text):
        code = zlib.crc32(feature.encode())
        weight *= rarity(feature) if rarity else 1
        vector[code % DIMENSION] += weight if code & 0x80000000 else -weight
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def embed_all(texts: Iterable[str]) -> NDArray[np.float32]:
    """The vectors of many texts, `[n, DIMENSION]`."""
    rows = [embed(text) for text in texts]
    return np.stack(rows) if rows else np.zeros((0, DIMENSION), np.float32)


def _features_of(text: str) -> list[tuple[str, float]]:
    return [feature for word in _WORD.findall(text) for feature in _features(word)]


@lru_cache(maxsize=65536)
def _features(word: str) -> tuple[tuple[str, float], ...]:
    """Features of a word: the word itself, and its first five letters, which inflections share."""
    lower = word.lower().removesuffix("'s").removesuffix("\u2019s")
    return () if lower in _STOP_WORDS else ((lower, 1.0), ("^" + lower[:5], 0.5))
