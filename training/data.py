"""Training data on disk: shards of tokenized examples, and batches of them by length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.examples import Example

MAX_LENGTH = 1024
COPIED_WEIGHT = 4.0
"""What a learned token counts (times its own weight) that is rare and stands in what is given: a name, a thing, a place. To take
these up is what a small model is slowest to learn, and what a reader misses first."""
_RARE = 2e-4
# The lengths that batches are padded to: few, because the compiler makes one program for each.
LENGTHS = (128, 256, 384, 512, 640, 768, 896, 1024)


@dataclass(frozen=True)
class Encoded:
    """An example as tokens: ids, and what learning each of them counts, in tenths."""

    ids: NDArray[np.uint16]
    weights: NDArray[np.uint8]


def encode(example: Example, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokenize each part by itself, as the program does."""
    ids: list[int] = []
    weights: list[int] = []
    for part in example.parts:
        part_ids = tokenizer(part.text, add_special_tokens=False, split_special_tokens=not part.mark)["input_ids"]
        ids += part_ids
        weights += [round(10 * part.weight)] * len(part_ids)
    return Encoded(np.array(ids, np.uint16), np.array(weights, np.uint8))


def write_shard(file: Path, examples: Sequence[Encoded]) -> None:
    """Write a shard; it is there whole or not at all."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez(
            stream,
            ids=np.concatenate([example.ids for example in examples]),
            weights=np.concatenate([example.weights for example in examples]),
            lengths=np.array([len(example.ids) for example in examples], np.int32),
        )
    temporary.replace(file)


def read_shard(file: Path) -> list[Encoded]:
    """The examples of a shard."""
    with np.load(file) as shard:
        ids, weights, lengths = shard["ids"], shard["weights"], shard["lengths"]
    ends = np.cumsum(lengths)
    return [Encoded(ids[end - length : end], weights[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens `[rows, length]`, padded; `weights` (float32) says what predicting each counts."""

    ids: Tensor
    positions: Tensor
    weights: Tensor

    @property
    def tokens(self) -> int:
        return self.ids.numel()


def batches(examples: Sequence[Encoded], tokens: int, max_positions: int, rng: random.Random) -> Iterator[Batch]:
    """Every example once, in random order, in batches of about `tokens` tokens whose rows are of like length."""
    rare = _rare_tokens(examples)
    waiting: dict[int, list[Encoded]] = {length: [] for length in LENGTHS}
    ready: list[Batch] = []
    for index in rng.sample(range(len(examples)), len(examples)):
        example = examples[index]
        length = next(length for length in LENGTHS if len(example.ids) <= length)
        row = waiting[length]
        row.append(example)
        if len(row) == tokens // length:
            ready.append(_batch(row, length, rare, max_positions, rng))
            waiting[length] = []
        if len(ready) == 16:  # so that batches of one length do not come in a run
            rng.shuffle(ready)
            yield from ready
            ready = []
    rng.shuffle(ready)
    yield from ready


def _rare_tokens(examples: Sequence[Encoded]) -> NDArray[np.bool_]:
    """Which token ids make up less than `_RARE` of all tokens."""
    counts = np.bincount(np.concatenate([example.ids for example in examples]), minlength=2**16)
    rare: NDArray[np.bool_] = counts < _RARE * counts.sum()
    return rare


def _batch(examples: Sequence[Encoded], length: int, rare: NDArray[np.bool_], max_positions: int, rng: random.Random) -> Batch:
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    weights = torch.zeros(len(examples), length)
    positions = torch.arange(length).repeat(len(examples), 1)
    for row, example in enumerate(examples):
        count = len(example.ids)
        ids[row, :count] = torch.from_numpy(example.ids.astype(np.int64))
        copied = rare[example.ids] & np.isin(example.ids, example.ids[example.weights == 0])
        weights[row, :count] = torch.from_numpy(example.weights * np.where(copied, COPIED_WEIGHT, 1.0) / 10)
        if rng.random() < 0.2:  # a leap somewhere, so that no distance up to the last position is quite unknown
            leap = int((max_positions - length) * rng.random() ** 2)
            positions[row, rng.randrange(count) :] += leap
    return Batch(ids, positions, weights)
