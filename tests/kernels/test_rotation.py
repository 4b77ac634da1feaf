"""Turned keys equal keys that were encoded elsewhere, however often they are turned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import rotate_keys


def turned(keys, shifts, frequencies, interleaved):
    """Every pair as a complex number times a unit one, float64."""
    pairs = frequencies.shape[-1]
    first, second = (
        (keys[..., 0 : 2 * pairs : 2], keys[..., 1 : 2 * pairs : 2]) if interleaved else keys[..., : 2 * pairs].chunk(2, -1)
    )
    angle = shifts.double()[:, None, None] * frequencies.double()
    product = torch.complex(first.double(), second.double()) * torch.polar(torch.ones_like(angle), angle)
    head = (
        torch.stack([product.real, product.imag], -1).flatten(-2)
        if interleaved
        else torch.cat([product.real, product.imag], -1)
    )
    return torch.cat([head, keys[..., 2 * pairs :].double()], -1)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(0, 6),
    pairs=st.integers(1, 8),
    interleaved=st.booleans(),
    in_place=st.booleans(),
    furthest=st.sampled_from([1, 50, 100_000]),
    seed=st.integers(0, 2**31),
)
def test_equals_a_product_of_complex_numbers(count, pairs, interleaved, in_place, furthest, seed):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(3, 40, 2, 16, generator=generator)
    before = keys.clone()
    slots = torch.randperm(39, generator=generator) + 1
    sources, targets = slots[:count], slots[:count] if in_place else slots[count : 2 * count]
    shifts = torch.randint(-furthest, furthest + 1, (count,), generator=generator)
    frequencies = torch.rand(3, pairs, generator=generator)
    frequencies[1] = 0

    rotate_keys(keys, sources, targets, shifts, frequencies, interleaved=interleaved)

    for layer in range(3):
        expected = turned(before[layer, sources], shifts, frequencies[layer], interleaved)
        torch.testing.assert_close(keys[layer, targets].double(), expected, atol=1e-5, rtol=1e-5)
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[targets] = False
    assert torch.equal(keys[:, untouched], before[:, untouched])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    keys = torch.randn(1, 2, 1, 64, dtype=dtype)
    one, frequencies = torch.tensor([1]), torch.rand(1, 32)
    expected = turned(keys[0, one], torch.tensor([777]), frequencies[0], False).to(dtype)
    rotate_keys(keys, one, one, torch.tensor([777]), frequencies)
    torch.testing.assert_close(keys[0, one], expected, atol=0, rtol=torch.finfo(dtype).eps)
