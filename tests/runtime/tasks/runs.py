"""Random runs for the tests, written as a model may write them and cut into tokens in any way, and the trees of them."""

from __future__ import annotations

import json
from itertools import cycle

from hypothesis import strategies as st

from runtime.tasks import PruningStack, TaskReader, Tree
from runtime.tasks.events import ToolRequested

texts = st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=4,
)


calls = st.builds(
    lambda name, parameters, result: {"tool_name": name, "parameters": parameters, "tool_result": result},
    st.sampled_from(["lookup", "calc"]),
    st.dictionaries(texts, json_values, max_size=2),
    json_values,
)


def tasks(names=("thought",)):
    """Random tasks whose text fields, but for the conclusion, have these names."""

    def task(subtasks):
        fields = st.lists(texts, min_size=len(names), max_size=len(names))
        return st.builds(_task, st.just(names), fields, st.none() | calls, subtasks, texts)

    return st.recursive(task(st.none()), lambda below: task(st.lists(below, min_size=1, max_size=3)), max_leaves=6)


def _task(names, fields, tooluse, subtasks, conclusion):
    task = dict(zip(names, fields, strict=True))
    if tooluse is not None:
        task["tooluse"] = tooluse
    if subtasks is not None:
        task["subtasks"] = subtasks
    return {**task, "conclusion": conclusion}


runs = st.builds(
    lambda reasoning, answer: {"reasoning": reasoning, "answer": answer}, st.lists(tasks(), min_size=1, max_size=3), json_values
)
cuts = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)
"""How long tokens are, over and over; some make no text certain, as half a character."""


def write(run, ascii_only=False):
    """Compact JSON, with every character beyond ASCII escaped or none."""
    return json.dumps(run, ensure_ascii=ascii_only, separators=(",", ":"))


def tokens_of(text, sizes):
    """The text, cut into pieces of these sizes."""
    at = 0
    for size in cycle(sizes):
        yield text[at : at + size]
        at += size
        if at >= len(text):
            return


def feed(reader, tokens):
    """The events of each token. What a token holds behind `"tool_result":` is fed as well, as if the model may write results."""
    for index, token in enumerate(tokens):
        events = []
        while token:
            events += (new := reader.feed(token, index))
            token = new[-1].rest if new and isinstance(new[-1], ToolRequested) else ""
        yield events


def events_of(tokens, keep=0, rule="conclusion"):
    """The events of all tokens, those of the pruning too."""
    reader, pruning = TaskReader(), PruningStack(keep, rule)
    return [event for events in feed(reader, tokens) for event in pruning.follow(events)]


def build(events):
    """The tree of these events."""
    tree = Tree()
    for event in events:
        tree.apply(event)
    return tree


def tree_of(text, keep=0):
    """The tree of a run's text, as far as it goes."""
    return build(events_of(text, keep))


def up_to(run, mark):
    """The text of a run to where this has just been written."""
    return write(run).partition(mark)[0] + mark


def lists_of(run):
    """Every task that has subtasks, by its path, in the order in which the lists end."""

    def below(task, path):
        for index, subtask in enumerate(task.get("subtasks", [])):
            yield from below(subtask, (*path, index))
        if "subtasks" in task:
            yield path

    return [path for index, task in enumerate(run["reasoning"]) for path in below(task, (index,))]
