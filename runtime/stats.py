"""Numbers about what a context and an engine have done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TokenStats:
    """What became of tokens."""

    appended_tokens: int = 0
    """Tokens that were put in, the generated ones included; where a text replaced one that begins alike, the rest of it."""
    generated_tokens: int = 0
    """Tokens that were sampled, or forced by a schema."""
    dropped_tokens: int = 0
    """Tokens that were dropped or replaced."""
    encoded_tokens: int = 0
    """Tokens that went through the model, again or for the first time; the generated ones included."""
    encoded_again: int = 0
    """Of these, the ones that had been encoded before: behind an edit, or after an eviction."""
    resident_tokens: int = 0
    """Tokens whose keys and values are held now; of an engine, what contexts share counts once."""
    peak_tokens: int = 0
    """The most that were ever held at once."""
    evictions: int = 0
    """How often a context had to give its slots to another."""

    @property
    def dropped_share(self) -> float:
        """The share of all tokens ever put in that has left again."""
        return self.dropped_tokens / self.appended_tokens if self.appended_tokens else 0.0


@dataclass
class ContextStats(TokenStats):
    """What a context has cost so far."""

    fallbacks: int = 0
    """How often mode "gap" had no position left and another mode helped out."""
    first_token_seconds: float | None = None
    """From the beginning of the latest generation to its first token, the encoding of what stands before it included."""
    generating_seconds: float = 0.0
    """From the beginning to the end of every generation; what the program does between two tokens counts too."""

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of generation."""
        return self.generated_tokens / self.generating_seconds if self.generating_seconds else 0.0


@dataclass
class EngineStats(TokenStats):
    """What an engine has done so far for all its contexts, and where its time went."""

    steps: int = 0
    step_seconds: float = 0.0
    """Whole steps; of this:"""
    forward_seconds: float = 0.0
    mask_seconds: float = 0.0
    """Working out what grammars allow, or waiting for it."""
    sampling_seconds: float = 0.0
    tool_seconds: float = 0.0
    """Beside the steps: time that tools took; of several at once, the sum."""

    @property
    def python_seconds(self) -> float:
        """What is left of the steps beside forward, masks and sampling: bookkeeping."""
        return self.step_seconds - self.forward_seconds - self.mask_seconds - self.sampling_seconds

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all contexts per second of steps."""
        return self.generated_tokens / self.step_seconds if self.step_seconds else 0.0
