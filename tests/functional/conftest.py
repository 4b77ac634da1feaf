"""Runs the command line in this process, as a user would type it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """An empty library of stories."""
    folder = tmp_path / "stories"
    monkeypatch.setenv("RECURRENT_WRITER_STORIES", str(folder))
    return folder


@pytest.fixture
def run(library, monkeypatch, capsys) -> Callable[..., Ran]:
    """`run("write", "--premise", "...")`; `stdin` is what the user types."""
    from recurrent_writer.cli import main

    def run(*arguments: str, stdin: str | bytes = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["recurrent-writer", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)))
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
