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
    from runtime.context import Context
    from runtime.conversation import Conversation
    from runtime.engine import Engine
    from runtime.generation import Generation
    from runtime.grammars.schema import Choices, Ebnf, Regex
    from runtime.sampling import Sampling
    from runtime.span import Span
    from runtime.tasks.run import Run, RunStats
    from runtime.tools import McpServer, Tool, tool

__all__ = [
    "Choices",
    "Context",
    "ContextStats",
    "Conversation",
    "Ebnf",
    "Engine",
    "EngineError",
    "EngineStats",
    "Generation",
    "McpServer",
    "Regex",
    "Run",
    "RunStats",
    "Sampling",
    "Span",
    "Tool",
    "tool",
]

check_packages()

_HOMES = {
    "Choices": "grammars.schema",
    "Context": "context",
    "ContextStats": "stats",
    "Conversation": "conversation",
    "Ebnf": "grammars.schema",
    "Engine": "engine",
    "EngineStats": "stats",
    "Generation": "generation",
    "McpServer": "tools",
    "Regex": "grammars.schema",
    "Run": "tasks.run",
    "RunStats": "tasks.run",
    "Sampling": "sampling",
    "Span": "span",
    "Tool": "tools",
    "tool": "tools",
}


def __getattr__(name: str) -> object:
    """Torch takes seconds to load: it waits until the first name that needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'runtime' has no attribute '{name}'")
    return getattr(import_module(f"runtime.{_HOMES[name]}"), name)
