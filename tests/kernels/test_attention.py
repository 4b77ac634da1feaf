"""Attention over slots equals a plain sum in float64, wherever the slots lie."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import SlotTable, slot_attention


def reference(query, keys, values, positions, scale, window, softcap, sinks):
    """Softmax attention of a row's last tokens written out, float64."""
    tokens, heads, _ = query.shape
    total, kv_heads = keys.shape[:2]
    out = torch.empty_like(query, dtype=torch.float64)
    for row in range(tokens):
        at = total - tokens + row
        near = [k for k in range(at + 1) if window is None or positions[at] - positions[k] < window]
        for head in range(heads):
            kv = head // (heads // kv_heads)
            scores = keys[near, kv].double() @ query[row, head].double() * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat([scores, sinks[head : head + 1].double()])
            out[row, head] = scores.softmax(0)[: len(near)] @ values[near, kv].double()
    return out


@settings(deadline=None, max_examples=100)
@given(
    before=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    tokens=st.integers(1, 9),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    window=st.none() | st.integers(1, 20),
    softcap=st.none() | st.floats(0.5, 5),
    sinks=st.booleans(),
    holes=st.booleans(),
    together=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_sum_written_out(before, tokens, kv_heads, group, window, softcap, sinks, holes, together, seed):
    generator = torch.Generator().manual_seed(seed)
    before = before if tokens == 1 else before[:1]
    head_dim, rows, lengths = 8, len(before), [tokens + length for length in before]
    width = max(lengths)
    query = torch.randn(rows, tokens, kv_heads * group, head_dim, generator=generator)
    key_pool = torch.randn(300, kv_heads, head_dim, generator=generator)
    value_pool = torch.randn(300, kv_heads, head_dim, generator=generator)
    first = 17 if together and rows == 1 else None
    slots = (
        torch.arange(17, 17 + width)[None]
        if first
        else torch.randperm(299, generator=generator)[: rows * width].view(rows, -1) + 1
    )
    positions = torch.randint(1, 3 if holes else 2, (rows, width), generator=generator).cumsum(-1)
    for row, length in enumerate(lengths):
        slots[row, length:] = 0
    used = torch.zeros(300, dtype=torch.bool)
    used[slots] = True
    key_pool[~used] = torch.nan
    value_pool[~used] = torch.nan
    more = torch.randn(kv_heads * group, generator=generator) if sinks else None
    table = SlotTable(slots, positions, torch.tensor(lengths), first=first, full=min(lengths) == width)

    out = slot_attention(query, key_pool, value_pool, table, scale=0.3, sliding_window=window, softcap=softcap, sinks=more)

    for row, length in enumerate(lengths):
        mine = slots[row, :length]
        expected = reference(query[row], key_pool[mine], value_pool[mine], positions[row], 0.3, window, softcap, more)
        torch.testing.assert_close(out[row].double(), expected, atol=1e-5, rtol=1e-5)
