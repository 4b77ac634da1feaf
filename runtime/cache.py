"""The keys and values of a context: which of its tokens are encoded, and what an edit does to those behind it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.arrays import Floats
from runtime.batch import Segment
from runtime.errors import PositionsExhausted
from runtime.mode import Fallback, Mode
from runtime.row import Row
from runtime.snapshot import Kept, Snapshot
from runtime.stats import ContextStats

if TYPE_CHECKING:
    from runtime.engine import Engine

_logger = logging.getLogger("runtime")


class Cache:
    """The tokens of one context, and the slots that hold keys and values of as many of them as are encoded.

    An edit only changes the row; what is missing is encoded in one extend when logits are next wanted. Callers hold the engine's lock.
    """

    def __init__(self, engine: Engine, fallback: Fallback, stats: ContextStats) -> None:
        self.fallback: Fallback = fallback
        self.row = Row()
        self.logits: Floats | None = None
        """`[vocab]`: of the next token, if nothing has changed since they were worked out."""
        self._engine, self._pool, self._stats = engine, engine.pool, stats
        self._tainted: int | None = None  # from which token on a fresh run would give other keys and values
        self._moved = False  # whether there may be keys to turn
        self._parked: Kept | None = None  # keys and values that an eviction took out of the pool
        self._evicted = 0
        self._claimed: list[tuple[int, int]] = []

    def copy_from(self, other: Cache) -> None:
        """Become the cache of the same tokens, sharing every slot."""
        self._pool.share(other.row.owned)
        self.row.copy_from(other.row)
        self._tainted, self._moved, self._parked = other._tainted, other._moved, other._parked
        self._evicted, self.logits = other._evicted, other.logits
        self._count()

    def snapshot(self, mode: Mode) -> Snapshot:
        """Everything that is to be written to disk."""
        positions = self.row.positions.tolist()
        return Snapshot(self.row.ids.copy(), positions, self._tainted, mode, self.fallback, self._kept())

    def become(self, snapshot: Snapshot) -> None:
        """Take over what a snapshot holds. (The cache is empty.)"""
        self.row.splice(0, 0, snapshot.ids)
        self.row.positions[:] = snapshot.positions
        self._tainted = snapshot.tainted
        self._parked = snapshot.kept

    # Edits

    def append(self, token: int) -> None:
        """Put a token behind the last one: `cut` at the end, for the steps of a generation."""
        if self._tainted is None and self.row.next_position(len(self.row)) < self._engine.max_positions:
            self.row.append(token)
            self.logits = None
        else:
            self.cut(len(self.row), [token])

    def cut(self, start: int, ids: Sequence[int]) -> None:
        """Put `ids` in the place of everything from token `start` on; what stands before is not touched.

        Raises:
            PositionsExhausted: and nothing has changed, like with the other edits.
        """
        if self.row.next_position(start) + len(ids) > self._engine.max_positions and self._tainted is not None:
            self._fall_back(f"no position is left of the {self._engine.max_positions} that the model knows")
            if self.fallback == "rotate":
                self._close_holes()
            else:
                self.change_exactly(len(self.row), len(self.row), [])
        self._fits(self.row.next_position(start) + len(ids))
        self._clear(start, len(self.row))
        self.row.splice(start, len(self.row), ids)
        if self._tainted is not None and start <= self._tainted:
            self._tainted = None
        self.logits = None

    def change_exactly(self, start: int, stop: int, ids: Sequence[int]) -> None:
        """Encode again what is behind the change, and what is not as in a fresh run since an earlier edit; at dense positions."""
        row = self.row
        self._fits(len(row) - (stop - start) + len(ids))
        fresh = start if self._tainted is None else min(start, self._tainted)
        self._clear(fresh, len(row))
        row.splice(start, stop, ids)
        row.positions[fresh:] = np.arange(fresh, len(row))
        self._tainted = self.logits = None

    def change_keeping(self, start: int, stop: int, ids: Sequence[int], mode: Mode) -> None:
        """Keep the keys and values behind the change: at their positions, or turned to dense ones."""
        row, end = self.row, start + len(ids)
        if mode == "gap" and end - start > (room := int(row.positions[stop]) - row.next_position(start)):
            self._fall_back(f"{end - start} tokens do not fit into a hole of {room} positions")
            if self.fallback == "exact":
                self.change_exactly(start, stop, ids)
                return
            self._close_holes()
            mode = "rotate"
        shift = row.next_position(start) + len(ids) - int(row.positions[stop]) if mode == "rotate" else 0
        self._fits(int(row.positions[-1]) + shift + 1)
        self._clear(start, stop)
        row.splice(start, stop, ids)
        if self._parked is not None:
            self._parked = self._parked.moved(stop, end - stop)
        if shift:
            row.positions[end:] += shift
            self._moved = True
        if self._tainted is None or self._tainted >= start:
            self._tainted = end
        self.logits = None

    @property
    def evicted(self) -> int:
        """How many of the first tokens were encoded, and are not since the context had to make room for another."""
        return self._evicted

    def forget(self, start: int) -> None:
        """Let go what is encoded from token `start` on."""
        self._clear(start, len(self.row))
        self.logits = None

    # Encoding

    @property
    def resident(self) -> bool:
        """True if it holds slots."""
        return bool(self.row.slots.any())

    @property
    def untouched(self) -> bool:
        """True if nothing is encoded yet, and all will be as in a fresh run."""
        return not self.row.encoded and not self.resident and self._parked is None and self._tainted is None

    def missing(self) -> int:
        """How many tokens have to be encoded before there are logits."""
        if self.logits is not None:
            return 0
        if self._parked is not None:
            return len(self.row)
        return len(self.row) - self.row.held + bool(self.row.slots[-1])  # the last token once more, for its logits

    def fresh_prefix(self, ids: Sequence[int]) -> int:
        """How many of `ids`, from the first on, stand encoded at the beginning of this context as a fresh run would have them."""
        if self._parked is not None:
            return 0
        stop = min(len(ids), self.row.encoded, len(self.row) if self._tainted is None else self._tainted)
        low = 0
        while low < stop:  # the longest common prefix, by halving
            middle = (low + stop + 1) // 2
            if self.row.ids[low:middle] == list(ids[low:middle]):
                low = middle
            else:
                stop = middle - 1
        return low

    def borrow(self, other: Cache, count: int) -> None:
        """Share the slots of the first `count` tokens of a context that begins with the same."""
        slots = other.row.slots[:count]
        self._pool.share(slots)
        self.row.slots[:count] = slots
        self._count()

    def claim(self, budget: int) -> list[Segment]:
        """Take slots for at most `budget` tokens that are to be encoded next, in order, and say what they see.

        Raises:
            SlotsExhausted: and nothing was taken.
        """
        row, pool = self.row, self._pool
        self._unpark()
        if self._moved:
            self._turn()
        slots, positions = row.slots, row.positions
        if slots[-1]:  # the last token once more: it has to see what was edited
            pool.release(row.clear(len(row) - 1, len(row)))
        chosen: list[tuple[int, int]] = []
        for start, stop in row.pending():
            if budget > 0:
                chosen.append((start, min(stop, start + budget)))
                budget -= chosen[-1][1] - start
        first = chosen[0][0]
        taken = pool.take(sum(stop - start for start, stop in chosen), int(slots[first - 1]) if first else 0)
        at = 0
        for start, stop in chosen:
            slots[start:stop] = taken[at : at + stop - start]
            at += stop - start
        self._claimed = chosen
        return [Segment(row.ids[start:stop], slots[:stop], positions[:stop], wanted=stop == len(row)) for start, stop in chosen]

    def settle(self, logits: Floats | None) -> None:
        """What was claimed is encoded; `logits` (`[vocab]`) if the last token was among it."""
        for start, stop in self._claimed:
            again = self.row.see(start, stop)
            for stats in (self._stats, self._engine.totals):
                stats.encoded_tokens += stop - start
                stats.encoded_again += again
        self._claimed = []
        self.logits = logits
        if logits is not None:
            self._evicted = 0
        self._count()

    def unclaim(self) -> None:
        """What was claimed was not encoded."""
        for start, stop in self._claimed:
            self._pool.release(self.row.clear(start, stop))
        self._claimed = []

    def evict(self) -> None:
        """Let every slot go. Tokens come back by being encoded again; where that would not give the same, keys and values are kept."""
        row = self.row
        if self._tainted is not None and self._parked is None:
            self._parked = self._kept()
        elif self._parked is None:
            self._evicted = max(self._evicted, row.encoded)
        self._pool.release(row.clear(0, len(row)))
        self.logits = None
        self._stats.evictions += 1
        self._engine.totals.evictions += 1
        self._count()

    # Inside

    def _kept(self) -> Kept:
        """The keys and values of what is encoded, as it was encoded."""
        if self._parked is not None:
            return self._parked
        row, pool = self.row, self._pool
        tokens = np.flatnonzero(row.slots)
        encoded = np.where(row.origins[tokens] > 0, row.origins[tokens], row.slots[tokens])
        return Kept(tokens, *pool.read(encoded), pool.positions[encoded])

    def _unpark(self) -> None:
        if self._parked is not None:
            parked, pool = self._parked, self._pool
            slots = pool.take(len(parked.tokens))
            pool.put(slots, parked.keys, parked.values, parked.positions)
            self.row.slots[parked.tokens] = slots
            self._parked, self._moved = None, True

    def _turn(self) -> None:
        """Give every token whose position has changed since it was encoded a key that is turned to it."""
        row, pool = self.row, self._pool
        encoded = np.flatnonzero(row.slots)
        moved = encoded[pool.positions[row.slots[encoded]] != row.positions[encoded]]
        # Back where it was encoded: no copy is wanted any more.
        origins = row.origins[moved]
        home = moved[(origins > 0) & (pool.positions[origins] == row.positions[moved])]
        pool.release(row.slots[home])
        row.slots[home], row.origins[home] = row.origins[home], 0
        moved = np.setdiff1d(moved, home, assume_unique=True)
        # A copy of our own is written over; a key that others see too, or the one that was encoded, gets a copy beside it.
        own = (row.origins[moved] > 0) & ~pool.shared(row.slots[moved])
        others = moved[~own]
        copies = pool.take(len(others))
        turned = others[row.origins[others] > 0]
        pool.release(row.slots[turned])
        row.origins[others] = np.where(row.origins[others] > 0, row.origins[others], row.slots[others])
        row.slots[others] = copies
        self._engine.rotate(row.origins[moved], row.slots[moved], row.positions[moved])
        self._moved = False

    def _fall_back(self, why: str) -> None:
        """Say that mode "gap" cannot go on. Raises `PositionsExhausted` if nothing shall help out."""
        if self.fallback == "error":
            raise PositionsExhausted(
                f"Mode 'gap' cannot go on: {why}. Drop spans in mode 'exact' or 'rotate', or open the context with a fallback."
            )
        _logger.warning("Mode 'gap' cannot go on (%s): the context falls back on mode '%s'.", why, self.fallback)
        self._stats.fallbacks += 1

    def _close_holes(self) -> None:
        """Dense positions for every token; keys are turned when they are next read."""
        self.row.positions[:] = np.arange(len(self.row))
        self._moved = True

    def _fits(self, positions: int) -> None:
        if positions > self._engine.max_positions:
            raise PositionsExhausted(
                f"The context would have {positions} tokens, and the model knows {self._engine.max_positions} positions: "
                "drop spans first."
            )

    def _clear(self, start: int, stop: int) -> None:
        """Let the keys and values of some tokens go."""
        if start < stop:
            self._pool.release(self.row.clear(start, stop))
            self._evicted = min(self._evicted, start)
            if self._parked is not None:
                self._parked = self._parked.without(start, stop)
            self._count()

    def _count(self) -> None:
        self._stats.resident_tokens = self.row.held
        self._stats.peak_tokens = max(self._stats.peak_tokens, self._stats.resident_tokens)
