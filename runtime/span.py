"""A handle on a run of tokens in a context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.context import Context


@dataclass(eq=False)
class Span:
    """Tokens `start` to `stop` (exclusive) of a context. The context moves it as text before it comes and goes."""

    context: Context
    start: int
    stop: int
    alive: bool = True
    """False once its tokens were dropped or replaced."""

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def token_ids(self) -> list[int]:
        return self.context.token_ids[self.start : self.stop] if self.alive else []

    @property
    def text(self) -> str:
        return self.context.engine.decode(self.token_ids)
