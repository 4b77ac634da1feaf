"""Every command in the README does what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("sh"), ids=["write along", "a novel", "a question"])
def test_the_commands_of_each_use(block, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "recurrent-writer"
        ran = run(*arguments, stdin="1\nMaud opens the door.\nq\n")
        assert ran.code == 0, ran.err
        assert ran.out or "-o" in arguments
    assert "-o" not in block or (tmp_path / "bridge.md").read_text("utf-8").startswith("# Bridge")


def test_the_script(tmp_path):
    (script,) = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_the_command_doctor(run):
    assert "recurrent-writer doctor" in README
    assert run("doctor").code == 0


def test_make_story_writes_a_story(library):
    """With the environment that is there already, and fewer paragraphs; everything else as a user has it."""
    assert "\n    make story " in README
    assert "\n    make test " in README
    ran = subprocess.run(["make", "-C", str(ROOT), "story", "PARAGRAPHS=2"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (folder,) = library.iterdir()
    assert (folder / "manuscript" / "0001.md").read_text("utf-8").startswith("# Chapter 1")
    dry = subprocess.run(["make", "-C", str(ROOT), "--dry-run", "test"], capture_output=True, text=True)
    assert "-m pytest" in dry.stdout


def test_every_file_it_speaks_of_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
