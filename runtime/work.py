"""What a context waits for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runtime.arrays import Bools, Floats

if TYPE_CHECKING:
    from runtime.context import Context
    from runtime.grammars.grammar import Grammar
    from runtime.sampler import Choice, Sampler


class Drawing(Protocol):
    """Whatever draws tokens at the end of a context: a generation, or a run of a task tree."""

    number: int
    """Earlier ones go first, among contexts of one priority."""
    sampler: Sampler

    described: bool
    """Whether it wants to know how likely its tokens were."""

    @property
    def grammar(self) -> Grammar | None: ...

    @property
    def only(self) -> Bools | None:
        """`[vocab]`: the tokens that may come next, beside what the grammar says; None: all."""

    @property
    def start(self) -> int:
        """Where in the context what it writes begins."""

    @property
    def cancelled(self) -> bool: ...

    def cancel(self) -> None: ...


@dataclass(eq=False)
class Work:
    """Something that a context waits for: its logits, or with something that draws the next token."""

    context: Context
    drawing: Drawing | None = None
    number: int = 0
    """Earlier works go first, among contexts of one priority."""
    thread: int = field(default_factory=threading.get_ident)
    done: bool = False
    error: BaseException | None = None
    logits: Floats | None = None
    """`[vocab]`; also when the context has lost its slots since."""
    token: int | None = None
    """The token drawn; None if it was cancelled before."""
    choice: Choice | None = None
    """The same with how likely it was, where that is wanted."""

    @property
    def running(self) -> Drawing:
        """What draws; there must be something."""
        assert self.drawing is not None
        return self.drawing

    @property
    def order(self) -> tuple[int, int]:
        return -self.context.priority, self.number
