"""Moves cached keys to other positions by turning them (torch reference)."""

from __future__ import annotations

from torch import Tensor


def rotate_keys(
    keys: Tensor, sources: Tensor, targets: Tensor, shifts: Tensor, inverse_frequencies: Tensor, *, interleaved: bool = False
) -> None:
    """Write keys, turned by a distance each, into other slots, in every layer.

    A rotary embedding at position p turns each pair of a key's numbers by p times the pair's frequency (Su et al. 2021,
    section 3.2); so a key moves by `shift` positions when it is turned by that many times the frequency. Turn it from where it was
    encoded, not from where it was turned to before, and no error adds up.

    Args:
        keys: `[layers, slots, kv_heads, head_dim]`, changed in place.
        sources, targets: `[n]` int64, slots to read from and to write to; equal or not.
        shifts: `[n]` int64, positions to move by.
        inverse_frequencies: float32 `[layers, pairs]`, of the first `2 * pairs` numbers of a head; 0 where a layer turns nothing.
        interleaved: pairs are neighbours (0, 1), (2, 3), ...; else (0, pairs), (1, pairs + 1), ...
    """
    pairs = inverse_frequencies.shape[1]
    halves = (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)) if interleaved else (slice(0, pairs), slice(pairs, 2 * pairs))
    for layer, frequencies in zip(keys, inverse_frequencies, strict=True):
        # Angles in float64: a shift of 100,000 positions leaves float32 few digits for the fraction of a turn.
        angle = shifts.double()[:, None, None] * frequencies.double()
        cos, sin = angle.cos().float(), angle.sin().float()
        turned = layer[sources].float()
        first, second = turned[..., halves[0]], turned[..., halves[1]]
        turned[..., halves[0]], turned[..., halves[1]] = first * cos - second * sin, first * sin + second * cos
        layer[targets] = turned.to(layer.dtype)
