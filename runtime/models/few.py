"""The lean forward for few tokens on a CPU, in numpy.

What a few tokens compute is so little that most of a forward in torch goes into the calls: about 60 a layer, at two to ten microseconds.
Those of numpy cost a third. Only the products with weights are torch's, of which two cores have more than the call. (benchmarks/runtime.py)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from kernels import slot_attention
from runtime.arrays import Floats
from runtime.batch import Batch, Group
from runtime.models.layer import Layer
from runtime.models.matrix import Matrix
from runtime.models.norm import Norm

# A product of more multiplications than this is cut up by the BLAS of numpy, whose threads and those of torch wait for each other.
_SMALL = 2**18


class Few:
    """Runs the layers of a lean decoder, whose weights are float32 and on the CPU, for batches of few tokens."""

    def __init__(
        self,
        embedding: Tensor,
        frequencies: Tensor,
        turn_scale: float,
        layers: Sequence[Layer],
        norm: Norm,
        head: Matrix,
        heads: int,
    ) -> None:
        self._embedding: Floats = embedding.numpy()
        self._frequencies: Floats = frequencies.numpy()
        self._turn_scale = np.float32(turn_scale)
        self._layers, self._norm, self._head, self._heads = layers, norm, head, heads

    def forward(self, batch: Batch) -> Floats:
        """Logits behind the tokens where they are wanted, float32 `[wanted, vocab]`."""
        with np.errstate(all="ignore"):  # what overflows ends as it does in torch
            x: Floats = self._embedding.take(batch.host.ids, 0)
            cos, sin = self._turns(batch.host.positions.astype(np.float32))
            masks: dict[int | None, list[Floats | None]] = {}
            for layer in self._layers:
                window = layer.sliding_window
                if window not in masks:
                    masks[window] = [_mask(group, window) if group.tokens == 1 else None for group in batch.groups]
                x = self._attention(layer, x, cos, sin, batch, masks[window])
                x = x + layer.down.few(_gated(layer.gate_up.few(layer.mlp_norm.few(x))))
            x = x if len(batch.wanted) == len(x) else x[batch.host.ends]
            return self._head.few(self._norm.few(x)) if len(x) else np.empty((0, len(self._embedding)), np.float32)

    def _turns(self, positions: Floats) -> tuple[Floats, Floats]:
        """Cosines, and sines with the sign of each half, `[T, 1, head_dim]`."""
        angles = positions[:, None, None] * self._frequencies
        cos, sin = np.cos(angles) * self._turn_scale, np.sin(angles) * self._turn_scale
        return np.concatenate((cos, cos), 2), np.concatenate((-sin, sin), 2)

    def _attention(
        self, layer: Layer, x: Floats, cos: Floats, sin: Floats, batch: Batch, masks: Sequence[Floats | None]
    ) -> Floats:
        keys, values = batch.pool.arrays[layer.index]
        kv_heads, width = keys.shape[1:]
        joined = layer.qkv.few(layer.input_norm.few(x)).reshape(len(x), -1, width)
        turned = joined[:, :-kv_heads]
        if layer.head_norm is not None:
            turned = layer.head_norm.few(turned)
        if layer.rotated:
            half = width // 2
            swapped = np.concatenate((turned[..., half:], turned[..., :half]), 2)
            turned = turned * cos + swapped * sin
        query = turned[:, : self._heads]
        keys[batch.host.slots], values[batch.host.slots] = turned[:, self._heads :], joined[:, -kv_heads:]
        outs = []
        for group, mask in zip(batch.groups, masks, strict=True):
            own = query[group.start : group.stop]
            if group.tokens == 1 and own[0].size // kv_heads * group.slots.shape[1] <= _SMALL:
                outs.append(_attend(own, group, keys, values, mask, np.float32(layer.scale)))
            else:
                queries = torch.from_numpy(own).view(-1, group.tokens, *own.shape[1:])
                pools, window = batch.pool.layers[layer.index], layer.sliding_window
                out = slot_attention(queries, *pools, group.table, scale=layer.scale, sliding_window=window)
                outs.append(out.reshape(len(own), -1).numpy())
        return x + layer.out.few(outs[0] if len(outs) == 1 else np.concatenate(outs))


def _gated(joined: Floats) -> Floats:
    """SiLU of the first half of the numbers times the second."""
    half = joined.shape[1] // 2
    gate, up = joined[:, :half], joined[:, half:]
    gate = silu(torch.from_numpy(gate)).numpy() if len(joined) > 1 else gate / (1 + np.exp(-gate))
    gate *= up
    return gate


def _attend(query: Floats, group: Group, keys: Floats, values: Floats, mask: Floats | None, scale: np.float32) -> Floats:
    """What single tokens `[rows, heads, head_dim]` read, `[rows, heads * head_dim]`."""
    seen = group.seen
    if isinstance(seen, slice):
        keys, values = keys[None, seen], values[None, seen]  # [rows, n, kv_heads, head_dim]
    else:
        keys, values = keys.take(seen, 0), values.take(seen, 0)
    # The heads that share a key head become queries of one matrix: [rows, kv_heads, group, head_dim].
    grouped = query.reshape(len(query), keys.shape[2], -1, query.shape[2])
    scores: Floats = np.matmul(grouped, keys.transpose(0, 2, 3, 1))
    scores *= scale
    if mask is not None:
        scores += mask
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    out: Floats = np.matmul(scores, values.swapaxes(1, 2)) / scores.sum(-1, keepdims=True)
    return out.reshape(len(query), -1)


def _mask(group: Group, sliding_window: int | None) -> Floats | None:
    """What is added to the scores of single tokens, `[rows, 1, 1, n]`: -inf for what a row does not see; None: it sees everything."""
    if group.full and sliding_window is None:
        return None
    last = group.lengths[:, None] - 1
    hidden = np.arange(group.slots.shape[1]) > last
    if sliding_window is not None:
        hidden |= np.take_along_axis(group.positions, last, 1) - group.positions >= sliding_window
    return np.where(hidden, np.float32(-np.inf), np.float32(0))[:, None, None]
