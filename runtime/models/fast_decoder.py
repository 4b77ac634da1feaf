"""A lean forward for Llama-shaped decoders: the same weights, fewer and larger operations than the modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu
from transformers import PreTrainedModel

from runtime.batch import Batch

FAST = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""The model types that this forward serves."""


@dataclass(frozen=True)
class _Layer:
    """One layer; weights that read the same input are joined into one. Matrices are `[in, out]`: what is multiplied is the input."""

    index: int
    input_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    head_norm: Tensor | None
    """`[heads + kv_heads, head_dim]`: the norm of each query and key head (Qwen3)."""
    out: Tensor
    out_bias: Tensor | None
    scale: float
    rotated: bool
    sliding_window: int | None
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class FastDecoder:
    """Serves models of the types in `FAST`. The modules keep working: their weights become views of the joined ones."""

    def __init__(self, model: PreTrainedModel) -> None:
        inner: Any = model.model
        config: Any = model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._epsilon = config.rms_norm_eps
        self._rotary = inner.rotary_emb
        self._layers = [_layer(index, layer, config) for index, layer in enumerate(inner.layers)]
        self._norm: Tensor = inner.norm.weight
        self._head = _laid_out(model.lm_head)
        self._embedding: Tensor = inner.embed_tokens.weight  # the head's own where they are tied

    @staticmethod
    def serves(model: PreTrainedModel) -> bool:
        """True for a model of the right shape whose weights are plain tensors."""
        config: Any = model.config
        return (
            config.model_type in FAST
            and config.hidden_act == "silu"
            and not getattr(config, "mlp_bias", False)
            and all(type(module) is nn.Linear for module in model.modules() if isinstance(module, nn.Linear))
            and getattr(model, "hf_quantizer", None) is None
        )

    def forward(self, batch: Batch) -> Tensor:
        x = embedding(batch.ids, self._embedding)
        cos, sin = self._turns(x, batch.positions)
        for layer in self._layers:
            x = self._attention(layer, x, cos, sin, batch)
            x = self._mlp(layer, x)
        return (self._normed(x[batch.ends], self._norm) @ self._head).float()

    def _turns(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines, and sines with the sign of each half, `[T, 1, head_dim]`."""
        cos, sin = self._rotary(x, positions[None])
        half = sin.shape[-1] // 2
        return cos[0, :, None], torch.cat([-sin[0, :, None, :half], sin[0, :, None, half:]], -1)

    def _attention(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor, batch: Batch) -> Tensor:
        joined = self._normed(x, layer.input_norm) @ layer.qkv
        if layer.qkv_bias is not None:
            joined += layer.qkv_bias
        joined = joined.view(x.shape[0], self._heads + 2 * self._kv_heads, -1)
        turned, values = joined.split([self._heads + self._kv_heads, self._kv_heads], 1)
        if layer.head_norm is not None:
            turned = self._normed(turned, layer.head_norm)
        if layer.rotated:
            turned = torch.addcmul(turned * cos, turned.roll(turned.shape[-1] // 2, -1), sin)
        query, keys = turned.split([self._heads, self._kv_heads], 1)
        out = batch.attend(layer.index, query, keys, values, scale=layer.scale, sliding_window=layer.sliding_window)
        if layer.out_bias is not None:
            x = x + layer.out_bias
        return torch.addmm(x, out.flatten(1), layer.out)

    def _mlp(self, layer: _Layer, x: Tensor) -> Tensor:
        gate, up = (self._normed(x, layer.mlp_norm) @ layer.gate_up).chunk(2, -1)
        return torch.addmm(x, silu(gate).mul_(up), layer.down)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return _rms_norm(x, weight, self._epsilon)


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square norm over the last dimension, in float32 inside as the modules do (Zhang and Sennrich 2019)."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(epsilon))
    return (wide * scale).to(x.dtype) * weight


def _layer(index: int, module: Any, config: Any) -> _Layer:
    attention, mlp = module.self_attn, module.mlp
    rotated = bool(getattr(attention, "use_rope", True))
    head_norm = None
    if hasattr(attention, "q_norm"):
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        head_norm = torch.cat([attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(kv_heads, -1)])
    window = getattr(attention, "sliding_window", config.sliding_window if config.model_type == "mistral" else None)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        index=index,
        input_norm=module.input_layernorm.weight,
        qkv=_laid_out(*projections),
        qkv_bias=torch.cat([part.bias for part in projections]) if attention.q_proj.bias is not None else None,
        head_norm=head_norm,
        out=_laid_out(attention.o_proj),
        out_bias=attention.o_proj.bias,
        scale=attention.scaling,
        rotated=rotated,
        sliding_window=window,
        mlp_norm=module.post_attention_layernorm.weight,
        gate_up=_laid_out(mlp.gate_proj, mlp.up_proj),
        down=_laid_out(mlp.down_proj),
    )


def _laid_out(*parts: nn.Linear) -> Tensor:
    """The weights of some layers side by side, `[in, out]`; the layers go on with views of them.

    With one token, a CPU is up to three times as fast if the longer side lies together in memory.
    """
    joined = torch.cat([part.weight.data for part in parts])
    joined = joined.T.contiguous() if joined.shape[0] >= joined.shape[1] else joined.T
    for part, weight in zip(parts, joined.split([part.weight.shape[0] for part in parts], 1), strict=True):
        part.weight.data = weight.T
    return joined
