"""The weights of linear layers that read the same input, side by side, laid out for the machine that multiplies by them."""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

# oneDNN chooses a layout for a number of rows; this one is as fast with one row as with many.
_PACKED_ROWS = 16
# A call of oneDNN takes 20 microseconds beside the work. Up to so many numbers that counts with a single row, and two copies do not.
_SMALL = 2**20


class Matrix:
    """Multiplies by the weights of one layer or of several. It takes them over: the layers cannot be run afterwards.

    On x86 CPUs oneDNN packs them in blocks: against plain weights that is up to three times the speed with 16 rows, and with one
    row where there are several threads or weights are bfloat16.
    """

    def __init__(self, *layers: nn.Linear) -> None:
        weights = [layer.weight.data for layer in layers]
        joined = torch.cat(weights) if len(weights) > 1 else weights[0]
        biases = [layer.bias.data for layer in layers if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None
        self._packed: Tensor | None = None
        self._plain: Tensor | None = joined.T
        if _can_be_packed(joined):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(joined, _PACKED_ROWS)
            small = joined.numel() <= _SMALL and joined.dtype == torch.float32
            self._plain = joined.T.contiguous() if small else None
        for layer in layers:
            layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)

    def __call__(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """`x` `[T, in]` times the weights, `[T, out]`, and `plus` added, of the same shape."""
        product: Tensor
        if self._plain is not None and (self._packed is None or x.shape[0] == 1):
            product = x @ self._plain if plus is None else torch.addmm(plus, x, self._plain)
            return product if self._bias is None else product.add_(self._bias)
        multiply = torch.ops.mkldnn._linear_pointwise
        if plus is None:
            product = multiply.default(x, self._packed, self._bias, "none", [], "")
        else:
            product = multiply.binary(x, plus, self._packed, self._bias, "add")
        return product


def _can_be_packed(weight: Tensor) -> bool:
    if (
        weight.device.type != "cpu"
        or platform.machine().lower() not in ("x86_64", "amd64")
        or not torch.backends.mkldnn.is_available()
    ):
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
