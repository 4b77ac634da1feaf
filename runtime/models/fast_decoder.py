"""A lean forward for Llama-shaped decoders: the same weights, fewer and larger operations than the modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu
from transformers import PreTrainedModel

from runtime.arrays import Floats
from runtime.batch import Batch
from runtime.models.few import Few
from runtime.models.layer import Layer, layers_of
from runtime.models.matrix import Matrix
from runtime.models.norm import Norm

FAST = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""The model types that this forward serves."""

_FEW = 32
"""Tokens up to which numpy is faster on a CPU."""


class FastDecoder:
    """Serves models of the types in `FAST`. It takes over the weights of the modules, which cannot be run afterwards."""

    def __init__(self, model: PreTrainedModel) -> None:
        inner: Any = model.model
        config: Any = model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._embedding: Tensor = inner.embed_tokens.weight.detach()
        self._frequencies: Tensor = inner.rotary_emb.inv_freq.float()
        self._turn_scale: float = inner.rotary_emb.attention_scaling
        self._layers = list(layers_of(model))
        self._norm = Norm(inner.norm.weight, config.rms_norm_eps)
        self._head = Matrix(model.lm_head)
        self._few: Few | None = None
        if self._embedding.device.type == "cpu" and self._embedding.dtype == torch.float32:
            self._few = Few(
                self._embedding, self._frequencies, self._turn_scale, self._layers, self._norm, self._head, self._heads
            )

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

    def forward(self, batch: Batch) -> Floats:
        if self._few is not None and len(batch) <= _FEW:
            return self._few.forward(batch)
        return self._forward(batch)

    @torch.inference_mode()
    def _forward(self, batch: Batch) -> Floats:
        x = embedding(batch.ids, self._embedding)
        cos, sin = self._turns(batch.positions, x.dtype)
        for layer in self._layers:
            x = self._attention(layer, x, cos, sin, batch)
            gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
            x = layer.down(silu(gate).mul_(up), plus=x)
        logits: Floats = self._head(self._norm(x[batch.ends])).float().cpu().numpy()
        return logits

    def _turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines, and sines with the sign of each half, `[T, 1, head_dim]`."""
        angles = (positions[:, None] * self._frequencies)[:, None]
        cos, sin = angles.cos(), angles.sin()
        turns = torch.cat((cos, cos, -sin, sin), -1).mul_(self._turn_scale).to(dtype)
        cosines, sines = turns.chunk(2, -1)
        return cosines, sines

    def _attention(self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, batch: Batch) -> Tensor:
        joined = layer.qkv(layer.input_norm(x)).view(x.shape[0], self._heads + 2 * self._kv_heads, -1)
        turned, values = joined.split_with_sizes((self._heads + self._kv_heads, self._kv_heads), 1)
        if layer.head_norm is not None:
            turned = layer.head_norm(turned)
        if layer.rotated:
            turned = torch.addcmul(turned * cos, turned.roll(turned.shape[-1] // 2, -1), sin)
        query, keys = turned.split_with_sizes((self._heads, self._kv_heads), 1)
        out = batch.attend(layer.index, query, keys, values, scale=layer.scale, sliding_window=layer.sliding_window)
        return layer.out(out.flatten(1), plus=x)
