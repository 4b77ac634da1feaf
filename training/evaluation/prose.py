"""Old novels that training never saw: how well is their next word foretold?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from runtime import Engine
from training.books import read_books
from training.build import HELD_OUT_BOOKS
from training.evaluation.row import Row, Track

PASSAGE = 768
"""Tokens of each passage."""
PASSAGES = 8
"""Passages of each book."""


def rows(engine: Engine, folder: Path, track: Track) -> Iterator[Row]:
    """Bits for each character of the held-out books, teacher-forced."""
    books = list(read_books(folder))[-HELD_OUT_BOOKS:]
    model = AutoModelForCausalLM.from_pretrained(engine.model_path, dtype=torch.float32)
    advance = track("held-out books", len(books))
    nats, characters = 0.0, 0
    for book in books:
        ids = engine.encode("\n\n".join(book.paragraphs), first=False, special=False)
        stride = max(PASSAGE, len(ids) // PASSAGES)
        for begin in range(0, min(len(ids) - PASSAGE, PASSAGES * stride), stride):
            passage = torch.tensor([ids[begin : begin + PASSAGE]])
            with torch.inference_mode():
                nats += float(model(passage, labels=passage).loss) * (PASSAGE - 1)
            characters += len(engine.decode(passage[0, 1:].tolist()))
        advance()
    yield Row("prose", "held-out old novels", nats / math.log(2) / characters, characters, None, "bits per character")
