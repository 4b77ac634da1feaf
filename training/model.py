"""Ember in plain torch, laid out for training on a CPU; exported as a Qwen3 checkpoint that `transformers` loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

_EPS = 1e-6


@dataclass(frozen=True)
class Shape:
    """The sizes of the model."""

    vocab_size: int = 8192
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    hidden: int = 704
    positions: int = 4096
    rope_theta: float = 10000.0

    def config(self) -> Qwen3Config:
        """The same sizes as `transformers` names them."""
        return Qwen3Config(
            vocab_size=self.vocab_size,
            hidden_size=self.width,
            intermediate_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.positions,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            rms_norm_eps=_EPS,
            tie_word_embeddings=True,
        )


class Norm(nn.Module):
    """RMS normalisation, composed of operations that the compiler fuses."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normalised: Tensor = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPS)
        return (normalised * self.weight).to(x.dtype)


class Block(nn.Module):
    """One decoder layer: attention with normalised queries and keys, then a gated feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        heads = shape.heads + 2 * shape.kv_heads
        self.attention_norm = Norm(shape.width)
        self.qkv = nn.Linear(shape.width, heads * shape.head_dim, bias=False)
        self.q_norm = Norm(shape.head_dim)
        self.k_norm = Norm(shape.head_dim)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=False)
        self.feed_norm = Norm(shape.width)
        self.gate_up = nn.Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shape = self.shape
        batch, length, _ = x.shape
        heads = self.qkv(self.attention_norm(x)).view(batch, length, -1, shape.head_dim)
        query, key, value = heads.split([shape.heads, shape.kv_heads, shape.kv_heads], 2)
        query = _rotate(self.q_norm(query), cos, sin).transpose(1, 2)
        group = shape.heads // shape.kv_heads
        key = _rotate(self.k_norm(key), cos, sin).transpose(1, 2).repeat_interleave(group, 1)
        value = value.transpose(1, 2).repeat_interleave(group, 1)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(self.feed_norm(x)).chunk(2, -1)
        fed: Tensor = self.down(F.silu(gate) * up)
        return x + fed


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Ember(nn.Module):
    """The decoder. `forward` gives the last hidden states; `logits` turns chosen ones into logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = 0.02 / (2 * shape.layers) ** 0.5 if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(parameter, std=scale)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden states `[batch, length, width]` for token ids and positions `[batch, length]`."""
        shape = self.shape
        inverse = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, device=ids.device) / shape.head_dim)
        angles = positions[..., None].float() * inverse
        cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
        x: Tensor = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        normalised: Tensor = self.norm(x)
        return normalised

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[n, vocab]` of hidden states `[n, width]`."""
        return F.linear(hidden, self.embedding.weight)


def export(model: Ember, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the model as a Qwen3 checkpoint with its tokenizer."""
    shape, target = model.shape, Qwen3ForCausalLM(model.shape.config())
    state = {"model.embed_tokens.weight": model.embedding.weight, "lm_head.weight": model.embedding.weight}
    state["model.norm.weight"] = model.norm.weight
    sizes = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        layer = f"model.layers.{index}."
        for name, weight in zip("qkv", block.qkv.weight.split(sizes), strict=True):
            state[f"{layer}self_attn.{name}_proj.weight"] = weight
        gate, up = block.gate_up.weight.chunk(2)
        state |= {
            f"{layer}self_attn.o_proj.weight": block.out.weight,
            f"{layer}self_attn.q_norm.weight": block.q_norm.weight,
            f"{layer}self_attn.k_norm.weight": block.k_norm.weight,
            f"{layer}input_layernorm.weight": block.attention_norm.weight,
            f"{layer}post_attention_layernorm.weight": block.feed_norm.weight,
            f"{layer}mlp.gate_proj.weight": gate,
            f"{layer}mlp.up_proj.weight": up,
            f"{layer}mlp.down_proj.weight": block.down.weight,
        }
    target.load_state_dict(state)
    target.generation_config.eos_token_id = tokenizer.eos_token_id
    target.generation_config.pad_token_id = tokenizer.pad_token_id
    target.config.eos_token_id, target.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.nn.Module.to(target, dtype)
    target.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
