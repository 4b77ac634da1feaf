"""A run that is killed at any moment goes on where it was: no accepted paragraph lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recurrent_writer.story import Story

APP = Path(__file__).parents[2] / "app.py"


def accepted(folder):
    """The steps that stand on the disk, read without the program."""
    file = folder / "events.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [event["payload"] for event in map(json.loads, lines) if event["kind"] == "step"]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_and_resumed(kills, tmp_path):
    rng, folder = random.Random(kills), tmp_path / "tale"
    begin = ["--premise", "Ada lost a key at the mill.", "--name", "tale", "--seed", "5"]
    before = []
    for _ in range(kills):
        arguments = ["tale"] if (folder / "events.jsonl").exists() else begin
        command = [sys.executable, str(APP), "write", *arguments, "--paragraphs", "400", "--json"]
        with subprocess.Popen([*command, "--stories", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
            # Sometimes while it starts, most times somewhere in the steps behind its first one.
            if rng.random() < 0.8:
                run.stdout.readline()
            time.sleep(rng.uniform(0, 4))
            assert run.poll() is None, "the run ended by itself"
            os.kill(run.pid, signal.SIGKILL)
            printed = [json.loads(line) for line in run.stdout.read().split(b"\n") if line.endswith(b"}")]
        steps = accepted(folder)
        assert steps[: len(before)] == before, "what was accepted stays as it was"
        assert [step["number"] for step in steps] == list(range(1, len(steps) + 1))
        assert all(record["paragraph"] == steps[record["step"] - 1]["paragraph"] for record in printed)
        before = steps
    with Story.open(tmp_path, "tale", write=True) as story:
        assert [step.paragraph for step in story.steps] == [step["paragraph"] for step in before]
    manuscript = (folder / "manuscript" / "0001.md").read_text("utf-8")
    for step in before[:20]:
        assert manuscript.count(step["paragraph"]) == 1
