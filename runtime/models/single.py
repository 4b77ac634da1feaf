"""The lean forward for a single token on a CPU, in numpy.

What one token computes is so little that most of a forward in torch goes into the calls: about 60 a layer, at one to three microseconds.
Those of numpy cost a third. The bundled model needs half the time for a token so. (benchmarks/runtime.py)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from runtime.batch import Batch, Segment
from runtime.models.layer import Layer
from runtime.models.matrix import Floats, Matrix
from runtime.models.norm import Norm
from runtime.slots import SlotPool


class Single:
    """Runs the layers of a lean decoder, whose weights are float32 and on the CPU, for batches of one token."""

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

    def forward(self, batch: Batch) -> Tensor:
        """Logits behind the token, float32 `[1, vocab]`, or `[0, vocab]` if nobody wants them."""
        (segment,) = batch.segments
        with np.errstate(all="ignore"):  # what overflows ends as it does in torch
            x: Floats = self._embedding[segment.ids[0]]
            cos, sin = self._turn(int(segment.positions[-1]))
            for layer in self._layers:
                x = self._attention(layer, x, cos, sin, segment, batch.pool)
                gate, up = np.split(layer.gate_up.single(layer.mlp_norm.single(x)), 2)
                x = x + layer.down.single(up * gate / (1 + np.exp(-gate)))
            logits = torch.from_numpy(self._head.single(self._norm.single(x)))[None]
        return logits if segment.wanted else logits[:0]

    def _turn(self, position: int) -> tuple[Floats, Floats]:
        """Cosines, and sines with the sign of each half, `[head_dim]`."""
        angles = self._frequencies * np.float32(position)
        cos, sin = np.cos(angles) * self._turn_scale, np.sin(angles) * self._turn_scale
        return np.concatenate((cos, cos)), np.concatenate((-sin, sin))

    def _attention(self, layer: Layer, x: Floats, cos: Floats, sin: Floats, segment: Segment, pool: SlotPool) -> Floats:
        keys, values = pool.arrays[layer.index]
        kv_heads, width = keys.shape[1:]
        joined = layer.qkv.single(layer.input_norm.single(x)).reshape(-1, width)
        turned = joined[:-kv_heads]
        if layer.head_norm is not None:
            turned = layer.head_norm.single(turned)
        if layer.rotated:
            half = width // 2
            swapped = np.concatenate((turned[:, half:], turned[:, :half]), 1)
            turned = turned * cos + swapped * sin
        slot = segment.slots[-1]
        keys[slot], values[slot] = turned[self._heads :], joined[-kv_heads:]
        seen = segment.seen
        if isinstance(seen, slice):
            keys, values = keys[seen], values[seen]  # [n, kv_heads, head_dim]
        else:
            keys, values = keys.take(seen, 0), values.take(seen, 0)
        # The heads of a group share a key head: [kv_heads, group, n].
        scores = np.matmul(turned[: self._heads].reshape(kv_heads, -1, width), keys.transpose(1, 2, 0))
        scores *= np.float32(layer.scale)
        if layer.sliding_window is not None:
            far = segment.positions[-1] - segment.positions >= layer.sliding_window
            scores[..., far] = -np.inf
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        out = np.matmul(scores, values.transpose(1, 0, 2)) / scores.sum(-1, keepdims=True)
        return x + layer.out.single(out.reshape(-1))
