"""The live context: tokens that a program appends, replaces and drops while a model runs over them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ReferenceType, WeakSet, finalize, ref

import numpy as np
from torch import Tensor

from runtime.batch import Segment
from runtime.errors import ContextBusy, EmptyContext, PositionsExhausted, SpanGone, UnknownToken
from runtime.generation import Generation
from runtime.mode import Fallback, Mode
from runtime.models.recurrent import Checkpoints
from runtime.row import Row
from runtime.sampling import Sampling
from runtime.slots import SlotPool, Slots
from runtime.snapshot import Kept, Snapshot
from runtime.span import Span
from runtime.work import Drawing

if TYPE_CHECKING:
    from runtime.engine import Engine

_logger = logging.getLogger("runtime")


@dataclass
class ContextStats:
    """What a context has cost so far, in tokens."""

    encoded_tokens: int = 0
    """Tokens that went through the model, again or for the first time; those it generated included."""
    generated_tokens: int = 0
    """Tokens that were sampled, or forced by a schema."""
    dropped_tokens: int = 0
    """Tokens that were dropped or replaced."""
    resident_tokens: int = 0
    """Tokens whose keys and values are held now."""
    peak_tokens: int = 0
    """The most that were ever held at once."""
    evictions: int = 0
    """How often the context had to give its slots to another."""
    fallbacks: int = 0
    """How often mode "gap" had no position left and another mode helped out."""


class Context:
    """An ordered row of tokens, and of the slots that hold the keys and values of as many of them as are encoded.

    An edit only changes the row; what is missing is encoded in one extend when logits are next wanted. What an edit does to the
    tokens behind it is its mode: "exact" encodes them again, so that all is as in a fresh run on `token_ids`; "gap" keeps their keys
    and values and positions; "rotate" keeps keys and values and turns the keys to dense positions.
    """

    def __init__(self, engine: Engine, mode: Mode = "exact", fallback: Fallback = "exact", priority: int = 0) -> None:
        self.engine = engine
        self.mode: Mode = mode
        self.fallback: Fallback = fallback
        self.priority = priority
        """Of contexts that do not fit the pool together, the one with the lowest has to wait."""
        self.stats = ContextStats()
        self.row = Row()
        self.last_used = 0
        self._tainted: int | None = None  # from which token on a fresh run would give other keys and values
        self._moved = False  # whether there may be keys to turn
        self._parked: Kept | None = None
        self._evicted = 0  # how many of the first tokens were encoded, and lost their slots to another context
        self._claimed: Slots | None = None
        self._states = Checkpoints(engine.recurrent) if engine.recurrent is not None else None
        self._spans: WeakSet[Span] = WeakSet()
        self._logits: Tensor | None = None
        # Weak: whoever iterates over a generation keeps it running.
        self._drawing: ReferenceType[Drawing] | None = None
        # Also when nobody closes the context: its slots come back with its memory.
        self._release = finalize(self, _abandon, engine.pool, self.row)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def token_ids(self) -> list[int]:
        """The tokens, a copy."""
        return self.row.ids.copy()

    @property
    def text(self) -> str:
        """The whole context as text, special tokens included."""
        return self.engine.decode(self.row.ids, special=True)

    @property
    def positions(self) -> list[int]:
        """The position of each token; dense in modes "exact" and "rotate"."""
        return [int(position) for position in self.row.positions]

    def span(self, start: int, stop: int) -> Span:
        """A handle on tokens `start` to `stop` (exclusive)."""
        if not 0 <= start <= stop <= len(self.row):
            raise SpanGone(f"Tokens {start} to {stop} are not in a context of {len(self.row)} tokens.")
        span = Span(self, start, stop)
        self._spans.add(span)
        return span

    def append(self, content: str | Sequence[int]) -> Span:
        """Put text or token ids at the end. The first text gets the special tokens that the tokenizer adds by itself.

        Raises:
            PositionsExhausted, UnknownToken: and nothing has changed.
        """
        with self.engine.lock:
            self._editable(at_end=True)
            start = len(self.row)
            self._splice(start, start, self._encode(content, first=start == 0), None)
            return self.span(start, len(self.row))

    def replace(self, span: Span, content: str | Sequence[int], mode: Mode | None = None) -> Span:
        """Put other text in a span's place. What both begin with keeps its keys and values.

        Text that is too long for the hole is never cut: in mode "gap" the context's fallback makes room.

        Raises:
            PositionsExhausted, UnknownToken, SpanGone, ContextBusy, UnsupportedMode: and nothing has changed.
        """
        checked = self.engine.check_mode(mode or self.mode)
        self._own(span)
        self._recall(checked)
        with self.engine.lock:
            start, stop = self._own(span)
            ids = self._encode(content, first=start == 0)
            self._splice(start, stop, ids, checked)
            span.alive = False
            return self.span(start, start + len(ids))

    def drop(self, span: Span, mode: Mode | None = None) -> None:
        """Take a span out of the context; its slots are free at once. `mode` is for this drop alone.

        Raises:
            SpanGone, ContextBusy, UnsupportedMode: and nothing has changed.
        """
        checked = self.engine.check_mode(mode or self.mode)
        self.prune(*self._own(span), checked)
        span.alive = False

    def fork(self) -> Context:
        """A second context with the same tokens, sharing every slot."""
        with self.engine.lock:
            self._open()
            twin = self.engine.context(mode=self.mode, fallback=self.fallback, priority=self.priority)
            self.engine.pool.share(self.row.owned)
            twin.row.copy_from(self.row)
            twin._tainted, twin._moved, twin._parked = self._tainted, self._moved, self._parked
            twin._evicted, twin._logits = self._evicted, self._logits
            twin._states = self._states.fork() if self._states is not None else None
            twin._count()
            return twin

    def snapshot(self, path: str | os.PathLike[str]) -> None:
        """Write the context to a file, from which `engine.restore` makes it again. Spans are not kept.

        Raises:
            OSError: it could not be written; an older file at its place is as it was.
        """
        with self.engine.lock:
            self._open()
            snapshot = Snapshot(self.row.ids.copy(), self.positions, self._tainted, self.mode, self.fallback, self._kept())
        snapshot.save(path, *self.engine.fingerprints)

    def logits(self) -> Tensor:
        """Logits of the next token, float32 `[vocab]` on the CPU. Encodes what is not encoded yet.

        Raises:
            EmptyContext, SlotsExhausted.
        """
        self._filled()
        known = self._logits
        return known if known is not None else self.engine.scheduler.logits(self)

    def generate(self, sampling: Sampling | None = None) -> Generation:
        """Stream text at the end of the context: iterate over the result. The tokens stay, the end-of-text token does not."""
        with self.engine.lock:
            self._editable(at_end=True)
            self._filled()
            generation = Generation(self, sampling or Sampling())
            self.begin(generation)
            return generation

    def cancel(self) -> None:
        """End the running generation before its next token; may be called from another thread."""
        if drawing := self.running():
            drawing.cancel()

    def close(self) -> None:
        """Let every slot go. The context cannot be used afterwards."""
        with self.engine.lock:
            self._release()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What follows is for the runtime's own modules, which hold the engine's lock.

    @property
    def closed(self) -> bool:
        return not self._release.alive

    @property
    def known_logits(self) -> Tensor | None:
        """The logits of the next token, if nothing has changed since they were worked out."""
        return self._logits

    def become(self, snapshot: Snapshot) -> None:
        """Take over what a snapshot holds. (The context is empty.)"""
        self.row.splice(0, 0, snapshot.ids)
        self.row.positions[:] = snapshot.positions
        self._tainted = snapshot.tainted
        self._parked = snapshot.kept

    def push(self, ids: Sequence[int]) -> None:
        """Append generated tokens."""
        self._splice(len(self.row), len(self.row), ids, None)
        self.stats.generated_tokens += len(ids)

    def cut(self, start: int, ids: Sequence[int]) -> None:
        """Put `ids` in the place of everything from token `start` on."""
        self._splice(start, len(self.row), ids, None)

    def prune(self, start: int, stop: int, mode: Mode, ids: Sequence[int] = ()) -> None:
        """Put `ids`, or nothing, in the place of tokens; in that of a running generation's too."""
        self._recall(mode)
        with self.engine.lock:
            self._splice(start, stop, ids, mode)

    def begin(self, drawing: Drawing) -> None:
        """From now on, tokens are drawn at the end of the context."""
        self._drawing = ref(drawing)

    def finish(self, drawing: Drawing) -> None:
        if self.running() is drawing:
            self._drawing = None

    def running(self) -> Drawing | None:
        """What draws tokens at the end of the context, if anything does."""
        return self._drawing() if self._drawing is not None else None

    @property
    def resident(self) -> bool:
        """True if it holds slots."""
        return bool(self.row.slots.any())

    @property
    def untouched(self) -> bool:
        """True if nothing is encoded yet, and all will be as in a fresh run."""
        return not self.resident and self._parked is None and self._tainted is None

    def missing(self) -> int:
        """How many tokens have to be encoded before there are logits."""
        if self._logits is not None:
            return 0
        if self._parked is not None:
            return len(self.row)
        return int((self.row.slots[:-1] == 0).sum()) + 1

    def fresh_prefix(self, ids: Sequence[int]) -> int:
        """How many of `ids`, from the first on, stand encoded at the beginning of this context as a fresh run would have them."""
        if self._parked is not None:
            return 0
        pending = self.row.pending()
        stop = min(
            len(ids), pending[0][0] if pending else len(self.row), len(self.row) if self._tainted is None else self._tainted
        )
        low = 0
        while low < stop:  # the longest common prefix, by halving
            middle = (low + stop + 1) // 2
            if self.row.ids[low:middle] == list(ids[low:middle]):
                low = middle
            else:
                stop = middle - 1
        return low

    def borrow(self, other: Context, count: int) -> None:
        """Share the slots of the first `count` tokens of a context that begins with the same."""
        slots = other.row.slots[:count]
        self.engine.pool.share(slots)
        self.row.slots[:count] = slots
        self._count()

    def claim(self, budget: int) -> list[Segment]:
        """Take slots for at most `budget` tokens that are to be encoded next, in order, and say what they see.

        Raises:
            SlotsExhausted: and nothing was taken.
        """
        row, pool = self.row, self.engine.pool
        self._unpark()
        if self._moved:
            self._turn()
        if row.slots[-1]:  # the last token once more: it has to see what was edited
            pool.release(row.clear(len(row) - 1, len(row)))
        chosen: list[tuple[int, int]] = []
        for start, stop in row.pending():
            if budget > 0:
                chosen.append((start, min(stop, start + budget)))
                budget -= chosen[-1][1] - start
        tokens = np.concatenate([np.arange(start, stop) for start, stop in chosen])
        first = int(tokens[0])
        row.slots[tokens] = pool.take(len(tokens), int(row.slots[first - 1]) if first else 0)
        self._claimed = tokens
        return [
            Segment(row.ids[start:stop], row.slots[:stop], row.positions[:stop], wanted=stop == len(row))
            for start, stop in chosen
        ]

    def encode_states(self) -> Tensor:
        """The logits of a model with a recurrent state, which goes back to what it knew at the beginning of a span."""
        assert self._states is not None
        marks = {span.start for span in self._spans if span.alive}
        logits, encoded = self._states.logits_for(self.row.ids, marks)
        self.stats.encoded_tokens += encoded
        self._logits = logits
        self._count()
        return logits

    def settle(self, logits: Tensor | None) -> None:
        """What was claimed is encoded; `logits` (`[vocab]`, on the CPU) if the last token was among it."""
        assert self._claimed is not None
        self.stats.encoded_tokens += len(self._claimed)
        self._claimed = None
        self._logits = logits
        if logits is not None:
            self._evicted = 0
        self._count()

    def unclaim(self) -> None:
        """What was claimed was not encoded."""
        if self._claimed is not None:
            self.engine.pool.release(self.row.slots[self._claimed])
            self.row.slots[self._claimed] = 0
            self._claimed = None

    def evict(self) -> None:
        """Let every slot go. Tokens come back by being encoded again; where that would not give the same, keys and values are kept."""
        row, pool = self.row, self.engine.pool
        if self._tainted is not None and self._parked is None:
            self._parked = self._kept()
        elif self._parked is None:
            pending = row.pending()
            self._evicted = max(self._evicted, pending[0][0] if pending else len(row))
        pool.release(row.clear(0, len(row)))
        self._logits = None
        self.stats.evictions += 1
        self._count()

    def _recall(self, mode: Mode) -> None:
        """Before an edit that keeps the keys and values behind it: have those again that an eviction took, as they were."""
        if mode != "exact" and (count := self._evicted):
            self.logits()
            with self.engine.lock:
                self._clear(count, len(self.row))
                self._logits = None

    def _kept(self) -> Kept:
        """The keys and values of what is encoded, as it was encoded."""
        if self._parked is not None:
            return self._parked
        row, pool = self.row, self.engine.pool
        tokens = np.flatnonzero(row.slots)
        encoded = np.where(row.origins[tokens] > 0, row.origins[tokens], row.slots[tokens])
        return Kept(tokens, *pool.read(encoded), pool.positions[encoded])

    def _unpark(self) -> None:
        if self._parked is not None:
            parked, pool = self._parked, self.engine.pool
            slots = pool.take(len(parked.tokens))
            pool.put(slots, parked.keys, parked.values, parked.positions)
            self.row.slots[parked.tokens] = slots
            self._parked, self._moved = None, True

    def _turn(self) -> None:
        """Give every token whose position has changed since it was encoded a key that is turned to it."""
        row, pool = self.row, self.engine.pool
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
        self.engine.rotate(row.origins[moved], row.slots[moved], row.positions[moved])
        self._moved = False

    def _encode(self, content: str | Sequence[int], first: bool) -> list[int]:
        ids = self.engine.encode(content, first=first) if isinstance(content, str) else list(content)
        vocabulary = self.engine.vocab_size
        for token in ids:
            if not 0 <= token < vocabulary:
                raise UnknownToken(f"The model has no token {token}: use token ids from 0 to {vocabulary - 1}.")
        return ids

    def _splice(self, start: int, stop: int, ids: Sequence[int], mode: Mode | None) -> None:
        """Replace tokens `start` to `stop` by `ids`, and move the spans. Without a mode, nothing else is touched: for the end."""
        same = 0
        while same < min(len(ids), stop - start) and ids[same] == self.row.ids[start + same]:
            same += 1
        changed, new = start + same, ids[same:]
        if changed < stop or new:
            if mode == "exact":
                self._change_exactly(changed, stop, new)
            elif mode is None or stop == len(self.row):
                self._change_end(changed, new)
            else:
                self._change_keeping(changed, stop, new, mode)
            self._logits = None
            self.stats.dropped_tokens += stop - changed
        self._move_spans(start, stop, len(ids))
        self._count()

    def _change_end(self, start: int, ids: Sequence[int]) -> None:
        if self.row.next_position(start) + len(ids) > self.engine.max_positions and self._tainted is not None:
            self._fall_back(f"no position is left of the {self.engine.max_positions} that the model knows")
            if self.fallback == "rotate":
                self._close_holes()
            else:
                self._change_exactly(len(self.row), len(self.row), [])
        self._fits(self.row.next_position(start) + len(ids))
        self._clear(start, len(self.row))
        self.row.splice(start, len(self.row), ids)
        if self._tainted is not None and start <= self._tainted:
            self._tainted = None

    def _change_exactly(self, start: int, stop: int, ids: Sequence[int]) -> None:
        """Encode again what is behind the change, and what is not as in a fresh run since an earlier edit; at dense positions."""
        row = self.row
        self._fits(len(row) - (stop - start) + len(ids))
        fresh = start if self._tainted is None else min(start, self._tainted)
        self._clear(fresh, len(row))
        row.splice(start, stop, ids)
        row.positions[fresh:] = np.arange(fresh, len(row))
        self._tainted = None

    def _change_keeping(self, start: int, stop: int, ids: Sequence[int], mode: Mode) -> None:
        """Keep the keys and values behind the change: at their positions, or turned to dense ones."""
        row, end = self.row, start + len(ids)
        if mode == "gap" and end - start > (room := int(row.positions[stop]) - row.next_position(start)):
            self._fall_back(f"{end - start} tokens do not fit into a hole of {room} positions")
            if self.fallback == "exact":
                self._change_exactly(start, stop, ids)
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

    def _fall_back(self, why: str) -> None:
        """Say that mode "gap" cannot go on. Raises `PositionsExhausted` if nothing shall help out."""
        if self.fallback == "error":
            raise PositionsExhausted(
                f"Mode 'gap' cannot go on: {why}. Drop spans in mode 'exact' or 'rotate', or open the context with a fallback."
            )
        _logger.warning("Mode 'gap' cannot go on (%s): the context falls back on mode '%s'.", why, self.fallback)
        self.stats.fallbacks += 1

    def _close_holes(self) -> None:
        """Dense positions for every token; keys are turned when they are next read."""
        self.row.positions[:] = np.arange(len(self.row))
        self._moved = True

    def _fits(self, positions: int) -> None:
        if positions > self.engine.max_positions:
            raise PositionsExhausted(
                f"The context would have {positions} tokens, and the model knows {self.engine.max_positions} positions: "
                "drop spans first."
            )

    def _clear(self, start: int, stop: int) -> None:
        """Let the keys and values of some tokens go."""
        self.engine.pool.release(self.row.clear(start, stop))
        self._evicted = min(self._evicted, start)
        if self._parked is not None:
            self._parked = self._parked.without(start, stop)

    def _move_spans(self, start: int, stop: int, count: int) -> None:
        shift = count - (stop - start)
        for span in self._spans:
            if not span.alive or span.stop <= start:
                continue
            if span.start >= stop:  # before it dies: an empty span at the edge stays there
                span.start, span.stop = span.start + shift, span.stop + shift
            elif start <= span.start and span.stop <= stop:
                span.alive = False
            elif span.start <= start and span.stop >= stop:
                span.stop += shift
            elif span.start < start:
                span.stop = start
            else:
                span.start, span.stop = start + count, span.stop + shift

    def _count(self) -> None:
        self.stats.resident_tokens = len(self.row) if self._states is not None else int(np.count_nonzero(self.row.slots))
        self.stats.peak_tokens = max(self.stats.peak_tokens, self.stats.resident_tokens)

    def _own(self, span: Span) -> tuple[int, int]:
        self._open()
        if span.context is not self:
            raise SpanGone("The span belongs to another context.")
        if not span.alive:
            raise SpanGone("The span was dropped or replaced before; use the one that the edit returned.")
        drawing = self.running()
        if drawing is not None and span.stop > drawing.start:
            raise ContextBusy("The span holds text that is being generated: finish or cancel the generation first.")
        return span.start, span.stop

    def _editable(self, at_end: bool) -> None:
        self._open()
        if at_end and self.running() is not None:
            raise ContextBusy("A generation is running at the end of this context: finish or close it first.")

    def _filled(self) -> None:
        self._open()
        if not self.row.ids:
            raise EmptyContext("The context is empty: append text or token ids first.")

    def _open(self) -> None:
        if self.closed:
            raise ContextBusy("The context was closed: open another with engine.context().")


def _abandon(pool: SlotPool, row: Row) -> None:
    pool.abandon(row.clear(0, len(row)))
