"""The program as its user meets it: when the first word shows, how long a story takes, and whether late paragraphs cost more.

`python -m benchmarks.story` starts `app.py write` anew for each run, with the bundled model.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

APP = Path(__file__).parents[1] / "app.py"
PREMISE = (Path(__file__).parents[1] / "stories" / "starters" / "lighthouse.txt").read_text().strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.story", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="stories of 12 paragraphs, timed from the program's start")
    parser.add_argument("--paragraphs", type=int, default=100, help="length of the long story")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    short = [time_story(12, seed) for seed in range(1, options.runs + 1)]
    steps = long_story(options.paragraphs)
    early, late = steps[9:19], steps[-10:]
    figures = {
        "machine": f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores",
        "first_word_seconds": median(first for first, _ in short),
        "twelve_paragraphs_seconds": median(whole for _, whole in short),
        "paragraphs": len(steps),
        "encoded_tokens_paragraphs_10_to_19": mean(step["encoded_tokens"] for step in early),
        "encoded_tokens_last_10": mean(step["encoded_tokens"] for step in late),
        "most_resident_tokens": max(step["resident_tokens"] for step in steps),
        "most_sentences_in_short_memory": max(len(step["short_memory"]) for step in steps),
        "tokens_per_second": sum(step["generated_tokens"] for step in steps) / sum(step["seconds"] for step in steps),
        "seconds_last_10_over_10_to_19": mean(step["seconds"] for step in late) / mean(step["seconds"] for step in early),
        "degraded_steps": sum(step["degraded"] for step in steps),
    }
    text = json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


def time_story(paragraphs: int, seed: int) -> tuple[float, float]:
    """Seconds from the start of the program to its first word of prose, and to its end."""
    with tempfile.TemporaryDirectory() as stories:
        began = time.monotonic()
        with subprocess.Popen(_command(paragraphs, seed, stories), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
            assert run.stdout is not None
            run.stdout.read(1)
            first = time.monotonic() - began
            run.stdout.read()
        return first, time.monotonic() - began


def long_story(paragraphs: int) -> list[dict[str, Any]]:
    """The records of the steps of one long story."""
    with tempfile.TemporaryDirectory() as stories:
        command = [*_command(paragraphs, 1, stories), "--json"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def _command(paragraphs: int, seed: int, stories: str) -> list[str]:
    return [
        *(sys.executable, str(APP), "write", "--premise", PREMISE, "--paragraphs", str(paragraphs)),
        *("--seed", str(seed), "--stories", stories),
    ]


if __name__ == "__main__":
    sys.exit(main())
