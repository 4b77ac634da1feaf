"""`recurrent-writer doctor`: what was found here, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import psutil
import typer

from recurrent_writer.library import library_folder, story_names

_PACKAGES = ("recurrent-writer", "torch", "transformers", "tokenizers", "llguidance", "chromadb", "triton")
_OPTIONAL = {"triton": "not needed without a GPU"}
_SPARE_DISK = 200 * 2**20


def doctor(
    model: Annotated[str | None, typer.Option(help="A model to look at instead of the bundled one.")] = None,
    stories: Annotated[Path | None, typer.Option(help="The folder that holds the stories.")] = None,
) -> None:
    """Look at this machine: devices, model, versions, disk. Exit code 1 if something keeps the program from writing."""
    reports = [_python(), *_packages(), _memory(), _devices(), _model(model), _library(library_folder(stories))]
    for good, subject, found in reports:
        sys.stdout.write(f"{'ok ' if good else 'NO '} {subject:<18} {found}\n")
    if not all(good for good, _, _ in reports):
        raise typer.Exit(1)


def _python() -> tuple[bool, str, str]:
    return sys.version_info >= (3, 11), "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> list[tuple[bool, str, str]]:
    found = []
    for name in _PACKAGES:
        try:
            found.append((True, name, version(name)))
        except PackageNotFoundError:
            remedy = _OPTIONAL.get(name)
            found.append((remedy is not None, name, f"not installed ({remedy or 'run make story again, or pip install .'})"))
    return found


def _memory() -> tuple[bool, str, str]:
    memory = psutil.virtual_memory()
    enough = memory.available > 2**30
    text = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    return enough, "memory", text + ("" if enough else ": close other programs, or use a smaller model")


def _devices() -> tuple[bool, str, str]:
    import torch

    names = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"]
    names += [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())]
    return True, "devices", ", ".join(names)


def _model(name: str | None) -> tuple[bool, str, str]:
    from runtime import Engine, EngineError

    try:
        with Engine.load(name) as engine:
            count = sum(parameter.numel() for parameter in engine.model.parameters())
            architecture = engine.model.config.model_type
            text = (
                f"{engine.model_path}  {architecture}, {count / 1e6:.1f} M parameters, {engine.max_positions} positions, "
                f"{engine.pool.size} slots"
            )
        return True, "model", text
    except EngineError as fault:
        return False, "model", str(fault)


def _library(folder: Path) -> tuple[bool, str, str]:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        return False, "stories", f"{folder} cannot be written: name another folder with --stories"
    free = shutil.disk_usage(existing).free
    text = f"{folder}  {len(story_names(folder))} stories, {free / 2**30:.1f} GiB free on the disk"
    return free > _SPARE_DISK, "stories", text + ("" if free > _SPARE_DISK else ": make room")
