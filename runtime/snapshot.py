"""A context on disk: its tokens, and the keys and values of those that were encoded, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from runtime.arrays import Slots
from runtime.errors import SnapshotBroken, SnapshotMismatch
from runtime.mode import Fallback, Mode

_FORMAT = "1"
_SAMPLED = 64  # numbers of every tensor that go into a model's fingerprint


@dataclass(frozen=True)
class Kept:
    """Keys and values of some tokens, outside of the pool."""

    tokens: Slots
    """`[n]`: which tokens of the context they belong to."""
    keys: Tensor
    """`[layers, n, kv_heads, head_dim]`, as they were encoded; `values` likewise."""
    values: Tensor
    positions: Slots
    """`[n]`: where they were encoded."""

    def without(self, start: int, stop: int) -> Kept:
        """Those of all tokens but some."""
        keep = (self.tokens < start) | (self.tokens >= stop)
        index = torch.from_numpy(np.flatnonzero(keep)).to(self.keys.device)
        return Kept(self.tokens[keep], self.keys[:, index], self.values[:, index], self.positions[keep])

    def moved(self, start: int, shift: int) -> Kept:
        """The same, where the tokens from `start` on have moved in the context."""
        return Kept(self.tokens + shift * (self.tokens >= start), self.keys, self.values, self.positions)


@dataclass(frozen=True)
class Snapshot:
    """Everything that a context is, but for its spans."""

    ids: list[int]
    positions: list[int]
    tainted: int | None
    mode: Mode
    fallback: Fallback
    kept: Kept

    def save(self, path: str | os.PathLike[str], model: str, tokenizer: str) -> None:
        """Write the file: whole, or not at all."""
        target = Path(path)
        about = {name: getattr(self, name) for name in ("positions", "tainted", "mode", "fallback")}
        metadata = {
            "format": _FORMAT,
            "model": model,
            "tokenizer": tokenizer,
            "tokens": _digest(self.ids),
            "context": json.dumps(about),
        }
        tensors = {
            "ids": torch.tensor(self.ids),
            "tokens": torch.from_numpy(self.kept.tokens),
            "positions": torch.from_numpy(self.kept.positions),
            "keys": self.kept.keys.cpu().contiguous(),
            "values": self.kept.values.cpu().contiguous(),
        }
        part = target.with_name(f"{target.name}.part")
        save_file(tensors, part, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)

    @staticmethod
    def load(path: str | os.PathLike[str], model: str, tokenizer: str) -> Snapshot:
        """Read the file.

        Raises:
            SnapshotBroken: it is not there, cut off, or no snapshot.
            SnapshotMismatch: it belongs to another model or tokenizer.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(metadata["context"])
            kept = Kept(tensors["tokens"].numpy(), tensors["keys"], tensors["values"], tensors["positions"].numpy())
            snapshot = Snapshot(tensors["ids"].tolist(), kept=kept, **about)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as fault:
            raise SnapshotBroken(f"{path} cannot be read as a snapshot of a context ({fault}): take it again.") from fault
        if metadata["format"] != _FORMAT:
            raise SnapshotBroken(f"{path} is of format {metadata['format']}, and this version reads {_FORMAT}: take it again.")
        for what, expected in (("model", model), ("tokenizer", tokenizer)):
            if metadata[what] != expected:
                raise SnapshotMismatch(f"{path} was taken with another {what}: load the one that it was taken with.")
        if metadata["tokens"] != _digest(snapshot.ids):
            raise SnapshotBroken(f"The tokens in {path} are not those it was taken of: take it again.")
        return snapshot


def model_fingerprint(model: PreTrainedModel) -> str:
    """Of the weights' names, shapes, dtypes, and some numbers of each: different for models that give different keys."""
    digest = hashlib.sha256(model.config.model_type.encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.flatten()
        some = flat[:: max(1, len(flat) // _SAMPLED)].double().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + some.tobytes())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Of everything that decides which ids a text gets."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def _digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest()
