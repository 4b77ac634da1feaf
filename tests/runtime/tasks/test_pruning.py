"""Pruning: after every token, what is left is the whole text with exactly the lists emptied that the rule says."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidPruning
from runtime.tasks import PruningStack, ResidentText, TaskReader
from runtime.tasks.events import Concluded, Extent, ListClosed, ListPruned
from tests.runtime.tasks.runs import cuts, events_of, feed, lists_of, runs, tokens_of, write

KEEPS = st.sampled_from([0, 1, 2, None])
RULES = st.sampled_from(["conclusion", "bracket"])
RUN = {
    "reasoning": [
        {
            "thought": "a",
            "subtasks": [{"thought": "b", "subtasks": [{"thought": "c", "conclusion": "d"}], "conclusion": "e"}],
            "conclusion": "f",
        },
        {"thought": "g", "subtasks": [{"thought": "h", "conclusion": "i"}], "conclusion": "j"},
    ],
    "answer": "k",
}


class Vocabulary:
    """Spells any text in token ids, two characters a token."""

    def __init__(self):
        self.texts = []

    def encode(self, text):
        return [self.add(piece) for piece in tokens_of(text, [2])]

    def add(self, text):
        self.texts.append(text)
        return len(self.texts) - 1

    def decode(self, ids):
        return "".join(self.texts[token] for token in ids)


def pruned_of(run, keep=0, rule="conclusion", sizes=(1,)):
    followed = events_of(tokens_of(write(run), sizes), keep, rule)
    return followed, [event.node for event in followed if isinstance(event, ListPruned)]


def without(text, holes):
    """A text without the characters of these holes, which may lie in one another."""
    gone = {at for first, last in holes for at in range(first, last)}
    return "".join(character for at, character in enumerate(text) if at not in gone)


@settings(deadline=None)
@given(run=runs, keep=KEEPS, rule=RULES, sizes=cuts)
def test_what_is_left_is_the_text_without_the_pruned_lists(run, keep, rule, sizes):
    reader, pruning, vocabulary = TaskReader(), PruningStack(keep, rule), Vocabulary()
    left = ResidentText(vocabulary.encode)
    context, emitted, holes = [], "", []
    tokens = list(tokens_of(write(run), sizes))
    for token, events in zip(tokens, feed(reader, tokens), strict=True):
        emitted += token
        left.append(token)
        context.append(vocabulary.add(token))
        for event in pruning.follow(events):
            if isinstance(event, ListPruned):
                holes.append(event.inside.characters)
                edit = left.cut(event.inside)
                context[edit.start : edit.stop] = edit.token_ids
                assert left.text == without(emitted, holes)
                assert vocabulary.decode(context) == left.text
        assert len(left) == len(context)
    assert left.text == vocabulary.decode(context) == without(emitted, holes)


@settings(deadline=None)
@given(run=runs, keep=KEEPS, rule=RULES, sizes=cuts)
def test_the_oldest_finished_lists_are_pruned_down_to_those_kept(run, keep, rule, sizes):
    followed, pruned = pruned_of(run, keep, rule, sizes)
    finishes = Concluded if rule == "conclusion" else ListClosed
    finished = 0
    for event in followed:
        if isinstance(event, finishes) and event.node in lists_of(run):
            finished += 1
        elif isinstance(event, ListPruned):
            assert keep is not None
            assert finished > keep
            assert lists_of(run).index(event.node) == finished - keep - 1
    expected = lists_of(run)
    assert pruned == (expected[: max(0, len(expected) - keep)] if keep is not None else [])


@settings(deadline=None)
@given(run=runs, sizes=cuts)
def test_with_keep_0_what_is_left_in_the_end_is_json_with_empty_lists(run, sizes):
    followed, _ = pruned_of(run, 0, "conclusion", sizes)
    left = without(write(run), [event.inside.characters for event in followed if isinstance(event, ListPruned)])
    emptied = [{**task, "subtasks": []} if "subtasks" in task else task for task in run["reasoning"]]
    assert json.loads(left) == {**run, "reasoning": emptied}


@pytest.mark.parametrize(
    ("rule", "written"),
    [("conclusion", '],"conclusion":"e"'), ("bracket", "]")],
)
def test_a_list_goes_at_the_moment_that_the_rule_says(rule, written):
    reader, pruning = TaskReader(), PruningStack(0, rule)
    start, list_end, _ = write(RUN).partition('"conclusion":"d"}')
    assert not any(isinstance(event, ListPruned) for event in pruning.follow(reader.feed(start + list_end + written[:-1], 0)))
    assert isinstance(pruning.follow(reader.feed(written[-1], 1))[-1], ListPruned)


@pytest.mark.parametrize(
    ("keep", "pruned"), [(0, [(0, 0), (0,), (1,)]), (1, [(0, 0), (0,)]), (2, [(0, 0)]), (3, []), (None, [])]
)
def test_keep_says_how_many_finished_lists_stay(keep, pruned):
    assert pruned_of(RUN, keep)[1] == pruned


@pytest.mark.parametrize("rule", ["conclusion", "bracket"])
@pytest.mark.parametrize("keep", [0, 2, None])
def test_what_pruning_remembers_follows_depth(keep, rule):
    def size(count):
        run = {"reasoning": RUN["reasoning"] * count, "answer": ""}
        pruning, reader = PruningStack(keep, rule), TaskReader()
        for events in feed(reader, [write(run)]):
            pruning.follow(events)
        return len(pickle.dumps(pruning))

    assert size(300) < size(3) + 40


@pytest.mark.parametrize(("keep", "rule", "why"), [(-1, "conclusion", "keep=-1"), (0, "age", "no pruning rule 'age'")])
def test_settings_that_do_not_exist_are_refused(keep, rule, why):
    with pytest.raises(InvalidPruning, match=why):
        PruningStack(keep, rule)


def test_a_cut_between_tokens_encodes_nothing():
    left = ResidentText(lambda text: pytest.fail(f"encoded {text}"))
    for token in ["a[", "xx", "y", "]b"]:
        left.append(token)
    edit = left.cut(Extent((1, 3), (2, 5)))
    assert (edit.start, edit.stop, edit.token_ids) == (1, 3, [])
    assert left.text == "a[]b"


def test_tokens_that_hold_a_bracket_and_more_are_written_anew():
    vocabulary = Vocabulary()
    left = ResidentText(vocabulary.encode)
    for token in ["a", "[{", "x", "}]", "b"]:
        left.append(token)
    edit = left.cut(Extent((2, 3), (2, 5)))
    assert (edit.start, edit.stop, vocabulary.decode(edit.token_ids)) == (1, 4, "[]")
    assert left.text == "a[]b"


def test_a_token_without_text_belongs_to_what_follows_it():
    left = ResidentText(list)
    for token in ["[", "", "\u201cx", "", "", "\u201d]"]:
        left.append(token)
    assert len(left) == 6
    edit = left.cut(Extent((1, 5), (1, 4)))
    assert (edit.start, edit.stop, edit.token_ids) == (1, 6, ["]"])
    assert left.text == "[]"


def test_a_token_whose_text_is_not_certain_counts_already():
    left = ResidentText(list)
    left.append("a")
    left.append("")
    assert len(left) == 2
    assert left.text == "a"
