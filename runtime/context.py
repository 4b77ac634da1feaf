"""The live context: tokens that a program appends, replaces and drops while a model runs over them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import ReferenceType, WeakSet, finalize, ref

import torch
from torch import Tensor

from runtime.arrays import Floats
from runtime.cache import Cache
from runtime.errors import ContextBusy, EmptyContext, SpanGone, UnknownToken
from runtime.generation import Generation
from runtime.mode import Fallback, Mode
from runtime.models.recurrent import Checkpoints
from runtime.row import Row
from runtime.sampling import Sampling
from runtime.slots import SlotPool
from runtime.span import Span
from runtime.stats import ContextStats
from runtime.work import Drawing

if TYPE_CHECKING:
    from runtime.engine import Engine


class Context:
    """An ordered row of tokens, and of the slots that hold the keys and values of as many of them as are encoded.

    An edit only changes the row; what is missing is encoded in one extend when logits are next wanted. What an edit does to the
    tokens behind it is its mode: "exact" encodes them again, so that all is as in a fresh run on `token_ids`; "gap" keeps their keys
    and values and positions; "rotate" keeps keys and values and turns the keys to dense positions.
    """

    def __init__(self, engine: Engine, mode: Mode = "exact", fallback: Fallback = "exact", priority: int = 0) -> None:
        self.engine = engine
        self.mode: Mode = mode
        self.priority = priority
        """Of contexts that do not fit the pool together, the one with the lowest has to wait."""
        self.stats = ContextStats()
        self.cache = Cache(engine, fallback, self.stats)
        self.last_used = 0
        self._states = Checkpoints(engine.recurrent) if engine.recurrent is not None else None
        self._spans: WeakSet[Span] = WeakSet()
        # Weak: whoever iterates over a generation keeps it running.
        self._drawing: ReferenceType[Drawing] | None = None
        # Also when nobody closes the context: its slots come back with its memory.
        self._release = finalize(self, _abandon, engine.pool, self.cache.row)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def row(self) -> Row:
        """The tokens, their slots and positions."""
        return self.cache.row

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
        positions: list[int] = self.row.positions.tolist()
        return positions

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
            twin = self.engine.context(mode=self.mode, fallback=self.cache.fallback, priority=self.priority)
            twin.cache.copy_from(self.cache)
            twin._states = self._states.fork() if self._states is not None else None
            return twin

    def snapshot(self, path: str | os.PathLike[str]) -> None:
        """Write the context to a file, from which `engine.restore` makes it again. Spans are not kept.

        Raises:
            OSError: it could not be written; an older file at its place is as it was.
        """
        with self.engine.lock:
            self._open()
            snapshot = self.cache.snapshot(self.mode)
        snapshot.save(path, *self.engine.fingerprints)

    def logits(self) -> Tensor:
        """Logits of the next token, float32 `[vocab]` on the CPU. Encodes what is not encoded yet.

        Raises:
            EmptyContext, SlotsExhausted.
        """
        self._filled()
        known = self.cache.logits
        found: Tensor = torch.from_numpy(known if known is not None else self.engine.scheduler.logits(self))
        return found

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

    def push(self, token: int) -> None:
        """Append a generated token."""
        self.cache.append(token)
        for stats in (self.stats, self.engine.totals):
            stats.appended_tokens += 1
            stats.generated_tokens += 1

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

    def encode_states(self) -> Floats:
        """The logits of a model with a recurrent state, which goes back to what it knew at the beginning of a span."""
        assert self._states is not None
        marks = {span.start for span in self._spans if span.alive}
        tensor, encoded = self._states.logits_for(self.row.ids, marks)
        logits: Floats = tensor.numpy()
        self.cache.logits = logits
        for stats in (self.stats, self.engine.totals):
            stats.encoded_tokens += encoded
        self.stats.resident_tokens = len(self)
        self.stats.peak_tokens = max(self.stats.peak_tokens, len(self))
        return logits

    def _recall(self, mode: Mode) -> None:
        """Before an edit that keeps the keys and values behind it: have those again that an eviction took, as they were."""
        if mode != "exact" and (count := self.cache.evicted):
            self.logits()
            with self.engine.lock:
                self.cache.forget(count)

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
                self.cache.change_exactly(changed, stop, new)
            elif mode is None or stop == len(self.row):
                self.cache.cut(changed, new)
            else:
                self.cache.change_keeping(changed, stop, new, mode)
            for stats in (self.stats, self.engine.totals):
                stats.appended_tokens += len(new)
                stats.dropped_tokens += stop - changed
        if start < stop or stop < len(self.row) - len(ids):  # nothing stands behind new text at the end
            self._move_spans(start, stop, len(ids))

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
