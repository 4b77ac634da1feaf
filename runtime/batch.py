"""One forward pass: the new tokens of any number of contexts, laid end to end, and what each of them sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from kernels import SlotTable, slot_attention
from runtime.slots import SlotPool, Slots


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

    @cached_property
    def seen(self) -> slice | Slots:
        """The slots again; as a slice where they follow one another, so that they can be read where they lie."""
        first = int(self.slots[0])
        if self.slots[-1] - first == len(self.slots) - 1 and (self.slots[1:] - self.slots[:-1] == 1).all():
            return slice(first, first + len(self.slots))
        return self.slots


@dataclass(frozen=True)
class _Group:
    """Segments that one attention call serves: tokens `start` to `stop` of the batch."""

    start: int
    stop: int
    table: SlotTable


class Batch:
    """Segments as tensors, on the pool's device. Decodes (one token) share an attention call, other segments have one each."""

    def __init__(self, pool: SlotPool, segments: Sequence[Segment]) -> None:
        self.pool = pool
        # Shortest first: decodes of like length stand together.
        order = sorted(range(len(segments)), key=lambda at: (len(segments[at].ids), len(segments[at].slots)))
        self.segments = [segments[at] for at in order]
        self.wanted = [at for at in order if segments[at].wanted]
        """Which of the given segments' logits are wanted, in the order in which a decoder gives them."""
        self._device = pool.shape.device
        self._counts = [len(segment.ids) for segment in self.segments]
        new = [
            (segment.slots[-count:], segment.positions[-count:])
            for segment, count in zip(self.segments, self._counts, strict=True)
        ]
        self._new_slots = _joined([slots for slots, _ in new])
        self._new_positions = _joined([positions for _, positions in new])

    def __len__(self) -> int:
        """How many tokens are encoded."""
        return len(self._new_slots)

    @cached_property
    def ids(self) -> Tensor:
        """Token ids, int64 `[T]`."""
        return torch.tensor([token for segment in self.segments for token in segment.ids], device=self._device)

    @cached_property
    def slots(self) -> Tensor:
        """Where the new keys and values go, int64 `[T]`."""
        return torch.from_numpy(self._new_slots).to(self._device)

    @cached_property
    def positions(self) -> Tensor:
        """Their positions, int64 `[T]`."""
        return torch.from_numpy(self._new_positions).to(self._device)

    @cached_property
    def ends(self) -> Tensor:
        """The last tokens of the segments whose logits are wanted, int64 `[wanted]`."""
        ends = accumulate(self._counts)
        last = [end - 1 for end, segment in zip(ends, self.segments, strict=True) if segment.wanted]
        return torch.tensor(last, dtype=torch.long, device=self._device)

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
        for group in self._groups:
            rows = group.table.slots.shape[0]
            out = slot_attention(
                query[group.start : group.stop].view(rows, -1, *query.shape[1:]),
                *pool.layers[layer],
                group.table,
                scale=scale,
                sliding_window=sliding_window,
                softcap=softcap,
                sinks=sinks,
            )
            outs.append(out.flatten(0, 1))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    @cached_property
    def _groups(self) -> list[_Group]:
        groups: list[_Group] = []
        at = begin = 0
        while at < len(self.segments):
            stop = _like_lengths(self.segments, at) if self._counts[at] == 1 else at + 1
            end = begin + sum(self._counts[at:stop])
            groups.append(_Group(begin, end, _table(self.segments[at:stop], self._device)))
            at, begin = stop, end
        return groups

    def settle(self) -> None:
        """After the forward: note in the pool which positions the new keys stand for."""
        self.pool.positions[self._new_slots] = self._new_positions


def _joined(parts: Sequence[Slots]) -> Slots:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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


def _table(segments: Sequence[Segment], device: torch.device) -> SlotTable:
    lengths = [len(segment.slots) for segment in segments]
    width = max(lengths)
    first = None
    if len(segments) == 1:
        slots, positions = segments[0].slots[None], segments[0].positions[None]
        if isinstance(seen := segments[0].seen, slice):
            first = seen.start
    else:
        slots, positions = np.zeros((2, len(segments), width), np.int64)
        for row, segment in enumerate(segments):
            slots[row, : len(segment.slots)] = segment.slots
            positions[row, : len(segment.slots)] = segment.positions
    return SlotTable(
        torch.from_numpy(slots).to(device),
        torch.from_numpy(positions).to(device),
        torch.tensor(lengths, device=device),
        first=first,
        full=min(lengths) == width,
    )
