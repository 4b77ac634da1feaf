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


class OutOfMemory(EngineError):
    """The device has no memory left for weights, slots or a forward pass."""


class InvalidPool(EngineError):
    """A number of slots was asked for that no pool can have."""


class PositionsExhausted(EngineError):
    """A context is longer than the positions that the model knows."""


class EmptyContext(EngineError):
    """Logits or text were asked of a context that holds no token."""


class SpanGone(EngineError):
    """A span was used that was dropped or replaced before, or that belongs to another context."""


class SnapshotBroken(EngineError):
    """A file is no snapshot of a context, or is damaged."""


class SnapshotMismatch(EngineError):
    """A snapshot was taken with another model or tokenizer."""


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


class InvalidGrammar(EngineError):
    """A regular expression, a list of choices or an EBNF grammar cannot be read."""


class TokenRefused(EngineError):
    """A token was given that the schema does not allow where it stands."""


class GrammarStuck(EngineError):
    """No token may follow, and the text is not complete."""


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


class MisdeclaredTool(EngineError):
    """Something was offered as a tool that cannot be one."""


class ToolFailed(EngineError):
    """A tool cannot answer and says why. Tools may raise it: its message goes to the model as it is."""


class ToolServerFailed(EngineError):
    """An MCP server could not be started or reached."""


class MisdeclaredTask(EngineError):
    """A class was given as a task that cannot be one."""


class MalformedTree(EngineError):
    """The text of a run is not the JSON of a task tree."""


class InvalidPruning(EngineError):
    """A pruning setting does not exist."""


class RecordingFailed(EngineError):
    """A run cannot be recorded where it should be."""


class BrokenRecording(EngineError):
    """A file is not a recording of a run, or a line in its middle is damaged."""


class NothingAllowed(EngineError):
    """Grammar, banned strings and biases together leave no token to choose."""

    def __init__(self, row: int, allowed: int) -> None:
        super().__init__(
            f"Row {row} of the batch has no token left: 'banned' and 'logit_bias' forbid all {allowed} tokens that could come "
            "here; forbid less, or change the schema."
        )
        self.row = row
        """Which row it is. The others can be chosen again without it: nothing has changed for them."""


class BrokenLogits(EngineError):
    """A model gave logits that are no numbers."""
