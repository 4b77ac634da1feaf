"""Attention over a pool of key/value slots: tensors in, tensors out, nothing known of sequences."""

from kernels.attention import extend_attention

__all__ = ["extend_attention"]
