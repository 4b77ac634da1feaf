"""How the next token is chosen from the logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from runtime.errors import InvalidSampling
from runtime.grammars.schema import Schema


@dataclass(frozen=True)
class Sampling:
    """How to generate.

    The logits of a token go through `logit_bias` and `banned`, the penalties (repetition, presence, frequency), DRY,
    `temperature`, `top_k`, `top_p`, `min_p`, `typical_p` and XTC, in this order; what is not set is left out. Each is as
    its authors define it. The filters from `top_k` on see a distribution that sums to 1 again after the one before,
    always leave a token, and do nothing at temperature 0.

    Raises:
        InvalidSampling: a value is out of its range.
    """

    max_tokens: int = 512
    """The most tokens to generate, at least 1."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_k: int | None = None
    """Keep the k likeliest tokens, and any as likely as the last of them (Fan et al. 2018)."""
    top_p: float | None = None
    """Keep the likeliest tokens that together reach this probability (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Keep tokens at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    typical_p: float | None = None
    """Keep the tokens whose surprise is nearest to the entropy and that together reach this probability (Meister et al. 2022)."""
    xtc_probability: float = 0.0
    """How often XTC takes away the likeliest tokens, from 0 (never) to 1 (p-e-w, text-generation-webui #6335, 2024)."""
    xtc_threshold: float = 0.1
    """XTC takes away all tokens that have at least this probability but the least likely of them.

    It takes none if a special token or one with a line break would go, so that texts and paragraphs end.
    """
    repetition_penalty: float = 1.0
    """Divides the logits above 0 of the tokens in the prompt and the text, and multiplies those below (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of the tokens that were generated (OpenAI)."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of the tokens that were generated, once for each time (OpenAI)."""
    dry_multiplier: float = 0.0
    """The strength of DRY, 0 for none (p-e-w, text-generation-webui #5677, 2024).

    If the last n tokens were there before, in the prompt or the text, `dry_multiplier * dry_base ** (n -
    dry_allowed_length)` is subtracted from the logit of the token that came next there. n is the largest there is, up to 50.
    """
    dry_base: float = 1.75
    """By how much each further token of a repeat multiplies the penalty, at least 1."""
    dry_allowed_length: int = 2
    """Repeats shorter than this are not penalised."""
    dry_range: int = 2048
    """How many tokens DRY looks back."""
    dry_breakers: str | Sequence[str] = ("\n", ":", '"', "*")
    """No repeat reaches over the token in which one of these strings ends, nor over a special token; neither is penalised."""
    dry_exempt: str | Sequence[str] = ()
    """Names and the like that may come again and again.

    A token that shares a byte with one of these strings, where it stands in prompt or text, is not penalised for having
    come next there. It is matched like any other, but does not count in the length n of a repeat.
    """
    logit_bias: Mapping[int | str, float] = field(default_factory=dict, hash=False)
    """Added to the logits of tokens; -inf forbids one. A string means every token that spells exactly that."""
    banned: str | Sequence[str] = ()
    """Strings that are never in the generated text, whatever tokens would make them. What a schema forces is not held back."""
    stop: str | Sequence[str] = ()
    """Generation ends before any of these strings, which do not stay in the context."""
    stop_ids: Sequence[int] = ()
    """Generation ends at any of these token ids, as at the model's end-of-text token."""
    seed: int | None = None
    """From 0 to 2**64 - 1. Same seed, same context: same text. None draws a fresh one."""
    ignore_eos: bool = False
    """Go on past the model's end-of-text token."""
    schema: Schema | None = field(default=None, hash=False)
    """What the text must be: a JSON schema (written without white space) or pydantic class, `Regex`, `Choices` or `Ebnf`."""
    logprobs: int | None = None
    """How many of the likeliest tokens to report with their log-probabilities beside each chosen one."""

    def __post_init__(self) -> None:
        for name in ("stop", "banned", "dry_breakers", "dry_exempt"):
            strings = getattr(self, name)
            object.__setattr__(self, name, (strings,) if isinstance(strings, str) else tuple(strings))
        object.__setattr__(self, "stop_ids", tuple(self.stop_ids))
        # Copies: what the caller does to his own later must not reach in here.
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        object.__setattr__(self, "schema", deepcopy(self.schema))
        biased = all(key != "" if isinstance(key, str) else key >= 0 for key in self.logit_bias)
        biases = all(bias < math.inf for bias in self.logit_bias.values())
        strings = "made of strings that are not empty"
        share = "above 0 and at most 1, or None"
        for name, good, range_ in (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "at least 0 and finite"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1, or None"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, share),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1, or None"),
            ("typical_p", self.typical_p is None or 0 < self.typical_p <= 1, share),
            ("xtc_probability", 0 <= self.xtc_probability <= 1, "from 0 to 1"),
            ("xtc_threshold", 0 < self.xtc_threshold <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0 and finite"),
            ("presence_penalty", math.isfinite(self.presence_penalty), "finite"),
            ("frequency_penalty", math.isfinite(self.frequency_penalty), "finite"),
            ("dry_multiplier", 0 <= self.dry_multiplier < math.inf, "at least 0 and finite"),
            ("dry_base", 1 <= self.dry_base < math.inf, "at least 1 and finite"),
            ("dry_allowed_length", self.dry_allowed_length >= 1, "at least 1"),
            ("dry_range", self.dry_range >= 1, "at least 1"),
            ("dry_breakers", all(self.dry_breakers), strings),
            ("dry_exempt", all(self.dry_exempt), strings),
            ("logit_bias", biased and biases, "of token ids or strings that are not empty, with numbers below inf"),
            ("banned", all(self.banned), strings),
            ("stop", all(self.stop), strings),
            ("stop_ids", all(token >= 0 for token in self.stop_ids), "made of token ids, which are at least 0"),
            ("seed", self.seed is None or 0 <= self.seed < 2**64, "from 0 to 2**64 - 1, or None"),
            ("logprobs", self.logprobs is None or self.logprobs >= 0, "at least 0, or None"),
        ):
            if not good:
                raise InvalidSampling(f"Sampling({name}={getattr(self, name)!r}): {name} must be {range_}.")
