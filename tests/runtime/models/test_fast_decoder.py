"""The lean forward gives the logits of the modules whose weights it takes over."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from runtime import Engine
from runtime.batch import Batch, Segment
from runtime.models import few
from runtime.models.fast_decoder import FAST, FastDecoder
from runtime.models.matrix import Matrix
from runtime.models.transformer import Transformer

MIXED = ((0, 9), (30, 5), (3, 1), (17, 1), (40, 1))
"""Tokens before and new ones: an empty context's prompt, the end of a long one, and three decodes."""


def batch_of(pool, sizes, *, scattered):
    """Contexts with holes in their positions, whose slots lie anywhere or follow one another."""
    rng = np.random.default_rng(5)
    free = rng.permutation(np.arange(1, pool.size)) if scattered else np.arange(1, pool.size)
    segments = []
    for before, new in sizes:
        slots, free = free[: before + new], free[before + new :]
        positions = np.cumsum(rng.integers(1, 3, before + new))
        segments.append(Segment(rng.integers(2, 300, new).tolist(), slots, positions))
    return Batch(pool, segments)


@pytest.mark.parametrize("scattered", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [((40, 1),), ((7, 1), (40, 1), (41, 1)), ((600, 1),), MIXED, (*MIXED, (20, 60)), ((5, 1),) * 50],
    ids=["one", "few", "one that sees many", "few and extends", "a long extend", "many"],
)
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("architecture", FAST)
def test_the_same_logits_as_the_modules(architecture, dtype, error, sizes, scattered, make_checkpoint, monkeypatch):
    monkeypatch.setattr(few, "_SMALL", 2**14)  # reached with 600 tokens by these small models
    folder = make_checkpoint(architecture)
    with (
        Engine.load(folder, slots=700, dtype=dtype) as lean,
        Engine.load(folder, slots=700, dtype=dtype, fast=False) as plain,
    ):
        assert isinstance(lean.decoder, FastDecoder)
        assert isinstance(plain.decoder, Transformer)
        for pool in (lean.pool, plain.pool):
            torch.manual_seed(3)
            pool.keys[:, 1:].normal_()
            pool.values[:, 1:].normal_()
        found = lean.decoder.forward(batch_of(lean.pool, sizes, scattered=scattered))
        expected = plain.decoder.forward(batch_of(plain.pool, sizes, scattered=scattered))
        assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)
        for own, other in ((lean.pool.keys, plain.pool.keys), (lean.pool.values, plain.pool.values)):
            assert (own - other).norm() < error * other.norm()


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, (48,)), (96, (64, 16, 16)), (1536, (1024,))])
@pytest.mark.parametrize("biased", [False, True])
def test_joined_matrices_multiply_as_the_layers_do(inputs, outputs, biased, dtype):
    torch.manual_seed(1)
    layers = [torch.nn.Linear(inputs, count, bias=biased, dtype=dtype) for count in outputs]
    x = torch.randn(5, inputs, dtype=dtype)
    with torch.inference_mode():
        expected = torch.cat([layer.double()(x.double()) for layer in layers], -1)
        matrix = Matrix(*(layer.to(dtype) for layer in layers))
        plus = torch.randn_like(expected).to(dtype)
        error = {torch.float32: 5e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
        for rows in (1, 2, 5):
            torch.testing.assert_close(matrix(x[:rows]).double(), expected[:rows], rtol=error, atol=error)
            torch.testing.assert_close(
                matrix(x[:rows], plus=plus[:rows]).double(), expected[:rows] + plus[:rows].double(), rtol=error, atol=2 * error
            )
