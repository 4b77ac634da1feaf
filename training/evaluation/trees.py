"""Task trees on the runtime: arithmetic, look-ups, concepts, and walks whose length nobody tells, with pruning and without."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runtime import Engine
from training.evaluation.row import Row, Track, share
from training.evaluation.stories import FIRST_SEED
from training.trees import problems
from training.trees.problems import Problem, without_concepts
from training.trees.runner import Abandoned, Ran, Tools, run_tree
from training.trees.task import Value, count_calls, text_of
from training.trees.walks import Sort, Walk, draw_walk
from training.world.lexicon import Lexicon

TRAINED_DEPTH, TRAINED_HOPS = 6, 8
FACTORS = (2, 4, 10)
WALK_CALLS = {10: 1, 100: 4, 1000: 10}
"""Lengths of walks, and by how much fewer there are of each: the long ones take minutes."""
LONG_WALK_CALLS = {4000: 40}


def rows(engine: Engine, cases: int, track: Track) -> Iterator[Row]:
    """Every kind of problem within the depth of training, then the curves beyond it."""
    makers: dict[str, tuple[Callable[[random.Random, int, Lexicon], Problem], int]] = {
        "arithmetic": (lambda rng, depth, _: problems.arithmetic(rng, depth), TRAINED_DEPTH),
        "look-ups": (problems.lookups, TRAINED_HOPS),
        "mixed": (problems.mixed, 3),
    }
    for name, (make, trained) in makers.items():
        every = [depth for depth in range(1, trained + 1) for _ in range(max(1, cases // trained))]
        yield _solved(engine, track, f"{name}, depth 1 to {trained} (trained)", every, make, aim=95)
        if name != "mixed":
            for factor in FACTORS:
                count = max(3, cases // (2 * factor))
                yield _solved(
                    engine, track, f"{name}, depth {trained * factor} ({factor} times)", [trained * factor] * count, make
                )
    yield from _concept_rows(engine, cases, track)


def _solved(
    engine: Engine,
    track: Track,
    name: str,
    depths: list[int],
    make: Callable[[random.Random, int, Lexicon], Problem],
    aim: float | None = None,
) -> Row:
    advance = track(name, len(depths))
    right = []
    for number, depth in enumerate(depths):
        rng = random.Random(FIRST_SEED + number)
        problem = make(rng, depth, Lexicon(rng, "held_out"))
        right.append(solve(engine, problem).answer == problem.answer)
        advance()
    return share("trees", name, right, aim)


def _concept_rows(engine: Engine, cases: int, track: Track) -> Iterator[Row]:
    advance = track("concepts", cases)
    with_, without = [], []
    for number in range(cases):
        rng = random.Random(FIRST_SEED + number)
        problem = problems.with_concepts(rng, Lexicon(rng, "held_out"), rng.choice((1, 1, 2, 3)))
        with_.append(solve(engine, problem).answer == problem.answer)
        without.append(solve(engine, without_concepts(problem)).answer == problem.answer)
        advance()
    yield share("trees", "an operator that only a concept explains", with_)
    yield share("trees", "- the same with the concept taken away", without)


def walk_rows(engine: Engine, lengths: Mapping[int, int], cases: int, track: Track) -> Iterator[Row]:
    """Open-ended walks with pruning."""
    for calls, fewer in lengths.items():
        count = max(1, cases // fewer)
        sorts: tuple[Sort, ...] = ("clues", "largest")
        for sort in sorts:
            advance = track(f"{sort}, {calls} calls", count)
            right, made, peak, emitted = [], 0, 0, 0
            for number in range(count):
                ran, walk = _walk(engine, sort, calls, number, prune=True)
                right.append(ran.answer == walk.answer())
                made += ran.calls
                peak, emitted = max(peak, ran.peak_tokens), max(emitted, ran.emitted_tokens)
                advance()
            name = "clues followed to the end" if sort == "clues" else "largest item of a list"
            yield share("walks", f"{name}, {calls} calls, pruned", right, 95 if calls == 1000 else None)
            if sort == "clues":
                yield Row("walks", "- calls made before the trail was lost or found (mean)", made / count, count, None, "calls")
            yield Row("walks", "- most tokens resident", peak, count, 400 if calls <= 1000 else None, "tokens")
            yield Row("walks", "- tokens emitted", emitted, count, None, "tokens emitted")


def unpruned_rows(engine: Engine, track: Track) -> Iterator[Row]:
    """A walk without pruning, as far as the model gets."""
    advance = track("clues without pruning", 5)
    reached = []
    for number in range(5):
        reached.append(_walk(engine, "clues", 400, number, prune=False)[0].calls)
        advance()
    yield Row("walks", "calls made without pruning before it broke (mean)", sum(reached) / len(reached), 5, None, "calls")


def _walk(engine: Engine, sort: Sort, calls: int, number: int, *, prune: bool) -> tuple[Ran, Walk]:
    rng = random.Random(FIRST_SEED + number)
    walk = draw_walk(rng, sort, calls, Lexicon(rng, "held_out"))
    made = 0

    def answer(parameters: dict[str, Any]) -> Value:
        nonlocal made
        expected = walk.start if made == 0 else walk.result(made)
        if made >= calls or (sort == "clues" and parameters["place"] != expected):
            raise Abandoned("the trail is lost")
        made += 1
        return walk.result(made)

    most = 100 * calls + 1000 if prune else engine.max_positions - 200
    return run_tree(engine, walk.prompt, {walk.tool: answer}, prune=prune, max_calls=calls, max_tokens=most), walk


def solve(engine: Engine, problem: Problem) -> Ran:
    """Run a problem with its tools, for at most twice the calls and tokens of the solution that is taught."""
    calls = 2 * count_calls(problem.reasoning)
    tokens = 2 * len(engine.encode(text_of(problem.reasoning, problem.answer), special=False))
    return run_tree(engine, problem.prompt, tools_of(problem), max_calls=calls, max_tokens=tokens)


def tools_of(problem: Problem) -> Tools:
    """The tools of a problem; a wrong call gets an answer that says so."""
    known: dict[str, Callable[[dict[str, Any]], Value]] = {
        "calc": lambda parameters: calculate(str(parameters["expression"])),
        "lookup": lambda parameters: problem.facts.get((parameters["name"], parameters["relation"]), "unknown"),
    }
    return {name: known[name] for name in problem.tools}


def calculate(expression: str) -> Value:
    """What the calculator says: one operation on two whole numbers."""
    match = re.fullmatch(r"(-?\d{1,9})([+*-])(-?\d{1,9})", expression)
    if match is None:
        return "error"
    left, right = int(match[1]), int(match[3])
    return {"+": left + right, "-": left - right, "*": left * right}[match[2]]
