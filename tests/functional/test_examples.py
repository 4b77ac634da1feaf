"""Every example runs, in a process of its own, as a newcomer would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAYS = {
    "live_edit.py": "mode rotate",
    "fork_and_compare.py": "perplexity",
    "typed_task_tree.py": "calc says 35",
    "tools_through_mcp.py": "answer: Edith",
    "batch.py": "under a pattern",
}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, ROOT / "examples" / name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert SAYS[name] in ran.stdout


def test_every_example_is_short_and_tested():
    for file in (ROOT / "examples").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 40
        assert file.name in {*SAYS, "family_server.py"}
