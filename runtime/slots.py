"""The slot pool: one key and one value per token and layer, anywhere in two tensors, counted by their owners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from runtime.errors import SlotsExhausted


class SlotPool:
    """Keys and values of every layer, `[layers, slots, kv_heads, head_dim]` each, addressed token by token.

    Slot 0 is a dummy for padding and is never handed out. A slot belongs to as many contexts as share it; it is free
    again when the last one lets it go. Nothing is ever moved. (Page size one: TIMRUN, section 3 of the paper.)
    """

    def __init__(self, layers: int, slots: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size = slots
        self.keys = torch.empty(layers, slots + 1, kv_heads, head_dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)
        self._owners = [0] * (slots + 1)
        self._free = list(range(slots, 0, -1))

    @property
    def free(self) -> int:
        """How many slots nobody owns."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """`count` free slots, owned once. Raises `SlotsExhausted` and takes none if there are fewer."""
        if count > len(self._free):
            raise SlotsExhausted(
                f"{count} tokens have to be encoded but only {len(self._free)} of the engine's {self.size} slots are free: "
                f"drop spans, close other contexts, or load the engine with a larger 'slots'."
            )
        taken = [self._free.pop() for _ in range(count)]
        for slot in taken:
            self._owners[slot] = 1
        return taken

    def share(self, slots: Iterable[int]) -> None:
        """Count one more owner of each slot."""
        for slot in slots:
            assert self._owners[slot] > 0, "a free slot cannot be shared"
            self._owners[slot] += 1

    def release(self, slots: Iterable[int]) -> None:
        """Count one owner less of each slot; the last one frees it."""
        for slot in slots:
            assert self._owners[slot] > 0, "a slot was released twice"
            self._owners[slot] -= 1
            if self._owners[slot] == 0:
                self._free.append(slot)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values `[T, kv_heads, head_dim]` of new tokens in `slots` (`[T]`, int64)."""
        self.keys[layer].index_copy_(0, slots, keys)
        self.values[layer].index_copy_(0, slots, values)

    def check(self, rows: Sequence[Sequence[int]]) -> None:
        """Assert that exactly the slots of these contexts are owned, each as often as it occurs."""
        expected = [0] * (self.size + 1)
        for row in rows:
            for slot in row:
                expected[slot] += 1
        assert self._owners == expected, "a slot has leaked, or is owned by nobody"
        assert sorted(self._free) == [slot for slot in range(1, self.size + 1) if expected[slot] == 0], "the free list is wrong"
