"""The tokens of a context, and for each where its key and value lie and which position it has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from runtime.arrays import Slots

_SLOT, _ORIGIN, _SEEN, _POSITION = range(4)


class Row:
    """Columns of numbers beside the token ids, which grow and shrink together.

    A token without a slot (0) is not encoded yet. A token whose key was turned to another position has its slot, and in `origins`
    the slot of the key as it was encoded: every later turn starts from there.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._columns = np.zeros((4, 64), np.int64)
        self._encoded = 0  # every token before this one has a slot

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def slots(self) -> Slots:
        """Slot of each token, 0 for none. A view: it holds until the next change of length. `clear` takes slots away."""
        column: Slots = self._columns[_SLOT, : len(self.ids)]
        return column

    @property
    def origins(self) -> Slots:
        """Slot of each token's key as it was encoded, 0 where that is the token's slot itself."""
        column: Slots = self._columns[_ORIGIN, : len(self.ids)]
        return column

    @property
    def positions(self) -> Slots:
        """Position of each token."""
        column: Slots = self._columns[_POSITION, : len(self.ids)]
        return column

    @property
    def owned(self) -> Slots:
        """Every slot that belongs to the row, a new array."""
        return np.concatenate([self.slots, self.origins])

    def next_position(self, at: int) -> int:
        """The position behind token `at - 1`."""
        return int(self._columns[_POSITION, at - 1]) + 1 if at else 0

    def append(self, token: int) -> None:
        """Put a token behind the last one. The same as `splice` does, in a tenth of the time."""
        at = len(self.ids)
        if at == self._columns.shape[1]:
            self.splice(at, at, [token])
            return
        self._columns[:, at] = 0, 0, 0, self.next_position(at)
        self.ids.append(token)

    def splice(self, start: int, stop: int, ids: Sequence[int]) -> None:
        """Put `ids` in the place of tokens `start` to `stop`: without slots, at positions that follow `start`.

        The tokens behind keep theirs.
        """
        held, begin = len(self.ids), self.next_position(start)
        length = held + len(ids) - (stop - start)
        if length > self._columns.shape[1]:
            grown = np.zeros((len(self._columns), 2 * length), np.int64)
            grown[:, :held] = self._columns[:, :held]
            self._columns = grown
        end = start + len(ids)
        if end != stop:
            self._columns[:, end:length] = self._columns[:, stop:held].copy()
        self._columns[:_POSITION, start:end] = 0
        self._columns[_POSITION, start:end] = np.arange(begin, begin + len(ids))
        self.ids[start:stop] = ids
        self._encoded = min(self._encoded, start)

    def clear(self, start: int, stop: int) -> Slots:
        """Take the slots of some tokens away and return them."""
        taken: Slots = self._columns[: _ORIGIN + 1, start:stop].flatten()
        self._columns[: _ORIGIN + 1, start:stop] = 0
        self._encoded = min(self._encoded, start)
        return taken

    def see(self, start: int, stop: int) -> int:
        """Note that some tokens were encoded; how many of them had been so before."""
        if stop == start + 1:  # at every step of a generation
            again = int(self._columns[_SEEN, start])
            self._columns[_SEEN, start] = 1
            return again
        again = int(np.count_nonzero(self._columns[_SEEN, start:stop]))
        self._columns[_SEEN, start:stop] = 1
        return again

    @property
    def encoded(self) -> int:
        """How many tokens, from the first on, have slots without a gap."""
        missing = len(self.ids) - self._encoded
        if missing == 1:  # at every step of a generation
            self._encoded += bool(self._columns[_SLOT, self._encoded])
        elif missing:
            empty = self.slots[self._encoded :] == 0
            self._encoded += int(empty.argmax()) if empty.any() else missing
        return self._encoded

    @property
    def held(self) -> int:
        """How many tokens have slots."""
        first = self.encoded
        return first + int(np.count_nonzero(self.slots[first + 1 :])) if first < len(self.ids) else first

    def pending(self) -> list[tuple[int, int]]:
        """The runs of tokens that are not encoded, in order."""
        first = self.encoded
        if first >= len(self.ids) - 1:
            return [(first, len(self.ids))] if first < len(self.ids) else []
        missing = np.flatnonzero(self.slots[first:] == 0) + first
        breaks = np.flatnonzero(np.diff(missing) > 1) + 1
        edges = [0, *breaks.tolist(), len(missing)]
        return [(int(missing[a]), int(missing[b - 1]) + 1) for a, b in pairwise(edges)]

    def copy_from(self, other: Row) -> None:
        """Become a row of the same tokens, slots and positions."""
        self.ids = other.ids.copy()
        self._columns = other._columns.copy()
        self._encoded = other._encoded
