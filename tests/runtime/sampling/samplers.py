"""Samplers over a small vocabulary and over a wide one, and what they leave of logits."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from runtime import Sampling
from runtime.sampler import Sampler, describe, draw, probabilities
from runtime.vocabulary import Vocabulary
from tests.runtime.tokenizers import byte_level

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
    masks = None if allowed is None else allowed.numpy()
    return torch.from_numpy(probabilities(logits.reshape(len(samplers), -1).numpy(), samplers, masks))


def choose(logits, samplers, allowed=None):
    rows = logits.numpy()
    return describe(rows, draw(rows, samplers, None if allowed is None else allowed.numpy()), samplers)


def forbidden(one):
    """The tokens of the small vocabulary that may not come next."""
    return set(torch.nonzero(left(torch.zeros(END + 1), one)[0] == 0).flatten().tolist())
