"""Attention of new queries over cached keys and values that lie anywhere in a slot pool (torch reference)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def extend_attention(
    query: Tensor,
    key_pool: Tensor,
    value_pool: Tensor,
    slots: Tensor,
    *,
    scale: float,
    sliding_window: int | None = None,
) -> Tensor:
    """Causal attention of the last T tokens of a context over all its N tokens.

    Args:
        query: `[T, heads, head_dim]`, after rotary embedding; the queries of tokens N-T .. N-1.
        key_pool, value_pool: `[pool, kv_heads, head_dim]`, the keys and values of one layer, same dtype as `query`.
        slots: `[N]` int64, where in the pool each token of the context lies, in order; the new tokens included.
        scale: factor on the dot products.
        sliding_window: how many tokens, itself included, a query sees at most; None: all.

    Returns:
        `[T, heads, head_dim]` in the dtype of `query`.
    """
    tokens, heads, head_dim = query.shape
    total, kv_heads = slots.numel(), key_pool.shape[1]
    group = heads // kv_heads
    keys = key_pool[slots].transpose(0, 1)  # [kv_heads, N, head_dim]
    values = value_pool[slots].transpose(0, 1)
    mask = None
    if tokens > 1 or (sliding_window is not None and total > sliding_window):
        distance = torch.arange(total - tokens, total, device=query.device)[:, None] - torch.arange(total, device=query.device)
        mask = distance >= 0
        if sliding_window is not None:
            mask &= distance < sliding_window
    # The heads of a group share one key head: as extra query rows when there is one token, by repetition when there are many.
    if tokens == 1:
        grouped = query.view(kv_heads, group, head_dim)
        out = scaled_dot_product_attention(grouped[None], keys[None], values[None], attn_mask=mask, scale=scale)
        return out.reshape(1, heads, head_dim)
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    out = scaled_dot_product_attention(query.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=scale)
    return out[0].transpose(0, 1)
