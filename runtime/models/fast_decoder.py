"""A lean forward for Llama-shaped decoders: the same weights, fewer and larger operations than the modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu
from transformers import PreTrainedModel

from runtime.batch import Batch
from runtime.models.matrix import Matrix

FAST = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""The model types that this forward serves."""


class _Norm:
    """Root mean square norm over the last dimension, in float32 inside as the modules do (Zhang and Sennrich 2019).

    With few tokens the number of operations is what counts: here they are four, in `torch.rms_norm` about nine.
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        width = weight.shape[-1]
        self._weight = weight.float() * width**0.5
        self._least = torch.tensor((width * epsilon) ** 0.5, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scaled: Tensor = x * (self._weight / torch.hypot(length, self._least))
        return scaled.to(x.dtype)


@dataclass(frozen=True)
class _Layer:
    """One layer; weights that read the same input are joined into one."""

    index: int
    input_norm: _Norm
    qkv: Matrix
    head_norm: _Norm | None
    """Of the query and key heads together (Qwen3)."""
    out: Matrix
    scale: float
    rotated: bool
    sliding_window: int | None
    mlp_norm: _Norm
    gate_up: Matrix
    down: Matrix


class FastDecoder:
    """Serves models of the types in `FAST`. It takes over the weights of the modules, which cannot be run afterwards."""

    def __init__(self, model: PreTrainedModel) -> None:
        inner: Any = model.model
        config: Any = model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._frequencies: Tensor = inner.rotary_emb.inv_freq.float()
        self._turn_scale: float = inner.rotary_emb.attention_scaling
        self._layers = [_layer(index, layer, config) for index, layer in enumerate(inner.layers)]
        self._norm = _Norm(inner.norm.weight, config.rms_norm_eps)
        self._head = Matrix(model.lm_head)
        self._embedding: Tensor = inner.embed_tokens.weight

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
        cos, sin = self._turns(batch.positions, x.dtype)
        for layer in self._layers:
            x = self._attention(layer, x, cos, sin, batch)
            gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
            x = layer.down(silu(gate).mul_(up), plus=x)
        return self._head(self._norm(x[batch.ends])).float()

    def _turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines, and sines with the sign of each half, `[T, 1, head_dim]`."""
        angles = (positions[:, None] * self._frequencies)[:, None]
        cos, sin = angles.cos(), angles.sin()
        turns = torch.cat((cos, cos, -sin, sin), -1).mul_(self._turn_scale).to(dtype)
        cosines, sines = turns.chunk(2, -1)
        return cosines, sines

    def _attention(self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor, batch: Batch) -> Tensor:
        joined = layer.qkv(layer.input_norm(x)).view(x.shape[0], self._heads + 2 * self._kv_heads, -1)
        turned, values = joined.split_with_sizes((self._heads + self._kv_heads, self._kv_heads), 1)
        if layer.head_norm is not None:
            turned = layer.head_norm(turned)
        if layer.rotated:
            turned = torch.addcmul(turned * cos, turned.roll(turned.shape[-1] // 2, -1), sin)
        query, keys = turned.split_with_sizes((self._heads, self._kv_heads), 1)
        out = batch.attend(layer.index, query, keys, values, scale=layer.scale, sliding_window=layer.sliding_window)
        return layer.out(out.flatten(1), plus=x)


def _layer(index: int, module: Any, config: Any) -> _Layer:
    attention, mlp = module.self_attn, module.mlp
    rotated = bool(getattr(attention, "use_rope", True))
    head_norm = None
    if hasattr(attention, "q_norm"):
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        weights = torch.cat([attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(kv_heads, -1)])
        head_norm = _Norm(weights, config.rms_norm_eps)
    window = getattr(attention, "sliding_window", config.sliding_window if config.model_type == "mistral" else None)
    return _Layer(
        index=index,
        input_norm=_Norm(module.input_layernorm.weight, config.rms_norm_eps),
        qkv=Matrix(attention.q_proj, attention.k_proj, attention.v_proj),
        head_norm=head_norm,
        out=Matrix(attention.o_proj),
        scale=attention.scaling,
        rotated=rotated,
        sliding_window=window,
        mlp_norm=_Norm(module.post_attention_layernorm.weight, config.rms_norm_eps),
        gate_up=Matrix(mlp.gate_proj, mlp.up_proj),
        down=Matrix(mlp.down_proj),
    )
