"""Local inference over contexts that are edited while they run.

from runtime import Engine, Sampling

context = Engine.load().context("Once upon a time")
for piece in context.generate(Sampling(max_tokens=100, seed=7)):
    print(piece, end="", flush=True)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from runtime.errors import EngineError, check_packages

if TYPE_CHECKING:
    from runtime.context import Context, ContextStats
    from runtime.engine import Engine
    from runtime.generation import Generation
    from runtime.sampling import Sampling
    from runtime.span import Span

__all__ = ["Context", "ContextStats", "Engine", "EngineError", "Generation", "Sampling", "Span"]

check_packages()

_HOMES = {
    "Context": "context",
    "ContextStats": "context",
    "Engine": "engine",
    "Generation": "generation",
    "Sampling": "sampling",
    "Span": "span",
}


def __getattr__(name: str) -> object:
    """Torch takes seconds to load: it waits until the first name that needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'runtime' has no attribute '{name}'")
    return getattr(import_module(f"runtime.{_HOMES[name]}"), name)
