"""Trains ember: `python -m training.train`. Stops and goes on where it was; the learning rate stays level until `--decay`.

`--decay` goes on from the last checkpoint and ends in weights to use, and in the checkpoint from which a later run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from training.data import LENGTHS, Batch, batches, read_shard
from training.model import Ember, Shape, export

_WARM_UP = 100


@dataclass
class Progressed:
    """Where a run stands."""

    step: int = 0
    tokens: int = 0
    shard: int = 0
    """How many shards have been gone through; they are taken in order, again and again."""
    seconds: float = 0.0


class Run:
    """A training run in a folder: checkpoint, log of losses, and in the end the exported model."""

    def __init__(self, folder: Path, shape: Shape, rate: float) -> None:
        self.folder = folder
        self.model = Ember(shape)
        self.rate = rate
        matrices = [p for name, p in self.model.named_parameters() if p.ndim == 2 and "embedding" not in name]
        others = [p for name, p in self.model.named_parameters() if p.ndim != 2 or "embedding" in name]
        # Muon for matrices (Jordan et al. 2024, scaled as in Liu et al. 2025), AdamW for the rest.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.progressed = Progressed()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self, file: Path | None = None) -> None:
        """Write a checkpoint; a kill leaves the old one or the new one."""
        file = file or self.checkpoint
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progressed": asdict(self.progressed),
            "shape": asdict(self.model.shape),
        }
        temporary = file.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(file)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progressed = Progressed(**state["progressed"])

    def set_rate(self, factor: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * factor


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("training/data"), help="folder that training.build filled")
    parser.add_argument("--run", type=Path, default=Path("training/runs/ember"), help="folder of checkpoints and log")
    parser.add_argument("--tokens", type=float, default=200e6, help="train until so many tokens have been seen")
    parser.add_argument(
        "--decay", type=float, default=0, help="from here on, let the rate fall to zero over so many tokens, then export"
    )
    parser.add_argument("--rate", type=float, default=4e-3, help="learning rate")
    parser.add_argument("--batch", type=int, default=8192, help="tokens of a batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--width", type=int, default=Shape.width)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--hidden", type=int, default=Shape.hidden)
    parser.add_argument("--export", action="store_true", help="export the last checkpoint as it is, and train no further")
    parser.add_argument("--no-compile", action="store_true", help="do without a C++ compiler")
    options = parser.parse_args(arguments)
    shards = sorted(options.data.glob("*.npz"))
    if not shards:
        parser.error(f"there are no shards in {options.data}: run 'python -m training.build' first")
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.data)
    shape = Shape(len(tokenizer), width=options.width, layers=options.layers, hidden=options.hidden)
    options.run.mkdir(parents=True, exist_ok=True)
    run = Run(options.run, shape, options.rate)
    if (options.decay or options.export) and not run.checkpoint.exists():
        parser.error(f"there is no checkpoint in {options.run} yet")
    if options.export:
        run.load(run.checkpoint)
        export(run.model, tokenizer, options.run / "export")
        return 0
    if options.decay:
        decayed = options.run / "decay.pt"
        run.load(decayed if decayed.exists() else run.checkpoint)
        begin = _decay_begin(options.run, run)
        train(run, shards, options, until=begin + int(options.decay), decay_from=begin, file=decayed)
        export(run.model, tokenizer, options.run / "export")
        decayed.replace(run.checkpoint)
        print(f"exported to {options.run / 'export'}", file=sys.stderr)
        return 0
    if run.checkpoint.exists():
        run.load(run.checkpoint)
    train(run, shards, options, until=int(options.tokens), decay_from=None, file=run.checkpoint)
    return 0


def _decay_begin(folder: Path, run: Run) -> int:
    """At how many tokens the rate began to fall; kept beside the checkpoint for the case of a kill."""
    file = folder / "decay.json"
    if not (folder / "decay.pt").exists():
        file.write_text(json.dumps({"tokens": run.progressed.tokens}))
    return int(json.loads(file.read_text())["tokens"])


def train(run: Run, shards: list[Path], options: argparse.Namespace, until: int, decay_from: int | None, file: Path) -> None:
    """Train until so many tokens have been seen."""
    stop = _Stop()
    torch._dynamo.config.cache_size_limit = 2 * len(LENGTHS)
    trunk: Any = run.model if options.no_compile else torch.compile(run.model, dynamic=False)
    progressed, log = run.progressed, (run.folder / "log.jsonl").open("a")
    saved, logged, losses, learned = time.monotonic(), time.monotonic(), 0.0, 0
    logged_tokens = progressed.tokens
    columns = (TextColumn("{task.fields[state]}"), BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=until, completed=progressed.tokens, state="compiling")
        for batch in _stream(run, shards, options):
            if progressed.tokens >= until or stop.wanted:
                break
            began = time.monotonic()
            factor = min(1.0, (progressed.step + 1) / _WARM_UP)
            if decay_from is not None:
                factor *= max(0.0, 1 - (progressed.tokens - decay_from) / (until - decay_from))
            run.set_rate(factor)
            loss, count = _step(run, trunk, batch)
            progressed.step += 1
            progressed.tokens += batch.tokens
            progressed.seconds += time.monotonic() - began
            losses, learned = losses + loss * count, learned + count
            if progressed.step % 50 == 0:
                now = time.monotonic()
                rate = (progressed.tokens - logged_tokens) / (now - logged)
                record = {
                    "step": progressed.step, "tokens": progressed.tokens, "loss": round(losses / learned, 4),
                    "rate": run.rate * factor, "tokens_per_second": round(rate), "seconds": round(progressed.seconds),
                }  # fmt: skip
                log.write(json.dumps(record) + "\n")
                log.flush()
                bar.update(task, completed=progressed.tokens, state=f"loss {losses / learned:.3f}  {rate:.0f} tokens/s")
                losses, learned, logged, logged_tokens = 0.0, 0, now, progressed.tokens
            if time.monotonic() - saved > options.save_every:
                run.save(file)
                saved = time.monotonic()
    run.save(file)
    log.close()
    if stop.wanted:
        print("stopped; run the same command to go on", file=sys.stderr)
        sys.exit(130)


def _stream(run: Run, shards: list[Path], options: argparse.Namespace) -> Iterator[Batch]:
    """Batches without end. A run that was stopped begins its shard anew, in another order."""
    while True:
        number = run.progressed.shard
        rng = random.Random(f"{options.seed}/{number}/{run.progressed.step}")
        yield from batches(read_shard(shards[number % len(shards)]), options.batch, run.model.shape.positions, rng)
        run.progressed.shard += 1


def _step(run: Run, trunk: Any, batch: Batch) -> tuple[float, int]:
    """One step of learning; the mean loss over the tokens that count fully, and how many there were."""
    weights = batch.weights[:, 1:]
    targets = weights > 0
    with torch.autocast("cpu", torch.bfloat16):
        hidden: Tensor = trunk(batch.ids, batch.positions)
        logits = run.model.logits(hidden[:, :-1][targets])
    losses = F.cross_entropy(logits.float(), batch.ids[:, 1:][targets], reduction="none")
    weights = weights[targets]
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    whole = weights >= 1
    value = losses.detach()[whole].mean().item()
    assert math.isfinite(value), "the loss is not finite: lower --rate"
    return value, int(whole.sum())


class _Stop:
    """Ctrl-C or a termination ends the run behind the step at hand, with a checkpoint."""

    def __init__(self) -> None:
        self.wanted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._want)

    def _want(self, *_: object) -> None:
        self.wanted = True


if __name__ == "__main__":
    sys.exit(main())
