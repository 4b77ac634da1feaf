"""Builds the tokenizer and the training data: `python -m training.build --books FOLDER`. Shards that are there are not made again."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from training.books import Book, read_books
from training.data import MAX_LENGTH, Encoded, encode, write_shard
from training.examples import Example, Source
from training.tokenizer import train_tokenizer

# The share of tokens of each source.
MIX = {"stories": 0.31, "plans": 0.36, "facts": 0.09, "trees": 0.08, "walks": 0.06, "prose": 0.05, "book_steps": 0.05}
VOCABULARY = 8192
# How many examples of each source the tokenizer is learned from.
SAMPLE = {"stories": 9000, "plans": 2000, "facts": 500, "trees": 4000, "walks": 1500, "prose": 3000, "book_steps": 1500}
HELD_OUT_BOOKS = 12
"""So many books, the last ones, are kept for evaluation."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.build", description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="folder of *.jsonl.xz with public-domain prose")
    parser.add_argument("--out", type=Path, default=Path("training/data"), help="folder for tokenizer and shards")
    parser.add_argument("--shards", type=int, default=24, help="how many shards there are to be")
    parser.add_argument("--tokens", type=int, default=6_000_000, help="tokens of each shard")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    books = list(read_books(options.books))[:-HELD_OUT_BOOKS]
    if not books:
        parser.error(f"there are no books (*.jsonl.xz) in {options.books}")
    if not (options.out / "tokenizer.json").exists():
        print("learning the tokenizer", file=sys.stderr)
        build_tokenizer(books, options.seed).save_pretrained(options.out)
    missing = [n for n in range(options.shards) if not _shard(options.out, n).exists()]
    work = partial(build_shard, options.out, options.seed, options.tokens, books)
    columns = (TextColumn("{task.fields[state]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with multiprocessing.Pool(options.workers) as pool, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("build", total=len(missing), state="shards")
        for done, _ in enumerate(pool.imap_unordered(work, missing), 1):
            rate = done * options.tokens / (time.monotonic() - began)
            progress.update(task, completed=done, state=f"shards  {rate:.0f} tokens/s")
    return 0


def build_tokenizer(books: list[Book], seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer learned from a sample of the mix."""
    source = Source(seed, books)
    texts = (
        part.text
        for name, count in SAMPLE.items()
        for example in islice(getattr(source, name)(), count)
        for part in example.parts
    )
    return train_tokenizer(texts, VOCABULARY)


def build_shard(out: Path, seed: int, tokens: int, books: list[Book], number: int) -> None:
    """Write one shard, and beside it what it holds."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    source = Source(seed * 1_000_003 + number, books)
    streams: dict[str, Iterator[Example]] = {name: getattr(source, name)() for name in MIX}
    filled: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    learned = too_long = 0
    examples: list[Encoded] = []
    began = time.monotonic()
    while filled.total() < tokens:
        name = min(MIX, key=lambda name: filled[name] / MIX[name])
        example = next(streams[name])
        encoded = encode(example, tokenizer)
        if len(encoded.ids) > MAX_LENGTH:
            too_long += 1
            continue
        filled[name] += len(encoded.ids)
        kinds[example.kind] += 1
        learned += int((encoded.weights == 10).sum())
        examples.append(encoded)
    random.Random(number).shuffle(examples)
    write_shard(_shard(out, number), examples)
    report = {
        "tokens": filled, "examples": kinds, "learned_tokens": learned, "too_long": too_long,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    (out / f"{number:03}.json").write_text(json.dumps(report, indent=1))


def _shard(out: Path, number: int) -> Path:
    return out / f"{number:03}.npz"


if __name__ == "__main__":
    sys.exit(main())
