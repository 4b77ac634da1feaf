"""The short memory: at most twenty sentences, changed only by a bookkeeping that says why."""

from __future__ import annotations

from collections.abc import Sequence

from recurrent_writer.bookkeeping import Bookkeeping

MAX_SENTENCES = 20


def revise(memory: Sequence[str], bookkeeping: Bookkeeping) -> tuple[str, ...]:
    """The memory after the edits: what is kept, in its order, then what was added.

    Where that would be over `MAX_SENTENCES`, the oldest go (they stay in the long memory).
    """
    dropped = {item.number for item in bookkeeping.drop}
    kept = [sentence for number, sentence in enumerate(memory, 1) if number not in dropped]
    return tuple([*kept, *(item.sentence for item in bookkeeping.add)][-MAX_SENTENCES:])
