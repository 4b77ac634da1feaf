"""The slot pool: one key and one value per token and layer, anywhere in two tensors, counted by their owners."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kernels import rotate_keys
from runtime.arrays import Bools, Floats, Slots
from runtime.errors import SlotsExhausted

_WINDOW = 4096  # slots looked at in one go when free ones are wanted
_ROOM = 64  # slots left free behind those that are handed out, for what follows them


@dataclass(frozen=True)
class PoolShape:
    """What a model keeps of a token."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_slot(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize


class SlotPool:
    """Keys and values of every layer, `[layers, slots, kv_heads, head_dim]` each, addressed token by token.

    Slot 0 is a dummy for padding and is never handed out. A slot belongs to as many contexts as share it; it is free
    again when the last one lets it go. Nothing is ever moved. (Page size one: TIMRUN, section 3 of the paper.)
    """

    def __init__(self, shape: PoolShape, slots: int) -> None:
        self.shape = shape
        self.size = slots
        self.keys = torch.empty(shape.layers, slots + 1, shape.kv_heads, shape.head_dim, dtype=shape.dtype, device=shape.device)
        self.values = torch.empty_like(self.keys)
        self.layers = tuple(zip(self.keys.unbind(), self.values.unbind(), strict=True))
        """The same, layer by layer: keys and values `[slots, kv_heads, head_dim]`."""
        self.keys[:, 0] = self.values[:, 0] = 0  # what is masked counts nothing, but a NaN times nothing would be a NaN
        self.positions: Slots = np.zeros(slots + 1, np.int64)
        """The position that each slot's key stands for."""
        self._owners = np.zeros(slots + 1, np.int32)
        self._owners[0] = 1
        self._free = slots
        self._next = 1
        self._abandoned: deque[Slots] = deque()

    @cached_property
    def arrays(self) -> list[tuple[Floats, Floats]]:
        """`layers` as arrays of numpy, for a pool of float32 on the CPU."""
        return [(keys.numpy(), values.numpy()) for keys, values in self.layers]

    @property
    def free(self) -> int:
        """How many slots nobody owns."""
        self._collect()
        return self._free

    def take(self, count: int, behind: int = 0) -> Slots:
        """`count` free slots, owned once; those that follow slot `behind` if they are free.

        Raises:
            SlotsExhausted: there are fewer, and none was taken.
        """
        self._collect()
        if count > self._free:
            raise SlotsExhausted(
                f"{count} tokens have to be encoded but only {self._free} of the engine's {self.size} slots are free: "
                f"drop spans, close other contexts, or load the engine with a larger 'slots'."
            )
        if count == 1 and 0 < behind < self.size and not self._owners[behind + 1]:  # at every step of a generation
            self._owners[behind + 1] = 1
            self._free -= 1
            return np.array([behind + 1])
        following = self._owners[behind + 1 : behind + 1 + count]
        if behind and len(following) == count and not following.any():
            taken = np.arange(behind + 1, behind + 1 + count)
        else:
            taken = self._search(count)
        self._owners[taken] = 1
        self._free -= count
        return taken

    def share(self, slots: Slots) -> None:
        """Count one more owner of each slot (all different; 0 is passed over)."""
        slots = slots[slots > 0]
        assert (self._owners[slots] > 0).all(), "a free slot cannot be shared"
        self._owners[slots] += 1

    def release(self, slots: Slots) -> None:
        """Count one owner less of each slot (all different; 0 is passed over); the last one frees it."""
        slots = slots[slots > 0]
        owners = self._owners[slots] - 1
        assert (owners >= 0).all(), "a slot was released twice"
        self._owners[slots] = owners
        self._free += int((owners == 0).sum())

    def abandon(self, slots: Slots) -> None:
        """Release soon: for the garbage collector, which may come at any moment and in any thread."""
        self._abandoned.append(slots)

    def shared(self, slots: Slots) -> Bools:
        """Which of the slots have more than one owner."""
        return self._owners[slots] > 1

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values `[T, kv_heads, head_dim]` of new tokens in `slots` (`[T]`, int64)."""
        own_keys, own_values = self.layers[layer]
        own_keys.index_copy_(0, slots, keys)
        own_values.index_copy_(0, slots, values)

    def rotate(self, sources: Slots, targets: Slots, positions: Slots, frequencies: Tensor, *, interleaved: bool) -> None:
        """Write what lies in `sources` into `targets`, turned so that it stands for other positions."""
        source, target = self._index(sources), self._index(targets)
        shifts = torch.from_numpy(positions - self.positions[sources]).to(self.shape.device)
        rotate_keys(self.keys, source, target, shifts, frequencies, interleaved=interleaved)
        self.values[:, target] = self.values[:, source]
        self.positions[targets] = positions

    def read(self, slots: Slots) -> tuple[Tensor, Tensor]:
        """Copies of the keys and values in some slots, `[layers, n, kv_heads, head_dim]` each."""
        index = self._index(slots)
        return self.keys[:, index], self.values[:, index]

    def put(self, slots: Slots, keys: Tensor, values: Tensor, positions: Slots) -> None:
        """Store what `read` gave, which stands for these positions."""
        index = self._index(slots)
        self.keys[:, index] = keys.to(self.keys)
        self.values[:, index] = values.to(self.values)
        self.positions[slots] = positions

    def check(self, rows: Iterable[Slots]) -> None:
        """Assert that exactly the slots in these rows are owned, each as often as it occurs."""
        self._collect()
        expected = np.zeros(self.size + 1, np.int32)
        for row in rows:
            np.add.at(expected, row[row > 0], 1)
        expected[0] = 1
        assert (self._owners == expected).all(), "a slot has leaked, or is owned by nobody"
        assert self._free == int((expected == 0).sum()), "the count of free slots is wrong"

    def _collect(self) -> None:
        while self._abandoned:
            self.release(self._abandoned.popleft())

    def _search(self, count: int) -> Slots:
        """The next free slots behind those that were handed out last, and some room; round again at the end."""
        found: list[Slots] = [np.zeros(0, np.int64)]
        missing = count
        while missing:
            window = self._owners[self._next : self._next + _WINDOW]
            free = np.flatnonzero(window == 0)[:missing] + self._next
            found.append(free)
            missing -= len(free)
            self._next += len(window) if missing else int(free[-1]) + 1 + _ROOM - self._next
            if self._next > self.size:
                self._next = 1
        return np.concatenate(found)

    def _index(self, slots: Slots) -> Tensor:
        return torch.from_numpy(slots).to(self.shape.device)
