"""What can go wrong in the runtime; every message says what to do about it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


class EngineError(Exception):
    """Base of every error that the runtime raises for something its user can mend."""


class PackageConflict(EngineError, ImportError):
    """Another installed distribution takes the name of one of our packages."""


class ModelNotFound(EngineError):
    """There is no such folder, and no model of that name could be had."""


class ModelBroken(EngineError):
    """The folder is there, but a file in it is missing or cannot be read."""


class UnsupportedModel(EngineError):
    """The model is of an architecture that this runtime does not serve right yet."""


class UnsupportedDevice(EngineError):
    """The device asked for is not on this machine."""


class SlotsExhausted(EngineError):
    """A context needs more slots than the engine's pool has left."""


class PositionsExhausted(EngineError):
    """A context is longer than the positions that the model knows."""


class EmptyContext(EngineError):
    """Logits or text were asked of a context that holds no token."""


class SpanGone(EngineError):
    """A span was used that was dropped or replaced before, or that belongs to another context."""


class ContextBusy(EngineError):
    """A context was asked for something that a running generation does not allow, or was closed before."""


class EngineClosed(EngineError):
    """An engine was asked for something after it was closed."""


class UnknownToken(EngineError):
    """A token id is not in the model's vocabulary."""


class UnsupportedMode(EngineError):
    """A drop mode was named that does not exist."""


class InvalidSampling(EngineError):
    """A sampling value is out of its range."""


class UnsupportedSchema(EngineError):
    """A JSON schema cannot be enforced."""


def first_line(fault: Exception) -> str:
    """The first line of another library's error, or its name if it says nothing."""
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)[:300]


def check_packages() -> None:
    """Raise `PackageConflict` if the Hugging Face distribution `kernels` is installed, whose folder name is ours too."""
    try:
        found = version("kernels")
    except PackageNotFoundError:
        return
    raise PackageConflict(
        f"The package 'kernels' {found} of Hugging Face is installed here and shares its folder name with our own kernels: "
        "remove it with 'pip uninstall kernels', or install recurrent-writer in an environment of its own."
    )
