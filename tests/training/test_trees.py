"""Task trees: the answers are right, the views are what pruning leaves, and the runner drops exactly what it should."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.trees import calculate, tools_of
from training.trees import problems, walks
from training.trees.problems import without_concepts
from training.trees.runner import Called, Prunable, TreeReader
from training.trees.task import count_calls, text_of, views
from training.world.lexicon import Lexicon

SEEDS = st.integers(0, 2**40)


def make(kind, seed, size):
    rng = random.Random(seed)
    lexicon = Lexicon(rng)
    match kind:
        case "arithmetic":
            return problems.arithmetic(rng, size)
        case "lookup":
            return problems.lookups(rng, size, lexicon)
        case "mixed":
            return problems.mixed(rng, min(size, 3), lexicon)
    return problems.with_concepts(rng, lexicon, min(size, 3))


PROBLEMS = st.builds(make, st.sampled_from(["arithmetic", "lookup", "mixed", "concept"]), SEEDS, st.integers(1, 9))


@settings(deadline=None)
@given(seed=SEEDS, depth=st.integers(1, 12))
def test_arithmetic_is_right(seed, depth):
    problem = problems.arithmetic(random.Random(seed), depth)
    expression = "".join(c for c in problem.question if c in "0123456789+-*()")
    assert int(problem.answer) == eval(expression)


@settings(deadline=None)
@given(problem=PROBLEMS)
def test_every_call_of_a_solution_gets_what_the_tool_says(problem):
    tools = tools_of(problem)

    def check(tasks):
        for task in tasks:
            if task.tooluse is not None:
                assert tools[task.tooluse.tool_name](task.tooluse.parameters) == task.tooluse.tool_result
            check(task.subtasks)

    check(problem.reasoning)
    assert problem.reasoning[-1].conclusion == problem.answer


@settings(deadline=None)
@given(problem=PROBLEMS)
def test_views_are_what_pruning_leaves_of_the_whole(problem):
    whole = text_of(problem.reasoning, problem.answer)
    written = "".join(piece.text for view in views(problem.reasoning, problem.answer) for piece in view.target)
    assert written == whole, "what the views write, one after the other, is the whole run"
    found = views(problem.reasoning, problem.answer)
    last = found[-1].context + "".join(piece.text for piece in found[-1].target)
    assert json.loads(last)["answer"] == problem.answer
    assert all(not task.get("subtasks") for task in json.loads(last)["reasoning"])
    assert len(last) <= len(whole)


@settings(deadline=None)
@given(problem=PROBLEMS)
def test_the_reader_finds_the_calls_and_the_lists_to_drop(problem):
    reader, kept, calls = TreeReader(), [], 0
    for character in text_of(problem.reasoning, problem.answer):
        kept.append(character)
        for event in reader.feed(character, len(kept) - 1):
            if isinstance(event, Called):
                calls += 1
            elif isinstance(event, Prunable):
                del kept[event.start : event.stop]
    assert calls == count_calls(problem.reasoning)
    assert reader.answer == problem.answer
    last = views(problem.reasoning, problem.answer)[-1]
    assert "".join(kept) == last.context + "".join(piece.text for piece in last.target)


def test_the_reader_is_not_confused_by_what_strings_hold():
    reader, calls = TreeReader(), []
    text = '{"reasoning":[{"thought":"a \\"}],{\\\\","tooluse":{"tool_name":"x","parameters":{"e":"]}\\""},"tool_result":1},"conclusion":"\\u00e9"}],"answer":"\\"q"}'
    for at, character in enumerate(text):
        calls += [event for event in reader.feed(character, at) if isinstance(event, Called)]
    assert calls == [Called("x", {"e": ']}"'})]
    assert reader.answer == '"q'


@settings(deadline=None)
@given(seed=SEEDS)
def test_a_concept_is_needed(seed):
    problem = make("concept", seed, 2)
    assert problem.concepts
    assert "Concepts:" not in without_concepts(problem).prompt
    word = problem.reasoning[0].subtasks[0].subtasks[0].thought
    assert any(part in entry for entry in problem.concepts for part in word.replace("(", " ").replace(")", " ").split())


@pytest.mark.parametrize(
    ("text", "value"), [("3+4", 7), ("-3*4", -12), ("5--2", 7), ("1/0", "error"), ("__import__", "error"), ("1+2+3", "error")]
)
def test_the_calculator(text, value):
    assert calculate(text) == value


@settings(deadline=None)
@given(seed=SEEDS, sort=st.sampled_from(["clues", "largest", "last"]), length=st.integers(2, 300))
def test_a_walk_ends_where_its_tool_says(seed, sort, length):
    rng = random.Random(seed)
    walk = walks.draw_walk(rng, sort, length, Lexicon(rng))
    state = walk.start if sort == "clues" else "nothing"
    for call in range(1, length + 1):
        state = walks.step(sort, state, walk.result(call)).conclusion
        assert walks.done(state) == (call == length)
    assert state == f"found {walk.answer()}"


@settings(deadline=None)
@given(seed=SEEDS, sort=st.sampled_from(["clues", "largest", "last"]))
def test_a_view_of_a_walk_is_a_beginning_of_json_with_short_lists(seed, sort):
    rng = random.Random(seed)
    _, view = walks.draw_view(rng, sort, Lexicon(rng))
    text = view.context + "".join(piece.text for piece in view.target)
    closed = text
    for _ in range(2 * walks.HEIGHT):
        try:
            found = json.loads(closed)
            break
        except json.JSONDecodeError:
            opened = [c for c in strip_strings(closed) if c in "[{]}"]
            stack = []
            for c in opened:
                if c in "[{":
                    stack.append(c)
                else:
                    stack.pop()
            closed += "]" if stack[-1] == "[" else "}"
    tasks = found["reasoning"]
    assert len(tasks) <= walks.WIDTH + 1
    while tasks := tasks[-1].get("subtasks", []):
        assert len(tasks) <= walks.WIDTH


def strip_strings(text):
    return "".join(part for index, part in enumerate(text.split('"')) if index % 2 == 0)
