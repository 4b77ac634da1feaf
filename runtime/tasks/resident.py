"""The emitted text that is still in the context, token by token, and what cutting a list out of it takes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.tasks.events import Extent


@dataclass(frozen=True)
class Edit:
    """Of the tokens that are left, `start` to `stop` (exclusive) give way to `token_ids`.

    `token_ids` is empty where the cut falls between tokens. Else it spells what the tokens at its ends, `[{"` and `}],"` say, hold
    outside of it.
    """

    start: int
    stop: int
    token_ids: list[int]


@dataclass
class _Piece:
    """Some text, and how many tokens spell it."""

    text: str
    tokens: int


class ResidentText:
    """Keeps what pruning needs to know of the emitted tokens that were not dropped.

    `encode` gives the token ids of a text. Positions are relative to the first emitted token: add what stands before it.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode
        self._pieces: list[_Piece] = []
        self._waiting = 0
        """The newest tokens whose text is not certain yet: they hold the first bytes of a character."""
        self._holes: list[tuple[int, int]] = []
        """What was cut, as emitted characters; in order, none inside another."""

    def __len__(self) -> int:
        """How many tokens are left."""
        return sum(piece.tokens for piece in self._pieces) + self._waiting

    @property
    def text(self) -> str:
        """What is left."""
        return "".join(piece.text for piece in self._pieces)

    def append(self, text: str) -> None:
        """One more token was emitted, and made this text certain."""
        self._waiting += 1
        if text:
            self._pieces.append(_Piece(text, self._waiting))
            self._waiting = 0

    def cut(self, inside: Extent) -> Edit:
        """Take the inside of a list out. The characters must not have been cut before, unless as a list inside this one."""
        first, last = (self._left(character) for character in inside.characters)
        self._holes = [hole for hole in self._holes if not _within(hole, inside.characters)]
        self._holes.insert(bisect_left(self._holes, inside.characters), inside.characters)
        start, head = self._locate(first)
        stop, before = self._locate(last)
        if before:
            return self._replace(start, stop + 1, head + self._pieces[stop].text[len(before) :])
        return self._replace(start, stop, head)

    def _left(self, character: int) -> int:
        """Where an emitted character stands in the text that is left."""
        return character - sum(stop - start for start, stop in self._holes if stop <= character)

    def _locate(self, character: int) -> tuple[int, str]:
        """The piece that holds a character of the text that is left, and what the piece holds before it."""
        begin = 0
        for index, piece in enumerate(self._pieces):
            if character < begin + len(piece.text):
                return index, piece.text[: character - begin]
            begin += len(piece.text)
        return len(self._pieces), ""

    def _replace(self, start: int, stop: int, text: str) -> Edit:
        before = sum(piece.tokens for piece in self._pieces[:start])
        tokens = sum(piece.tokens for piece in self._pieces[start:stop])
        token_ids = list(self._encode(text)) if text else []
        self._pieces[start:stop] = [_Piece(text, len(token_ids))] if text else []
        return Edit(before, before + tokens, token_ids)


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
