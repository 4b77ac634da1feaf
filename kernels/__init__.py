"""Attention and rotation over a pool of key/value slots: tensors in, tensors out, nothing known of sequences."""

from kernels.attention import slot_attention
from kernels.rotation import rotate_keys
from kernels.slot_table import SlotTable

__all__ = ["SlotTable", "rotate_keys", "slot_attention"]
