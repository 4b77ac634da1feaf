"""Our attention under Hugging Face modules: new keys and values go to their slots, queries read through the slot row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from kernels import extend_attention
from runtime.slots import SlotPool

NAME = "slots"


@dataclass(frozen=True)
class Extend:
    """One forward pass that appends tokens to a context: where they are written and what they see."""

    pool: SlotPool
    slots: Tensor
    """`[N]` int64: the slots of all tokens of the context, the new ones at the end."""


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    extend: Extend,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that `AttentionInterface` calls after the rotary embedding: query `[1, heads, T, head_dim]`."""
    layer, pool = int(module.layer_idx), extend.pool  # type: ignore[arg-type]
    pool.write(layer, extend.slots[-key.shape[2] :], key[0].transpose(0, 1), value[0].transpose(0, 1))
    out = extend_attention(
        query[0].transpose(0, 1),
        pool.keys[layer],
        pool.values[layer],
        extend.slots,
        scale=scaling,
        sliding_window=sliding_window,
    )
    return out[None], None


# No mask is registered under this name, so that transformers builds none: the slot row says what is seen.
AttentionInterface.register(NAME, _attend)
