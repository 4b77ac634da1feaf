"""Vectors of our own for recall: words and their beginnings, hashed; names count most. No model, no download.

Feature hashing after Weinberger et al. (2009). What a plan has to recall is about the same people, places and things that it
names, so the words themselves are the best evidence; a sentence model would add kinship of meaning.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DIMENSION = 512
NAME = f"hashed-words-{DIMENSION}"

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+")
_STOP_WORDS = frozenset(
    """a about after again all also am an and any are as at away back be been before being but by can come could did do does done
    down each even ever every few for from get go goes had has have having he her here hers herself him himself his how i if
    in into is it its itself just let like made make many may me might more most much must my no nor not now of off on once
    one only or other our out over own said same say says shall she should so some still such than that the their them then
    there these they this those though through till to too under until up upon us very was we well went were what when where
    which while who whom why will with within without would yet you your""".split()
)


def embed(text: str) -> NDArray[np.float32]:
    """The vector of a text, float32 `[DIMENSION]` of length 1; all zeros for a text without words."""
    vector = np.zeros(DIMENSION, np.float32)
    for position, word in enumerate(_WORD.findall(text)):
        for index, weight in _features(word, position > 0 and word[0].isupper()):
            vector[index] += weight
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def embed_all(texts: Iterable[str]) -> NDArray[np.float32]:
    """The vectors of many texts, `[n, DIMENSION]`."""
    rows = [embed(text) for text in texts]
    return np.stack(rows) if rows else np.zeros((0, DIMENSION), np.float32)


@lru_cache(maxsize=65536)
def _features(word: str, name: bool) -> tuple[tuple[int, float], ...]:
    """Signed hash features of a word: the word itself, and its first five letters, which inflections share."""
    lower = word.lower().removesuffix("'s").removesuffix("\u2019s")
    if lower in _STOP_WORDS:
        return ()
    weight = 2.0 if name else 1.0
    return tuple(_hashed(feature, share * weight) for feature, share in ((lower, 1.0), ("^" + lower[:5], 0.5)))


def _hashed(feature: str, weight: float) -> tuple[int, float]:
    code = zlib.crc32(feature.encode())
    return code % DIMENSION, weight if code & 0x80000000 else -weight
