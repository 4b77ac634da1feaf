"""The next token of everything that draws in a step: what its grammar allows, the draw, and how likely the token was."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from runtime.arrays import Bools, Floats
from runtime.errors import EngineError
from runtime.sampler import describe, draw
from runtime.work import Drawing, Work

if TYPE_CHECKING:
    from runtime.engine import Engine


class Chooser:
    """Chooses for all works of a step together, each of which has something that draws.

    A greedy draw goes without a mask at first. A model that was trained on what its grammar allows hardly ever wants anything else,
    and to ask whether one token is allowed takes a hundredth of the time that it takes to find all that are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def masks_ahead(self, works: Sequence[Work]) -> Callable[[], Bools] | None:
        """Begin to work out what the grammars allow of which that has to be known: it hides behind the forward."""
        grammars = [None if _goes_first(work.running) else work.running.grammar for work in works]
        if all(grammar is None for grammar in grammars):
            return None
        began = time.perf_counter()
        masks = self._engine.grammars.masks_ahead(grammars)
        self._engine.totals.mask_seconds += time.perf_counter() - began
        return masks

    def choose(self, works: Sequence[Work], logits: Floats, masks: Callable[[], Bools] | None) -> None:
        """Give every work its token, or the error that stands in its way.

        Args:
            logits: `[works, vocab]`.
            masks: what `masks_ahead` gave for the same works.
        """
        self._choose(works, logits, masks)
        strayed = [row for row, work in enumerate(works) if _goes_first(work.running) and not _allowed(work)]
        if strayed:
            again = [works[row] for row in strayed]
            grammars = [work.running.grammar for work in again]
            self._choose(again, logits[strayed], lambda: self._engine.grammars.masks(grammars))

    def _choose(self, works: Sequence[Work], logits: Floats, masks: Callable[[], Bools] | None) -> None:
        began = time.perf_counter()
        allowed = masks() if masks is not None else None
        if allowed is not None:
            for row, work in zip(allowed, works, strict=True):
                if work.running.only is not None:
                    row &= work.running.only
        masked = time.perf_counter()
        try:
            _draw(works, logits, allowed)
        except EngineError:  # of one row, say: the others must not suffer
            for row, work in enumerate(works):
                _draw_alone(work, logits[row : row + 1], allowed[row : row + 1] if allowed is not None else None)
        self._engine.totals.mask_seconds += masked - began
        self._engine.totals.sampling_seconds += time.perf_counter() - masked


def _goes_first(drawing: Drawing) -> bool:
    """Whether it draws before anybody has worked out what is allowed."""
    return drawing.grammar is not None and drawing.sampler.greedy


def _allowed(work: Work) -> bool:
    """Whether the token that was drawn without a mask can stay. (The end of the text is for the mask to judge.)"""
    drawing, token = work.running, work.token
    if work.error is not None or token is None or drawing.grammar is None:
        return True
    return (drawing.only is None or bool(drawing.only[token])) and drawing.grammar.allows([token])


def _draw(works: Sequence[Work], logits: Floats, allowed: Bools | None) -> None:
    samplers = [work.running.sampler for work in works]
    tokens = draw(logits, samplers, allowed)
    for work, token in zip(works, tokens, strict=True):
        work.token = token
    rows = [row for row, work in enumerate(works) if work.running.described]
    if rows:
        seen = logits if len(rows) == len(works) else logits[rows]
        choices = describe(seen, [tokens[row] for row in rows], [samplers[row] for row in rows])
        for row, choice in zip(rows, choices, strict=True):
            works[row].choice = choice


def _draw_alone(work: Work, logits: Floats, allowed: Bools | None) -> None:
    try:
        if work.running.grammar is not None:
            work.running.grammar.check()
        _draw([work], logits, allowed)
    except EngineError as fault:
        work.error = fault
