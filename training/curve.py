"""Draws how the loss fell: `python -m training.curve`. Reads the logs of a run, writes a picture for the report."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.curve", description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("training/runs/ember/log.jsonl"), help="log of training.train")
    parser.add_argument("--out", type=Path, default=Path("training/report/loss.svg"), help="picture to write")
    options = parser.parse_args(arguments)
    if not options.log.exists():
        parser.error(f"there is no log {options.log}: run 'python -m training.train' first")
    tokens, losses, rates = read_log(options.log)
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ember"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot([count / 1e6 for count in tokens], losses, linewidth=1.2)
    axes.set(xlabel="million tokens", ylabel="loss (nats per learned token)", ylim=(min(losses) - 0.1, 5))
    beside = axes.twinx()
    beside.plot([count / 1e6 for count in tokens], rates, color="0.7", linewidth=1)
    beside.set(ylabel="learning rate", ylim=(0, None))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, metadata={"Date": None})
    return 0


def read_log(file: Path) -> tuple[list[int], list[float], list[float]]:
    """Tokens seen, losses and learning rates, in order; where a run went back to its checkpoint, the later line counts."""
    lines: dict[int, dict[str, float]] = {}
    for text in file.read_text("utf-8").splitlines():
        record = json.loads(text)
        lines = {step: kept for step, kept in lines.items() if step < record["step"]}
        lines[record["step"]] = record
    records = list(lines.values())
    return [int(r["tokens"]) for r in records], [r["loss"] for r in records], [r["rate"] for r in records]


if __name__ == "__main__":
    sys.exit(main())
