"""Token ids to text as they come: whole characters only, nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """Decodes generated tokens piece by piece. `before` are the last tokens of the context, for the right spacing."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(ids=list(before), skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._whole: list[int] = []  # the last token that was text by itself: a decoder that begins behind it keeps spaces
        self.last = ""
        """What the last token added, before any stop string was looked for."""
        self.stopped = False
        self.removed = 0
        """How many characters a stop string, and what came behind it, took away from the end."""

    def push(self, token: int) -> str:
        """Take a token; return the text that is now certain to stay."""
        piece = self._step(token)
        self.last = piece
        if not self._stop:
            return piece
        self._held += piece
        begins = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if begins:
            self.stopped = True
            self.removed = len(self._held) - min(begins)
            released, self._held = self._held[: min(begins)], ""
            return released
        return self._release(len(self._held) - self._partial_stop())

    def _step(self, token: int) -> str:
        try:
            piece = self._decoder.step(self._tokenizer, token) or ""
        except Exception:  # the library has no other type for bytes that are no character and never will be
            self._decoder = DecodeStream(ids=self._whole, skip_special_tokens=True)
            piece = "\ufffd" + (self._decoder.step(self._tokenizer, token) or "")
        if piece and self.last:
            self._whole = [token]
        return piece

    def flush(self) -> str:
        """The text that was held back for a stop string that did not come."""
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released

    def _partial_stop(self) -> int:
        """The length of the longest end of the held text that is the beginning of a stop string."""
        longest = min(len(self._held), max(map(len, self._stop)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
