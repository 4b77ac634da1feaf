"""`recurrent-writer doctor`: what was found here, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from recurrent_writer.cli.console import visible
from recurrent_writer.errors import WriterError
from recurrent_writer.library import library_folder, story_names

_PACKAGES = ("recurrent-writer", "torch", "transformers", "tokenizers", "llguidance", "chromadb", "triton")
_OPTIONAL = {"triton": "not needed without a GPU"}
_REMEDY = "run make story again, or pip install ."
_SPARE_DISK = 200 * 2**20


def doctor(
    model: Annotated[str | None, typer.Option(help="A model to look at instead of the bundled one.")] = None,
    stories: Annotated[Path | None, typer.Option(help="The folder that holds the stories.")] = None,
) -> None:
    """Look at this machine: devices, model, versions, disk. Exit code 1 if something keeps the program from writing."""
    checks: dict[str, Callable[[], tuple[bool, str]]] = {"python": _python}
    checks |= {name: partial(_package, name) for name in _PACKAGES}
    checks |= {"memory": _memory, "devices": _devices, "model": partial(_model, model), "stories": partial(_library, stories)}
    healthy = True
    for subject, look in checks.items():
        try:
            good, found = look()
        except Exception as fault:  # whatever is broken here, the other rows are worth having
            good, found = False, f"{fault} ({_REMEDY})"
        sys.stdout.write(f"{'ok ' if good else 'NO '} {subject:<18} {visible(found)}\n")
        sys.stdout.flush()
        healthy = healthy and good
    if not healthy:
        raise typer.Exit(1)


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _package(name: str) -> tuple[bool, str]:
    try:
        return True, version(name)
    except PackageNotFoundError:
        return name in _OPTIONAL, f"not installed ({_OPTIONAL.get(name, _REMEDY)})"


def _memory() -> tuple[bool, str]:
    import psutil

    memory = psutil.virtual_memory()
    enough = memory.available > 2**30
    text = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    return enough, text + ("" if enough else ": close other programs, or use a smaller model")


def _devices() -> tuple[bool, str]:
    import torch

    names = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"]
    names += [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())]
    return True, ", ".join(names)


def _model(name: str | None) -> tuple[bool, str]:
    from runtime import Engine, EngineError

    try:
        with Engine.load(name) as engine:
            count = sum(parameter.numel() for parameter in engine.model.parameters())
            architecture = engine.model.config.model_type
            text = (
                f"{engine.model_path}  {architecture}, {count / 1e6:.1f} M parameters, {engine.max_positions} positions, "
                f"{engine.pool.size} slots"
            )
        return True, text
    except EngineError as fault:
        return False, str(fault)


def _library(chosen: Path | None) -> tuple[bool, str]:
    try:
        folder = library_folder(chosen)
    except WriterError as fault:
        return False, str(fault)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return False, f"{folder} cannot be written: name another folder with --stories"
    free = shutil.disk_usage(existing).free
    text = f"{folder}  {len(story_names(folder))} stories, {free / 2**30:.1f} GiB free on the disk"
    return free > _SPARE_DISK, text + ("" if free > _SPARE_DISK else ": make room")
