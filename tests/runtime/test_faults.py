"""Whatever goes wrong in a program, the engine goes on: no slot is lost, and the next context is right."""

from __future__ import annotations

import random
import time

import pytest
import torch
from pydantic import BaseModel

from runtime import Choices, Engine, Regex, Sampling, tool
from runtime.errors import EngineError, InvalidGrammar, SlotsExhausted, SpanGone, UnknownToken, UnsupportedSchema
from runtime.tasks import ToolUse
from runtime.tasks.events import ToolAnswered
from tests.conftest import MODES


@pytest.fixture(scope="module")
def engine(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3", positions=1024), slots=1000) as engine:
        yield engine


class Asked(BaseModel):
    tooluse: ToolUse
    conclusion: str


def raising() -> str:
    raise RuntimeError("broken")


@tool(timeout=0.01)
def hanging() -> str:
    time.sleep(2)
    return "late"


def leaving() -> str:
    raise SystemExit


def tools_that_fail(engine, rng):
    """Runs whose tools raise, hang or try to end the program."""
    offered = rng.choice([raising, hanging, leaving])
    run = engine.reason("?", [offered], tasks=[Asked], sampling=Sampling(max_tokens=80, seed=rng.randrange(99)))
    results = [event.result for event in run if isinstance(event, ToolAnswered)]
    assert all("error" in result for result in results)


def cancelled(engine, rng):
    """Generations and runs that are cancelled, or let go of, at any token."""
    if rng.random() < 0.5:
        run = engine.reason("?", [raising], sampling=Sampling(max_tokens=60, seed=rng.randrange(99)))
        for count, _ in enumerate(run):
            if count == rng.randrange(6):
                run.cancel()
        run.cancel()
    else:
        with some_context(engine, rng) as context:
            for count, _ in enumerate(context.generate(Sampling(max_tokens=20, seed=rng.randrange(99), ignore_eos=True))):
                if count == rng.randrange(6):
                    context.cancel() if rng.random() < 0.5 else context.close()
                    break


def too_small_a_pool(engine, rng):
    """Contexts that fit together by turns, or not at all."""
    contexts = [engine.context([rng.randrange(2, 300)] * rng.randrange(300, 500), mode=rng.choice(MODES)) for _ in range(3)]
    for context in rng.choices(contexts, k=5):
        context.append([7] * rng.randrange(1, 30))
        context.logits()
    contexts[0].append([9] * (1005 - len(contexts[0])))
    with pytest.raises(SlotsExhausted):
        contexts[0].logits()
    for context in contexts:
        context.close()


def impossible_schemas(engine, rng):
    """What cannot be enforced, or leaves no token."""
    with some_context(engine, rng) as context:
        schema = rng.choice([{"not": {}}, Regex("("), {"type": "array", "uniqueItems": True}, {"type": "no"}])
        with pytest.raises((UnsupportedSchema, InvalidGrammar)):
            context.generate(Sampling(schema=schema))
        with pytest.raises(EngineError):
            context.generate(
                Sampling(schema=Choices(["no", "yes"]), logit_bias=dict.fromkeys(range(engine.vocab_size), -torch.inf))
            ).run()
        context.generate(Sampling(max_tokens=3, seed=1)).run()


def broken_forwards(engine, rng):
    """A forward that fails in the middle, for one of several contexts that share it."""
    with some_context(engine, rng) as one, some_context(engine, rng) as other, pytest.MonkeyPatch.context() as patch:
        one.logits()
        fault = rng.choice([RuntimeError, torch.OutOfMemoryError, KeyboardInterrupt])

        def fail(_):
            raise fault("in the middle")

        patch.setattr(engine.decoder, "forward", fail)
        one.append([5])
        for context in rng.sample([one, other], 2):
            with pytest.raises((RuntimeError, EngineError, KeyboardInterrupt)):
                context.logits()
        with pytest.raises((RuntimeError, EngineError, KeyboardInterrupt)):
            other.generate(Sampling(max_tokens=3)).run()
        patch.undo()
        one.logits()
        other.generate(Sampling(max_tokens=3, seed=1)).run()


def wrong_use(engine, rng):
    """Spans that are gone, tokens that do not exist, contexts that were closed."""
    with some_context(engine, rng) as context:
        span = context.append([5, 6, 7])
        context.drop(span, mode=rng.choice(MODES))
        with pytest.raises(SpanGone):
            context.replace(span, [4])
        with pytest.raises(UnknownToken):
            context.append([10**9])
        context.logits()
    with pytest.raises(EngineError):
        context.logits()


FAULTS = (tools_that_fail, cancelled, too_small_a_pool, impossible_schemas, broken_forwards, wrong_use)


def some_context(engine, rng):
    """A context that was edited a little."""
    context = engine.context([rng.randrange(2, 300) for _ in range(rng.randrange(5, 40))], mode=rng.choice(MODES))
    if rng.random() < 0.5:
        context.logits()
        context.drop(context.span(1, 1 + rng.randrange(1, 4)))
        context.append([rng.randrange(2, 300)])
    return context


def run_programs(engine, eager, seeds):
    expected = eager(engine.model_path)([3, 5, 7, 9])
    for seed in seeds:
        rng = random.Random(seed)
        for fault in rng.choices(FAULTS, k=rng.randrange(1, 3)):
            fault(engine, rng)
            engine.check()
            assert engine.pool.free == engine.pool.size, (seed, fault.__name__)
        with engine.context([3, 5, 7, 9]) as context:
            assert (context.logits() - expected).abs().max() < 1e-4, seed


def test_a_hundred_programs_with_errors_thrown_in(engine, eager):
    run_programs(engine, eager, range(100))


@pytest.mark.soak
def test_two_thousand_programs_with_errors_thrown_in(engine, eager):
    run_programs(engine, eager, range(1000, 3000))
