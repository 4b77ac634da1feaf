"""One layer of a Llama-shaped decoder: what a forward needs of it, in as few parts as can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from runtime.models.matrix import Matrix
from runtime.models.norm import Norm


@dataclass(frozen=True)
class Layer:
    """Weights that read the same input are joined into one."""

    index: int
    input_norm: Norm
    qkv: Matrix
    head_norm: Norm | None
    """Of the query and key heads together (Qwen3)."""
    out: Matrix
    scale: float
    rotated: bool
    sliding_window: int | None
    mlp_norm: Norm
    gate_up: Matrix
    down: Matrix


def layers_of(model: PreTrainedModel) -> Iterator[Layer]:
    """The layers of a model, whose weights they take over."""
    config: Any = model.config
    inner: Any = model.model
    epsilon = config.rms_norm_eps
    for index, module in enumerate(inner.layers):
        attention, mlp = module.self_attn, module.mlp
        head_norm = None
        if hasattr(attention, "q_norm"):
            heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
            weights = [attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(kv_heads, -1)]
            head_norm = Norm(torch.cat(weights), epsilon)
        window = getattr(attention, "sliding_window", config.sliding_window if config.model_type == "mistral" else None)
        yield Layer(
            index=index,
            input_norm=Norm(module.input_layernorm.weight, epsilon),
            qkv=Matrix(attention.q_proj, attention.k_proj, attention.v_proj),
            head_norm=head_norm,
            out=Matrix(attention.o_proj),
            scale=attention.scaling,
            rotated=bool(getattr(attention, "use_rope", True)),
            sliding_window=window,
            mlp_norm=Norm(module.post_attention_layernorm.weight, epsilon),
            gate_up=Matrix(mlp.gate_proj, mlp.up_proj),
            down=Matrix(mlp.down_proj),
        )
