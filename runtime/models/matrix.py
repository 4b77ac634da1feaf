"""The weights of linear layers that read the same input, side by side, laid out for the machine that multiplies by them."""

from __future__ import annotations

import platform

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from runtime.arrays import Floats

# oneDNN chooses a layout for a number of rows; this one is good for one and for many.
_PACKED_ROWS = 16
# A matrix of at most so many numbers is kept plain as well, for single tokens.
_SMALL = 2**21


class Matrix:
    """Multiplies by the weights of one layer or of several. It takes them over: the layers cannot be run afterwards.

    On x86 CPUs oneDNN packs the weights in blocks: up to three times the speed of plain ones with 16 rows. A single row, of which
    nearly all time goes into reading the weights, is as fast by it as by any other way where they are many. Where they are few, a
    call of oneDNN costs more than the work, and the BLAS under torch reads at half the speed of the dot products of numpy.
    """

    def __init__(self, *layers: nn.Linear) -> None:
        weights = [layer.weight.data for layer in layers]
        biases = [layer.bias.data for layer in layers if layer.bias is not None]
        self._weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self._bias = torch.cat(biases) if biases else None
        self._packed = _can_be_packed(self._weight)
        self._array: Floats | None = None
        single = self._weight.device.type == "cpu" and self._weight.dtype == torch.float32
        if single and (not self._packed or self._weight.numel() <= _SMALL):
            self._array = self._weight.numpy()
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, _PACKED_ROWS)
        for layer in layers:
            layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)

    def __call__(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """`x` `[T, in]` times the weights, `[T, out]`, and `plus` added, of the same shape."""
        product: Tensor
        if not self._packed:
            product = linear(x, self._weight, self._bias)
            return product if plus is None else product.add_(plus)
        if plus is None:
            product = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        else:
            product = torch.ops.mkldnn._linear_pointwise.binary(x, plus, self._weight, self._bias, "add")
        return product

    def few(self, x: Floats) -> Floats:
        """The numbers of few tokens, `[T, in]`, times the weights, `[T, out]`, where these are float32 and on the CPU."""
        if len(x) > 1 or self._array is None:
            return self(torch.from_numpy(x)).numpy()
        product: Floats = np.vecdot(self._array, x)[None]
        if self._bias is not None:
            product += self._bias.numpy()
        return product


def _can_be_packed(weight: Tensor) -> bool:
    if (
        weight.device.type != "cpu"
        or platform.machine().lower() not in ("x86_64", "amd64")
        or not torch.backends.mkldnn.is_available()
    ):
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
