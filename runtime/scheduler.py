"""Continuous batching: whatever the contexts of an engine want next shares one forward pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import torch

from runtime.arrays import Floats
from runtime.batch import Batch, Segment
from runtime.chooser import Chooser
from runtime.errors import ContextBusy, OutOfMemory, SlotsExhausted, first_line
from runtime.work import Drawing, Work

if TYPE_CHECKING:
    from runtime.context import Context
    from runtime.engine import Engine

_FEW = 8
"""Tokens up to which an extend goes first, as a decode does: nobody who streams waits for another's long prompt."""
_WORTH_SHARING = 16
_GATHER_SHARE, _GATHER_SECONDS = 0.25, 0.002


class Scheduler:
    """Runs steps for all threads. There is no thread of its own: of those that wait, one runs a step for all."""

    def __init__(self, engine: Engine, step_tokens: int) -> None:
        self._engine = engine
        self._chooser = Chooser(engine)
        self._step_tokens = step_tokens
        self._changed = threading.Condition()
        self._waiting: list[Work] = []
        self._stepping = False
        self._expected: dict[int, int] = {}  # what draws, by number, and the threads that run them
        self._last_seconds = 0.0
        self._numbers = 0

    def number(self) -> int:
        """A number higher than any before."""
        self._numbers += 1
        return self._numbers

    def logits(self, context: Context) -> Floats:
        """A context's logits, `[vocab]`."""
        work = Work(context, number=self.number())
        self.wait([work])
        if work.error is not None:
            raise work.error
        assert work.logits is not None
        return work.logits

    def wait(self, works: Sequence[Work]) -> None:
        """Return when at least one of the works is done. Those that are not stay in the queue."""
        with self._changed:
            for work in works:
                if not work.done and work not in self._waiting:
                    self._waiting.append(work)
                    if work.drawing is not None:
                        self._expected.pop(work.drawing.number, None)
            self._changed.notify_all()
        try:
            while self._lead_or_wait(works):
                self._lead()
        except BaseException:
            self.withdraw(works)
            raise

    def withdraw(self, works: Sequence[Work]) -> None:
        """Take works out of the queue."""
        with self._changed:
            self._waiting = [work for work in self._waiting if work not in works]

    def finished(self, drawing: Drawing) -> None:
        """A generation has ended. When nothing else runs, the slots are counted."""
        with self._changed:
            self._expected.pop(drawing.number, None)
            idle = not self._waiting and not self._stepping
        if idle:
            self._engine.check()

    def _lead_or_wait(self, works: Sequence[Work]) -> bool:
        """True when this thread shall run a step; False when one of the works is done."""
        with self._changed:
            while not any(work.done for work in works):
                if not self._stepping:
                    self._stepping = True
                    self._gather()
                    return True
                self._changed.wait()
            return False

    def _gather(self) -> None:
        """Wait a moment for the other threads whose tokens came with the last step: they mostly want another."""
        me = threading.get_ident()
        if any(thread != me for thread in self._expected.values()):
            self._changed.wait_for(
                lambda: all(thread == me for thread in self._expected.values()),
                timeout=min(_GATHER_SECONDS, _GATHER_SHARE * self._last_seconds),
            )
        self._expected.clear()

    def _lead(self) -> None:
        began = time.perf_counter()
        waiting = self._waiting.copy()
        try:
            with self._engine.lock:
                self._step(waiting)
        finally:
            self._last_seconds = time.perf_counter() - began
            self._engine.totals.step_seconds += self._last_seconds
            self._engine.totals.steps += 1
            with self._changed:
                self._stepping = False
                for work in waiting:
                    if work.done and work.drawing is not None:
                        self._expected[work.drawing.number] = work.thread
                self._waiting = [work for work in self._waiting if not work.done]
                self._changed.notify_all()

    def _step(self, waiting: list[Work]) -> None:
        works = [work for work in sorted(waiting, key=attrgetter("order")) if self._wanted(work)]
        ready = [work for work in works if work.context.cache.logits is not None]
        for work in ready:
            work.logits = work.context.cache.logits
        rest = [work for work in works if work not in ready]
        if self._engine.recurrent is not None:
            ready += [work for work in rest if self._read(work)]
            rest = []
        try:
            plan = self._plan(rest)
            flat = [(work, segment) for work, segments in plan for segment in segments]
            batch = Batch(self._engine.pool, [segment for _, segment in flat]) if flat else None
            read = [flat[at][0] for at in batch.wanted] if batch is not None else []
            complete = ready + read
            drawing = [work for work in complete if work.drawing is not None]
            masks = self._chooser.masks_ahead(drawing)
            if batch is not None:
                logits = self._forward(batch, read)
            for work, _ in plan:
                work.context.cache.settle(work.logits)
        except BaseException as fault:
            for work in rest:
                work.context.cache.unclaim()
            if not isinstance(fault, Exception):
                raise
            for work in rest:
                _end(work, _out_of_memory(fault, self._engine) if isinstance(fault, torch.OutOfMemoryError) else fault)
            return  # those that were ready stay in the queue
        if drawing:
            if drawing != read:
                logits = np.stack([work.logits for work in drawing if work.logits is not None])
            self._chooser.choose(drawing, logits, masks)
        for work in complete:
            _end(work, work.error)

    def _read(self, work: Work) -> bool:
        """Logits of a model with a recurrent state: one context after the other."""
        began = time.perf_counter()
        try:
            work.logits = work.context.encode_states()
        except Exception as fault:
            _end(work, fault)
        self._engine.totals.forward_seconds += time.perf_counter() - began
        return not work.done

    def _wanted(self, work: Work) -> bool:
        if work.context.closed:
            _end(work, ContextBusy("The context was closed while something waited for it."))
        elif work.drawing is not None and work.drawing.cancelled:
            _end(work)
        return not work.done

    def _plan(self, works: list[Work]) -> list[tuple[Work, list[Segment]]]:
        """What is encoded in this step: short extends first, then long ones as far as the budget goes."""
        plan: list[tuple[Work, list[Segment]]] = []
        budget = self._step_tokens
        for work in sorted(works, key=lambda work: (work.context.cache.missing() > _FEW, work.order)):
            if budget <= 0:
                break
            if self._borrow(work, plan):
                segments = self._claim(work, budget, plan)
                if segments:
                    plan.append((work, segments))
                    budget -= sum(len(segment.ids) for segment in segments)
        if works and not plan and all(not work.done for work in works):
            # Everything that is in the way belongs to contexts that nobody waits for now: they make room.
            plan = [(works[0], segments)] if (segments := self._claim(works[0], self._step_tokens, [], force=True)) else []
        return plan

    def _borrow(self, work: Work, plan: list[tuple[Work, list[Segment]]]) -> bool:
        """Share what another context has encoded of the same beginning. False: wait, for one that encodes it in this step."""
        context = work.context
        if not context.cache.untouched or len(context) < _WORTH_SHARING:
            return True
        ids = context.row.ids[:-1]  # the last token has to be encoded, for its logits
        best, count = None, _WORTH_SHARING - 1
        for other in self._engine.contexts:
            if other is not context and (length := other.cache.fresh_prefix(ids)) > count:
                best, count = other, length
        planned = max((_common(other.context.row.ids, ids) for other, _ in plan), default=0)
        if planned > count:
            return False
        if best is not None:
            context.cache.borrow(best.cache, count)
        return True

    def _claim(self, work: Work, budget: int, plan: list[tuple[Work, list[Segment]]], force: bool = False) -> list[Segment]:
        """Slots for a work, from other contexts if none are free; nothing if it has to wait for them."""
        context = work.context
        context.last_used = self.number()
        while True:
            try:
                return context.cache.claim(budget)
            except SlotsExhausted as fault:
                busy = {planned.context for planned, _ in plan} | {context}
                if (victim := self._victim(work, busy, force)) is not None:
                    victim.cache.evict()
                elif force or len(context) > self._engine.pool.size:
                    _end(work, fault)
                    return []
                else:
                    return []

    def _victim(self, work: Work, busy: set[Context], force: bool) -> Context | None:
        """Who gives way: the lowest priority first, then who has nothing running, then who was used longest ago."""
        found = []
        for context in self._engine.contexts:
            if context in busy or not context.cache.resident:
                continue
            drawing = context.running()
            order = (-context.priority, drawing.number) if drawing is not None else None
            if force or order is None or order > work.order:
                found.append(
                    (context.priority, drawing is not None, context.last_used if order is None else -order[1], context)
                )
        return min(found, key=lambda entry: entry[:3])[3] if found else None

    def _forward(self, batch: Batch, works: list[Work]) -> Floats:
        """Encode a batch; the logits of these works, `[works, vocab]`."""
        totals, pool = self._engine.totals, self._engine.pool
        totals.peak_tokens = max(totals.peak_tokens, pool.size - pool.free)
        began = time.perf_counter()
        logits = self._engine.decoder.forward(batch)
        totals.forward_seconds += time.perf_counter() - began
        batch.settle()
        for work, row in zip(works, logits, strict=True):
            work.logits = row
        return logits


def _end(work: Work, error: BaseException | None = None) -> None:
    work.error = error
    work.done = True


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    stop = min(len(left), len(right))
    return next((at for at in range(stop) if left[at] != right[at]), stop)


def _out_of_memory(fault: Exception, engine: Engine) -> OutOfMemory:
    return OutOfMemory(
        f"The device has no memory left for a forward pass ({first_line(fault)}). The pool takes "
        f"{engine.pool.shape.bytes_per_slot * engine.pool.size / 2**30:.1f} GiB: load the engine with fewer than "
        f"{engine.pool.size} 'slots', or a smaller model or dtype."
    )
