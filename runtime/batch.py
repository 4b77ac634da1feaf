"""One forward pass: the new tokens of any number of contexts, laid end to end, and what each of them sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from kernels import SlotTable, slot_attention
from runtime.arrays import Slots
from runtime.slots import SlotPool


@dataclass(frozen=True)
class Segment:
    """New tokens of one context that stand together, and everything that they see."""

    ids: Sequence[int]
    slots: Slots
    """`[n]`: the slots of what they see, in order; their own are the last."""
    positions: Slots
    """`[n]`: the positions of the same."""
    wanted: bool = True
    """Whether the logits behind its last token are wanted."""


@dataclass
class Group:
    """Segments that one attention call serves: tokens `start` to `stop` of the batch, as many of each."""

    start: int
    stop: int
    tokens: int
    """How many of each segment."""
    segments: Sequence[Segment]
    device: torch.device

    @cached_property
    def lengths(self) -> Slots:
        """How many slots every segment sees, `[rows]`."""
        return np.array([len(segment.slots) for segment in self.segments])

    @cached_property
    def slots(self) -> Slots:
        """What every segment sees, `[rows, n]`; 0 behind its end."""
        return self._padded([segment.slots for segment in self.segments])

    @cached_property
    def positions(self) -> Slots:
        """The positions of the same, `[rows, n]`; 0 behind its end."""
        return self._padded([segment.positions for segment in self.segments])

    @cached_property
    def seen(self) -> slice | Slots:
        """The slots, or a slice where they are those of one row and follow one another: it can be read where it lies."""
        slots = self.slots
        if len(slots) == 1 and slots[0, -1] - slots[0, 0] == slots.shape[1] - 1 and (slots[0, 1:] - slots[0, :-1] == 1).all():
            return slice(int(slots[0, 0]), int(slots[0, -1]) + 1)
        return slots

    @property
    def full(self) -> bool:
        """True when every segment sees `n` slots."""
        return bool(self.lengths.min() == self.lengths.max())

    @cached_property
    def table(self) -> SlotTable:
        """The same on the pool's device."""
        return SlotTable(
            torch.from_numpy(self.slots).to(self.device),
            torch.from_numpy(self.positions).to(self.device),
            torch.from_numpy(self.lengths).to(self.device),
            first=self.seen.start if isinstance(self.seen, slice) else None,
            full=self.full,
        )

    def _padded(self, rows: Sequence[Slots]) -> Slots:
        if len(rows) == 1:
            return rows[0][None]
        table = np.zeros((len(rows), self.lengths.max()), np.int64)
        for line, row in zip(table, rows, strict=True):
            line[: len(row)] = row
        return table


@dataclass
class Host:
    """The new tokens of a batch in the memory of the host, end to end."""

    ids: Slots
    """`[T]`: token ids."""
    slots: Slots
    """`[T]`: where the new keys and values go."""
    positions: Slots
    """`[T]`: their positions."""
    ends: Slots
    """`[wanted]`: the last tokens of the segments whose logits are wanted."""


class Batch:
    """Segments, and the same as tensors on the pool's device. Decodes (one token) share an attention call, others have one each."""

    def __init__(self, pool: SlotPool, segments: Sequence[Segment]) -> None:
        self.pool = pool
        # Shortest first: decodes of like length stand together.
        order = sorted(range(len(segments)), key=lambda at: (len(segments[at].ids), len(segments[at].slots)))
        ordered = [segments[at] for at in order]
        self.wanted = [at for at in order if segments[at].wanted]
        """Which of the given segments' logits are wanted, in the order in which a decoder gives them."""
        self._device = pool.shape.device
        counts = [len(segment.ids) for segment in ordered]
        ends = zip(accumulate(counts), ordered, strict=True)
        self.host = Host(
            np.array([token for segment in ordered for token in segment.ids]),
            _joined([segment.slots[-count:] for segment, count in zip(ordered, counts, strict=True)]),
            _joined([segment.positions[-count:] for segment, count in zip(ordered, counts, strict=True)]),
            np.array([end - 1 for end, segment in ends if segment.wanted], np.int64),
        )
        self.groups = list(_grouped(ordered, self._device))

    def __len__(self) -> int:
        """How many tokens are encoded."""
        return len(self.host.ids)

    @cached_property
    def ids(self) -> Tensor:
        """Token ids, int64 `[T]`."""
        return torch.from_numpy(self.host.ids).to(self._device)

    @cached_property
    def slots(self) -> Tensor:
        """Where the new keys and values go, int64 `[T]`."""
        return torch.from_numpy(self.host.slots).to(self._device)

    @cached_property
    def positions(self) -> Tensor:
        """Their positions, int64 `[T]`."""
        return torch.from_numpy(self.host.positions).to(self._device)

    @cached_property
    def ends(self) -> Tensor:
        """The last tokens of the segments whose logits are wanted, int64 `[wanted]`."""
        return torch.from_numpy(self.host.ends).to(self._device)

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        sliding_window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Store the new keys and values `[T, kv_heads, head_dim]`, and let the queries `[T, heads, head_dim]` read."""
        pool = self.pool
        pool.write(layer, self.slots, keys, values)
        outs = []
        for group in self.groups:
            out = slot_attention(
                query[group.start : group.stop].view(-1, group.tokens, *query.shape[1:]),
                *pool.layers[layer],
                group.table,
                scale=scale,
                sliding_window=sliding_window,
                softcap=softcap,
                sinks=sinks,
            )
            outs.append(out.flatten(0, 1))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def settle(self) -> None:
        """After the forward: note in the pool which positions the new keys stand for."""
        self.pool.positions[self.host.slots] = self.host.positions


def _joined(parts: Sequence[Slots]) -> Slots:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _grouped(ordered: Sequence[Segment], device: torch.device) -> Iterator[Group]:
    at = begin = 0
    while at < len(ordered):
        tokens = len(ordered[at].ids)
        stop = _like_lengths(ordered, at) if tokens == 1 else at + 1
        end = begin + tokens * (stop - at)
        yield Group(begin, end, tokens, ordered[at:stop], device)
        at, begin = stop, end


def _like_lengths(ordered: Sequence[Segment], at: int) -> int:
    """How far decodes can share a table without reading more padding than tokens."""
    total, stop = 0, at
    while stop < len(ordered) and len(ordered[stop].ids) == 1:
        length = len(ordered[stop].slots)
        total += length
        if length * (stop + 1 - at) > 2 * total + 64:
            break
        stop += 1
    return stop
