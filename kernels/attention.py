"""Attention of new queries over cached keys and values that lie anywhere in a slot pool (torch reference)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.slot_table import SlotTable


def slot_attention(
    query: Tensor,
    key_pool: Tensor,
    value_pool: Tensor,
    table: SlotTable,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal attention of the last T tokens of every row over the tokens of that row.

    Args:
        query: `[rows, T, heads, head_dim]`, after rotary embedding.
        key_pool, value_pool: `[slots, kv_heads, head_dim]`, the keys and values of one layer, same dtype as `query`; those of the
            new tokens included. The heads of a group share one key head.
        table: which of them every row sees.
        scale: factor on the dot products.
        sliding_window: a query sees keys less than this many positions before it; None: all.
        softcap: scores s become softcap * tanh(s / softcap) (Gemma 2, section 2).
        sinks: `[heads]`, for every head one more score, whose probability goes nowhere (GPT-OSS).

    Returns:
        `[rows, T, heads, head_dim]` in the dtype of `query`.
    """
    rows, tokens, heads, head_dim = query.shape
    keys, values = table.gather(key_pool), table.gather(value_pool)
    kv_heads, group = keys.shape[2], heads // keys.shape[2]
    # The heads of a group become more queries of one head: [rows, kv_heads, group * tokens, head_dim].
    grouped = query.view(rows, tokens, kv_heads, group, head_dim)
    grouped = grouped.permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, -1, head_dim) if tokens > 1 else grouped[:, 0]
    mask = table.mask(tokens, sliding_window)
    if mask is not None:
        mask = mask[:, None].repeat(1, 1, group, 1) if tokens > 1 else mask[:, None]
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    if softcap is None and sinks is None:
        out = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    else:
        more = None if sinks is None else sinks.view(kv_heads, group, 1).expand(-1, -1, tokens).reshape(1, kv_heads, -1, 1)
        out = _weighted(grouped, keys, values, mask, scale, softcap, more)
    if tokens > 1:
        out = out.view(rows, kv_heads, group, tokens, head_dim).permute(0, 3, 1, 2, 4)
    return out.reshape(rows, tokens, heads, head_dim)


def _weighted(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention step by step, for scores that are changed before the softmax."""
    scores = (query @ keys.transpose(2, 3)).float() * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.float().expand(scores.shape[0], -1, -1, -1)], -1)
    weights = scores.softmax(-1)[..., : keys.shape[2]]
    return weights.to(values.dtype) @ values
