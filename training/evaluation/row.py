"""A line of the evaluation table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Track = Callable[[str, int], Callable[[], None]]
"""`track("what", total)` begins a progress bar and gives a function that advances it by one."""


@dataclass(frozen=True)
class Row:
    """`value` is what was reached, `aim` what was wanted (None: no aim was set), `count` how many cases it rests on."""

    section: str
    name: str
    value: float
    count: int
    aim: float | None = None
    unit: str = "%"

    @property
    def met(self) -> bool:
        return self.aim is None or (self.value <= self.aim if self.unit == "tokens" else self.value >= self.aim)


def share(section: str, name: str, hits: Sequence[bool], aim: float | None = None) -> Row:
    """The share of cases that went right, in per cent."""
    return Row(section, name, 100 * sum(hits) / max(1, len(hits)), len(hits), aim)
