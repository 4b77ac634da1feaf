"""Which slots of a pool every row of a batch reads, and from which positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class SlotTable:
    """The keys that a batch of rows sees. A row is a context, or the part of one that its new tokens may see.

    The new tokens of a row are its last ones: each sees those before it in the row, and itself.
    """

    slots: Tensor
    """`[rows, width]` int64: where in the pool each token of a row lies, in order; 0 behind a row's end, where finite
    numbers must lie."""
    positions: Tensor
    """`[rows, width]` int64: the position of each; anything behind a row's end."""
    lengths: Tensor
    """`[rows]` int64: how many tokens each row has."""
    first: int | None = None
    """Of a single row whose slots follow one another: the first. It is read where it lies, nothing is gathered."""
    full: bool = True
    """True when every row is `width` long."""
    _masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)

    def gather(self, pool: Tensor) -> Tensor:
        """The keys or values of every row, `[rows, width, kv_heads, head_dim]`, from a layer's `[slots, kv_heads, head_dim]`."""
        if self.first is not None:
            return pool[self.first : self.first + self.slots.shape[1]][None]
        # Six times as fast on a CPU as `pool[self.slots]`.
        return pool.index_select(0, self.slots.flatten()).view(*self.slots.shape, *pool.shape[1:])

    def mask(self, queries: int, sliding_window: int | None) -> Tensor | None:
        """What the last `queries` tokens of every row see, bool `[rows, queries, width]`; None: everything.

        Worked out once for all layers that share a window. The window counts positions: one more than the distance.
        """
        if (queries, sliding_window) not in self._masks:
            self._masks[queries, sliding_window] = self._mask(queries, sliding_window)
        return self._masks[queries, sliding_window]

    def _mask(self, queries: int, sliding_window: int | None) -> Tensor | None:
        if queries == 1 and self.full and sliding_window is None:
            return None
        width = self.slots.shape[1]
        column = torch.arange(width, device=self.slots.device)
        query = self.lengths[:, None] - queries + torch.arange(queries, device=self.slots.device)  # [rows, queries]
        mask = column <= query[..., None]
        if sliding_window is not None:
            at = self.positions.gather(1, query.clamp(min=0))
            mask &= at[..., None] - self.positions[:, None] < sliding_window
        return mask
