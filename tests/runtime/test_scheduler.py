"""Many contexts at once: shared steps, shared beginnings, too few slots, several threads, asyncio."""

from __future__ import annotations

import asyncio
import random
import threading

import numpy as np
import pytest

from runtime import Engine, Sampling
from runtime.errors import ContextBusy, SlotsExhausted
from runtime.generation import advance
from runtime.work import Work

GREEDY = Sampling(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.fixture
def engine(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=140) as engine:
        yield engine
        engine.check()


def alone(engine, ids, sampling=GREEDY):
    with engine.context(ids) as context:
        return context.generate(sampling).run()


def test_generations_that_run_together_share_their_steps(engine):
    contexts = [engine.context([3 + n] * 4) for n in range(5)]
    steps = engine.stats.steps
    for _ in advance([context.generate(GREEDY) for context in contexts]):
        pass
    assert engine.stats.steps - steps == GREEDY.max_tokens
    for context in contexts:
        context.close()


def test_contexts_that_grow_together_keep_their_slots_in_runs(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=1000) as engine:
        contexts = [engine.context([3 + n] * 4) for n in range(5)]
        for _ in advance([context.generate(GREEDY) for context in contexts]):
            pass
        for context in contexts:
            slots = context.row.slots[:-1]  # the last token is not encoded yet
            assert (np.diff(slots) == 1).all()


def test_a_drop_a_result_and_a_tail_are_one_extend(engine):
    with engine.context([3] * 10) as context:
        span = context.append([5] * 10)
        context.append([6] * 10)
        context.logits()
        steps = engine.stats.steps
        context.drop(span)
        context.append([7] * 5)
        context.logits()
        assert engine.stats.steps - steps == 1


def test_a_long_prompt_does_not_hold_up_those_who_stream(engine, monkeypatch):
    monkeypatch.setattr(engine.scheduler, "_step_tokens", 8)
    with engine.context([3] * 4) as short, engine.context([5] * 80) as long:
        order = []
        for generation, piece in advance([long.generate(GREEDY), short.generate(GREEDY)]):
            order.append((generation.context is short, piece))
        assert [is_short for is_short, _ in order][:5] == [True] * 5
        expected = alone(engine, [5] * 80)
        assert "".join(piece for is_short, piece in order if not is_short) == expected


def test_the_same_beginning_is_encoded_once(engine):
    beginning = list(range(40, 80))
    contexts = [engine.context([*beginning, 90 + n]) for n in range(8)]
    expected = [alone(engine, [*beginning, 90 + n]) for n in range(8)]
    encoded, free = engine.stats.encoded_tokens, engine.pool.free
    generations = [context.generate(GREEDY) for context in contexts]
    for _ in advance(generations):
        pass
    assert [generation.text for generation in generations] == expected
    fed = 8 * (GREEDY.max_tokens - 1)
    assert engine.stats.encoded_tokens - encoded == len(beginning) + 8 + fed
    assert free - engine.pool.free == len(beginning) + 8 + fed
    for context in contexts:
        context.close()


def test_what_an_edit_in_another_mode_left_is_not_shared(engine, eager):
    with engine.context(list(range(40, 80)), mode="gap") as dropped:
        dropped.logits()
        dropped.drop(dropped.span(0, 5))
        with engine.context(dropped.token_ids) as fresh:
            assert (fresh.logits() - eager(engine.model_path)(fresh.token_ids)).abs().max() < 1e-4


def test_with_too_few_slots_contexts_take_turns_and_nothing_is_lost(engine):
    prompts = [[10 + n] * (20 + n) for n in range(12)]
    expected = [alone(engine, prompt) for prompt in prompts]
    contexts = [engine.context(prompt) for prompt in prompts]
    generations = [context.generate(GREEDY) for context in contexts]
    for _ in advance(generations):
        engine.check()
    assert [generation.text for generation in generations] == expected
    assert engine.stats.evictions > 0
    for context in contexts:
        context.close()


@pytest.mark.parametrize("mode", ["exact", "gap", "rotate"])
def test_an_evicted_context_goes_on_as_if_nothing_had_been(engine, mode):
    def story(disturb):
        with engine.context([3, 4, 5] * 10, mode=mode) as context:
            middle = context.append([6, 7] * 5)
            context.append([8, 9] * 5)
            context.logits()
            context.drop(middle)
            first = context.generate(GREEDY).run()
            if disturb:
                with engine.context([11] * 130) as other:
                    other.logits()
                assert context.stats.evictions == 1
            return first + context.generate(GREEDY).run()

    assert story(True) == story(False)


def test_the_lowest_priority_gives_way(engine):
    with (
        engine.context([3] * 50, priority=1) as high,
        engine.context([4] * 50, priority=0) as low,
        engine.context([5] * 60, priority=2) as highest,
    ):
        low.logits()
        high.logits()
        highest.logits()
        assert (high.cache.resident, low.cache.resident) == (True, False)


def test_what_can_never_fit_is_an_error_that_names_the_numbers(engine):
    with engine.context([3] * 150) as context:
        with pytest.raises(SlotsExhausted, match="150 tokens .* 140 of the engine's 140 slots"):
            context.logits()
        context.drop(context.span(0, 100))
        context.logits()


def test_a_seed_gives_the_same_text_alone_and_among_others(engine):
    sampling = Sampling(max_tokens=12, seed=5, ignore_eos=True)
    expected = alone(engine, [3, 4, 5], sampling)
    contexts = [engine.context([3, 4, 5]), *(engine.context([n] * n) for n in range(6, 10))]
    generations = [context.generate(sampling) for context in contexts]
    for _ in advance(generations):
        pass
    assert generations[0].text == expected
    for context in contexts:
        context.close()


def test_threads_stream_side_by_side(engine):
    prompts = [[10 + n] * 5 for n in range(8)]
    expected = [alone(engine, prompt) for prompt in prompts]
    texts = [""] * len(prompts)

    def stream(at):
        with engine.context(prompts[at]) as context:
            for piece in context.generate(GREEDY):
                texts[at] += piece

    steps = engine.stats.steps
    threads = [threading.Thread(target=stream, args=(at,)) for at in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert texts == expected
    assert engine.stats.steps - steps < GREEDY.max_tokens * len(prompts)


def test_asyncio_streams_side_by_side(engine):
    prompts = [[10 + n] * 5 for n in range(6)]
    expected = [alone(engine, prompt) for prompt in prompts]

    async def stream(prompt):
        with engine.context(prompt) as context:
            return "".join([piece async for piece in context.generate(GREEDY)])

    async def all_of_them():
        return await asyncio.gather(*(stream(prompt) for prompt in prompts))

    assert asyncio.run(all_of_them()) == expected


def test_a_task_that_is_cancelled_ends_its_generation(engine):
    async def stop_early():
        context = engine.context([3] * 5)
        generation = context.generate(Sampling(max_tokens=200, ignore_eos=True))

        async def stream():
            async for _ in generation:
                pass

        task = asyncio.create_task(stream())
        while len(generation.span) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return context, generation

    context, generation = asyncio.run(stop_early())
    generation.cancel()
    with context:
        while generation.finish_reason == "running":
            pass
        assert generation.finish_reason == "cancelled"
        context.append([4])


def test_waiting_for_a_context_that_was_closed_is_an_error(engine):
    context = engine.context([3] * 5)
    work = Work(context)
    context.close()
    engine.scheduler.wait([work])
    assert isinstance(work.error, ContextBusy)


def test_random_use_from_many_threads_leaves_no_slot_behind(engine):
    faults = []

    def use(seed):
        rng = random.Random(seed)
        try:
            for _ in range(6):
                with engine.context(
                    [rng.randrange(2, 300) for _ in range(rng.randrange(1, 30))],
                    mode=rng.choice(["exact", "gap", "rotate"]),
                    priority=rng.randrange(3),
                ) as context:
                    span = context.append([5] * rng.randrange(1, 10))
                    generation = context.generate(Sampling(max_tokens=6, seed=seed, ignore_eos=True))
                    for count, _ in enumerate(generation):
                        if count == rng.randrange(8):
                            generation.cancel()
                    context.drop(span)
                    with context.fork() as twin:
                        twin.append([9])
                        twin.logits()
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults
    engine.check()
    assert engine.pool.free == engine.pool.size
