"""Attention over slots equals a plain sum in float64, wherever the slots lie."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import extend_attention


def reference(query, keys, values, scale, window):
    """Softmax attention written out, float64."""
    tokens, heads, _ = query.shape
    total, kv_heads = keys.shape[:2]
    out = torch.empty_like(query, dtype=torch.float64)
    for row in range(tokens):
        position = total - tokens + row
        first = 0 if window is None else max(0, position - window + 1)
        for head in range(heads):
            kv = head // (heads // kv_heads)
            scores = keys[first : position + 1, kv].double() @ query[row, head].double() * scale
            out[row, head] = scores.softmax(0) @ values[first : position + 1, kv].double()
    return out


@settings(deadline=None, max_examples=60)
@given(
    before=st.integers(0, 40),
    tokens=st.integers(1, 9),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    window=st.none() | st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_equals_the_sum_written_out(before, tokens, kv_heads, group, window, seed):
    generator = torch.Generator().manual_seed(seed)
    head_dim, total = 8, before + tokens
    query = torch.randn(tokens, kv_heads * group, head_dim, generator=generator)
    key_pool = torch.full((100, kv_heads, head_dim), float("nan"))
    value_pool = key_pool.clone()
    slots = torch.randperm(99, generator=generator)[:total] + 1
    key_pool[slots] = torch.randn(total, kv_heads, head_dim, generator=generator)
    value_pool[slots] = torch.randn(total, kv_heads, head_dim, generator=generator)

    out = extend_attention(query, key_pool, value_pool, slots, scale=0.3, sliding_window=window)

    expected = reference(query, key_pool[slots], value_pool[slots], 0.3, window)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
