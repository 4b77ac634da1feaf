"""How the next token is chosen from the logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.errors import InvalidSampling


@dataclass(frozen=True)
class Sampling:
    """How to generate. Filters apply in the order of the fields, as in Hugging Face `generate`."""

    max_tokens: int = 512
    """The most tokens to generate, at least 1."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_k: int | None = None
    """Keep the k likeliest tokens."""
    top_p: float | None = None
    """Keep the likeliest tokens that together reach this probability (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Keep tokens at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    stop: str | Sequence[str] = ()
    """Generation ends before any of these strings, which do not stay in the context."""
    seed: int | None = None
    """From 0 to 2**64 - 1. Same seed, same context: same text. None draws a fresh one."""
    ignore_eos: bool = False
    """Go on past the model's end-of-text token."""
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the text must follow, written without white space."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name, value, good, range_ in (
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature, 0 <= self.temperature < math.inf, "at least 0 and finite"),
            ("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "at least 1, or None"),
            ("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1, or None"),
            ("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1, or None"),
            ("seed", self.seed, self.seed is None or 0 <= self.seed < 2**64, "from 0 to 2**64 - 1, or None"),
            ("stop", self.stop, all(self.stop), "made of strings that are not empty"),
        ):
            if not good:
                raise InvalidSampling(f"Sampling({name}={value!r}): {name} must be {range_}.")


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw one token id from `logits` (float32 `[vocab]`, -inf for what a grammar forbids)."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(probabilities(logits, sampling), 1, generator=generator))


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """What is left of the distribution, float32 `[vocab]`, after temperature (above 0) and filters; it sums to 1."""
    # The likeliest at 0: a temperature so low that others become -inf is greedy.
    logits = (logits - logits.max()) / max(sampling.temperature, torch.finfo(torch.float32).tiny)
    if sampling.top_k is not None and sampling.top_k < logits.numel():
        least = logits.topk(sampling.top_k).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ascending, order = logits.sort()
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        tail[-1] = False
        logits = logits.masked_fill(torch.zeros_like(tail).scatter(0, order, tail), -torch.inf)
    probs = logits.softmax(-1)
    if sampling.min_p is not None:
        probs = probs.masked_fill(probs < sampling.min_p * probs.max(), 0.0)
        probs = probs / probs.sum()
    return probs
