"""A Hugging Face decoder over a slot pool, and what it keeps of a token, found out by asking it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kernels import rotate_keys
from runtime.arrays import Floats
from runtime.attention import serving
from runtime.batch import Batch, Segment
from runtime.errors import UnsupportedModel
from runtime.slots import PoolShape, SlotPool

_COMPARED = 24  # tokens, beyond a sliding window, for which a model is compared with itself
_PROBED = (0, 1, 7, 61)  # positions at which a token's keys are compared


class Decoder(Protocol):
    """Runs the forward pass of a model."""

    def forward(self, batch: Batch) -> Floats:
        """Logits behind the tokens `batch.ends`, float32 `[wanted, vocab]`."""
        ...


class Transformer:
    """The modules of transformers as they are, with our attention."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Floats:
        with serving(batch):
            output = self._model(
                input_ids=batch.ids[None], position_ids=batch.positions[None], use_cache=False, logits_to_keep=batch.ends
            )
        logits: Floats = output.logits[0].float().cpu().numpy()
        return logits


@dataclass(frozen=True)
class Rotary:
    """How a model turns its keys, in every layer."""

    frequencies: Tensor
    """float32 `[layers, pairs]`: the angle per position of each pair of numbers; 0 in layers that turn nothing."""
    interleaved: bool
    """Whether pairs are neighbours; else they lie half of the turned part apart."""


@dataclass(frozen=True)
class Anatomy:
    """What a model keeps of every token."""

    shape: PoolShape
    rotary: Rotary | None
    """None when its keys cannot be moved to other positions."""


@torch.inference_mode()
def anatomy(model: PreTrainedModel) -> Anatomy:
    """Run one token at a few positions and look at the keys that come to our attention.

    Every token sees only itself, so that what a layer reads is the same at every position and the keys differ by their
    turn alone. So no table of architectures is needed, and no turn is believed that was not seen.

    Raises:
        UnsupportedModel: a layer does not come by our attention, or keeps what slots cannot hold.
    """
    config = model.config.get_text_config()
    probe = _Probe()
    device = model.device
    with serving(probe):
        model(
            input_ids=torch.full((1, len(_PROBED)), config.vocab_size // 2, device=device),
            position_ids=torch.tensor([_PROBED], device=device),
            use_cache=False,
            logits_to_keep=1,
        )
    layers = int(config.num_hidden_layers)
    if sorted(probe.keys) != list(range(layers)):
        raise UnsupportedModel(
            f"Only {len(probe.keys)} of the {layers} layers of this '{config.model_type}' use attention that can be replaced: "
            "its tokens cannot be dropped one by one, use another model."
        )
    shapes = {tuple(keys.shape[1:]) for keys in probe.keys.values()} | probe.value_shapes
    if len(shapes) > 1:
        raise UnsupportedModel(
            f"The layers of this '{config.model_type}' keep keys and values of several shapes ({sorted(shapes)}): use another model."
        )
    kv_heads, head_dim = shapes.pop()
    shape = PoolShape(layers, kv_heads, head_dim, probe.keys[0].dtype, device)
    return Anatomy(shape, _rotary(model, [probe.keys[layer] for layer in range(layers)]))


@torch.inference_mode()
def check_agreement(model: PreTrainedModel, shape: PoolShape) -> None:
    """Compare a model under our attention with the same one under its own.

    Raises:
        UnsupportedModel: they do not agree, so that something in the model is not what our attention takes it for.
    """
    config = model.config.get_text_config()
    count = min(_COMPARED + (getattr(config, "sliding_window", None) or 0), 600, config.max_position_embeddings)
    ids = (torch.arange(count, device=model.device) * 7919 + 11) % config.vocab_size
    slots = np.arange(1, count + 1)
    batch = Batch(SlotPool(shape, count), [Segment(ids.tolist(), slots, slots - 1)])
    ours = torch.from_numpy(Transformer(model).forward(batch)[0]).to(model.device)
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        own = model(input_ids=ids[None], use_cache=False).logits[0, -1].float()
    finally:
        model.set_attn_implementation(implementation)
    close = 1e-4 if shape.dtype == torch.float32 else 5e-2
    if (ours - own).norm() > close * own.norm():
        raise UnsupportedModel(
            f"This '{config.model_type}' gives other logits under the attention of this runtime than under its own: it cannot be served "
            "right, use another model."
        )


class _Probe:
    """Stands where a batch would: keeps the keys, and lets every token see itself alone."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.value_shapes: set[tuple[int, ...]] = set()

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, **_: Any) -> Tensor:
        self.keys[layer] = keys.clone()
        self.value_shapes.add(tuple(values.shape[1:]))
        return values.repeat_interleave(query.shape[1] // values.shape[1], 1)


def _rotary(model: PreTrainedModel, keys: list[Tensor]) -> Rotary | None:
    """The frequencies among the model's buffers that explain the keys `[positions, kv_heads, head_dim]` of every layer."""
    known = {name: buffer.float() for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    pairs = max((len(frequencies) for frequencies in known.values()), default=1)
    candidates = [torch.zeros(pairs, device=model.device)]
    candidates += [f for name, f in known.items() if len(f) == pairs and "original" not in name]
    close = 1e-3 if keys[0].dtype == torch.float32 else 3e-2
    for interleaved in (False, True):
        found = [min((_error(each, layer, interleaved), at) for at, each in enumerate(candidates)) for layer in keys]
        if all(error < close for error, _ in found):
            return Rotary(torch.stack([candidates[at] for _, at in found]), interleaved)
    return None


def _error(frequencies: Tensor, keys: Tensor, interleaved: bool) -> float:
    """How far keys `[positions, kv_heads, head_dim]` are from what turning the first of them gives, relative to their size."""
    count = len(_PROBED)
    turned = torch.cat([keys, keys])[None].float()
    targets = torch.arange(count, 2 * count, device=keys.device)
    shifts = torch.tensor(_PROBED, device=keys.device)
    rotate_keys(turned, torch.zeros_like(targets), targets, shifts, frequencies[None], interleaved=interleaved)
    size = float(keys.float().norm())
    return float((turned[0, count:] - keys.float()).norm()) / size if size else math.inf  # a padding token's keys may all be 0
