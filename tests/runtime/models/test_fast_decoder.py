"""The lean forward gives the logits of the modules it stands for, and shares their weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from runtime import Engine
from runtime.batch import Batch, Segment
from runtime.models.fast_decoder import FAST, FastDecoder
from runtime.models.transformer import Transformer


def mixed_batch(engine, seed):
    """An empty context's prompt, the end of a long one, and three decodes, with holes in their positions."""
    rng = np.random.default_rng(seed)
    free = rng.permutation(np.arange(1, engine.pool.size))
    segments = []
    for before, new in ((0, 9), (30, 5), (3, 1), (17, 1), (40, 1)):
        slots, free = free[: before + new], free[before + new :]
        positions = np.cumsum(rng.integers(1, 3, before + new))
        segments.append(Segment(rng.integers(2, 300, new).tolist(), slots, positions))
    return Batch(engine.pool, segments)


@pytest.mark.parametrize("architecture", FAST)
def test_the_same_logits_as_the_modules(architecture, make_checkpoint):
    with Engine.load(make_checkpoint(architecture), slots=300) as engine, torch.inference_mode():
        engine.pool.keys.normal_()
        engine.pool.values.normal_()
        assert isinstance(engine.decoder, FastDecoder)
        batch = mixed_batch(engine, 5)
        lean = engine.decoder.forward(batch)
        torch.testing.assert_close(lean, Transformer(engine.model).forward(batch), atol=1e-4, rtol=1e-4)


def test_it_can_be_switched_off(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=50, fast=False) as engine:
        assert isinstance(engine.decoder, Transformer)


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"mlp_bias": True}])
def test_what_is_shaped_otherwise_runs_through_its_modules(make_checkpoint, tmp_path, change):
    folder = shutil.copytree(make_checkpoint("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    if "mlp_bias" in change:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        for name in [name for name in tensors if ".mlp." in name]:
            tensors[name.replace("weight", "bias")] = torch.ones(len(tensors[name]))
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with Engine.load(folder, slots=50) as engine:
        assert isinstance(engine.decoder, Transformer)


def test_joined_weights_are_not_kept_twice(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=50) as engine:
        attention = engine.model.model.layers[0].self_attn
        joined = engine.decoder._layers[0].qkv
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            assert projection.weight.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()
