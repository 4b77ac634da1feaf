"""Loads the model that a command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime import Engine

_ONE_THREAD = 20_000_000
"""Below so many parameters a second thread saves nothing, and costs much on a machine that has other work."""


def load_engine(model: str | None) -> Engine:
    """A folder, a Hugging Face id, or None for the bundled model."""
    import torch

    from runtime import Engine

    engine = Engine.load(model)
    if engine.model.num_parameters() < _ONE_THREAD:
        torch.set_num_threads(1)
    return engine
