"""Local inference over contexts that are edited while they run.

from runtime import Engine, Sampling

context = Engine.load().context("Once upon a time")
for piece in context.generate(Sampling(max_tokens=100, seed=7)):
    print(piece, end="", flush=True)
"""

from runtime.errors import EngineError, check_packages

check_packages()

from runtime.context import Context, ContextStats
from runtime.engine import Engine
from runtime.generation import Generation
from runtime.sampling import Sampling
from runtime.span import Span

__all__ = ["Context", "ContextStats", "Engine", "EngineError", "Generation", "Sampling", "Span"]
