"""What generated text can be made to follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.errors import InvalidGrammar

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Regex:
    """The whole text matches a regular expression, in the syntax of Rust's `regex`: no look-around, no back-reference."""

    pattern: str


@dataclass(frozen=True)
class Choices:
    """The text is one of these."""

    options: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", self.options if isinstance(self.options, str) else tuple(self.options))
        if isinstance(self.options, str) or not self.options or not all(isinstance(option, str) for option in self.options):
            raise InvalidGrammar(
                f"Choices({self.options!r}) is not a list of strings: give at least one, as in Choices(['yes', 'no'])."
            )


@dataclass(frozen=True)
class Ebnf:
    """The text is a sentence of a context-free grammar.

    The notation is llguidance's variant of Lark, beginning at the rule `start`; text with `::=` is read as the GBNF of
    llama.cpp, beginning at `root`. What a Lark grammar takes in by `%json` is checked by llguidance alone.
    """

    text: str


Schema: TypeAlias = "Mapping[str, Any] | type[BaseModel] | Regex | Choices | Ebnf"
"""A JSON schema (draft 2020-12) as a mapping or as the pydantic model that has it, or one of the above."""
