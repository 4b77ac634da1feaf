"""The reader: whatever a run says and however it is cut into tokens, the events say where everything stands."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import MalformedTree
from runtime.tasks import TaskReader, Tree
from runtime.tasks.events import (
    AnswerDelta,
    Answered,
    Concluded,
    FieldClosed,
    FieldDelta,
    ListClosed,
    NodeClosed,
    NodeOpened,
    ToolAnswered,
    ToolRequested,
)
from tests.runtime.tasks.runs import build, cuts, feed, runs, tasks, texts, tokens_of, write

EXAMPLE = (
    '{"reasoning":[{"thought":"a \\"}],{\\\\","tooluse":{"tool_name":"find","parameters":{"e":"]}\\""},"tool_result":12},'
    '"subtasks":[{"thought":"","conclusion":"\\u00e9\\ud83d\\ude00"}],"conclusion":"so"}],"answer":"\\"q"}'
)


def read(text, sizes=(1,)):
    reader = TaskReader()
    events = [event for events in feed(reader, tokens_of(text, sizes)) for event in events]
    assert reader.finished
    return events


def at_places(events):
    """The events, with deltas joined and without the tokens and the rests, which depend on the cuts."""
    joined = []
    for event in events:
        if isinstance(event, NodeOpened):
            event = replace(event, token=0)
        elif isinstance(event, ToolRequested):
            event = replace(event, rest="")
        elif hasattr(event, "extent"):
            event = replace(event, extent=replace(event.extent, tokens=(0, 0)))
        elif hasattr(event, "inside"):
            event = replace(event, inside=replace(event.inside, tokens=(0, 0)))
        last = joined[-1] if joined else None
        if isinstance(event, FieldDelta | AnswerDelta) and type(last) is type(event) and where(last) == where(event):
            joined[-1] = replace(event, text=last.text + event.text)
        else:
            joined.append(event)
    return joined


def where(delta):
    return getattr(delta, "node", None), getattr(delta, "field", None)


@settings(deadline=None)
@given(run=runs, sizes=cuts, ascii_only=st.booleans())
def test_the_tree_of_the_events_is_the_run(run, sizes, ascii_only):
    assert build(read(write(run, ascii_only), sizes)).to_json() == run


@settings(deadline=None)
@given(run=runs, sizes=cuts, ascii_only=st.booleans())
def test_the_cuts_change_nothing_but_the_pieces_of_deltas(run, sizes, ascii_only):
    text = write(run, ascii_only)
    assert at_places(read(text, sizes)) == at_places(read(text, [len(text)]))


@settings(deadline=None)
@given(run=runs, sizes=cuts, ascii_only=st.booleans())
def test_extents_are_where_things_stand(run, sizes, ascii_only):
    text = write(run, ascii_only)
    holder = [index for index, token in enumerate(tokens_of(text, sizes)) for _ in token]
    tree = Tree()
    for event in read(text, sizes):
        tree.apply(event)
        match event:
            case NodeOpened(_, token):
                assert "{" in list(tokens_of(text, sizes))[token]
                continue
            case FieldClosed(path, name, extent):
                written = tree.node(path).fields[name]
            case ToolAnswered(_, written, extent):
                pass
            case NodeClosed(path, extent):
                written = tree.node(path).to_json()
            case ListClosed(path, inside):
                first, last = inside.characters
                assert json.loads(text[first - 1 : last + 1]) == tree.node(path).to_json()["subtasks"]
                assert inside.tokens[0] == holder[first - 1] + 1
                assert inside.tokens[1] == max(holder[last], inside.tokens[0])
                continue
            case _:
                continue
        first, last = extent.characters
        assert json.loads(text[first:last]) == written
        assert extent.tokens == (holder[first], holder[last - 1] + 1)


def test_events_come_in_the_order_of_the_text():
    names = [type(event).__name__ for event in at_places(read(EXAMPLE))]
    assert names == [
        *["NodeOpened", "FieldDelta", "FieldClosed", "ToolRequested", "ToolAnswered"],
        *["NodeOpened", "FieldClosed", "FieldDelta", "FieldClosed", "Concluded", "NodeClosed", "ListClosed"],
        *["FieldDelta", "FieldClosed", "Concluded", "NodeClosed", "AnswerDelta", "Answered"],
    ]


def test_a_field_streams_as_far_as_it_is_certain():
    reader = TaskReader()
    pieces = ['{"reasoning":[{"thought":"on', "e ", "t\\", "n", "\\ud83d", "\\ude0", "0", 'wo","concl']
    deltas = [[event.text for event in events if isinstance(event, FieldDelta)] for events in feed(reader, pieces)]
    assert deltas == [["on"], ["e "], ["t"], ["\n"], [], [], ["\U0001f600"], ["wo"]]


def test_the_answer_streams_if_it_is_a_string():
    events = read(EXAMPLE, [5])
    assert "".join(event.text for event in events if isinstance(event, AnswerDelta)) == '"q'
    assert events[-1] == Answered('"q')


@pytest.mark.parametrize("answer", [None, True, -1.5, {"a": ["}"]}, [], "x"])
def test_the_answer_may_be_any_json(answer):
    text = write({"reasoning": [{"thought": "a", "conclusion": "b"}], "answer": answer})
    assert read(text)[-1] == Answered(answer)


def test_a_call_is_requested_at_its_colon_and_nothing_is_read_behind_it():
    reader = TaskReader()
    start, colon, end = EXAMPLE.partition('"tool_result":')
    assert not any(isinstance(event, ToolRequested) for event in reader.feed(start + colon[:-1], 0))
    assert reader.feed(':"mine', 1) == [ToolRequested((0,), "find", {"e": ']}"'}, rest='"mine')]
    assert reader.feed('"given"', 2)[0].result == "given"
    reader.feed(end.removeprefix("12"), 3)
    assert reader.finished


def test_a_number_is_answered_by_what_ends_it():
    reader = TaskReader()
    start, colon, _ = EXAMPLE.partition('"tool_result":')
    reader.feed(start + colon, 0)
    assert reader.feed("12", 1) == []
    (answered,) = reader.feed("}", 2)
    assert answered.result == 12
    assert answered.extent.tokens == (1, 2)


@settings(deadline=None)
@given(data=st.data(), sizes=cuts)
def test_the_fields_of_typed_tasks_have_any_names(data, sizes):
    names = data.draw(st.lists(texts.filter(lambda name: name not in ("tooluse", "subtasks", "conclusion")), unique=True))
    run = {"reasoning": [data.draw(tasks(names))], "answer": None}
    assert build(read(write(run), sizes)).to_json() == run


@settings(deadline=None)
@given(units=st.lists(st.sampled_from(["\ud83d", "\ude00", "\ud800", "a"]), max_size=6), sizes=cuts)
def test_half_a_character_is_replaced_in_text(units, sizes):
    escaped = "".join(json.dumps(unit)[1:-1] for unit in units)
    text = f'{{"reasoning":[{{"thought":"{escaped}","conclusion":""}}],"answer":""}}'
    tree = build(read(text, sizes))
    assert tree.reasoning[0].thought == "".join(units).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_white_space_between_values_means_nothing():
    run = json.loads(EXAMPLE)
    assert build(read(json.dumps(run, indent=2), [3])).to_json() == run


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "character 0 of the run is '\\['"),
        ('{"reasoning":{', "where a value of 'reasoning'"),
        ('{"reasoning":[{"thought":5', "where a value of 'thought'"),
        ('{"reasoning":[{"thought":"a","tooluse":"', "where a value of 'tooluse'"),
        ('{"reasoning":[{"thought":"a";', "where a comma"),
        ('{"reasoning":[{"thought":"a"]', "where a comma"),
        ('{"reasoning":[{"thought":"a",}', "where a key"),
        ('{"reasoning":[{"thought":"\\x', "no JSON escape"),
        ('{"reasoning":[{"tooluse":{"tool_result":', "before it names the tool"),
        ('{"reasoning":[],"answer":nil}', "'nil', which is not JSON"),
        ('{"reasoning":[],"else":1', "where a value of 'else'"),
        ('{"answer":1}{', "behind the object"),
    ],
)
def test_other_text_is_refused_where_it_goes_wrong(text, why):
    reader = TaskReader()
    reader.feed(text[:-1], 0)
    with pytest.raises(MalformedTree, match=why):
        reader.feed(text[-1], 1)


def test_what_the_reader_remembers_follows_depth():
    def size(count):
        reader = TaskReader()
        task = '{"thought":"a","subtasks":[{"thought":"b","conclusion":"c"}],"conclusion":"d"},'
        reader.feed('{"reasoning":[' + task * count, 0)
        reader.feed("", 1)
        return len(pickle.dumps(reader))

    assert size(1000) < size(10) + 20


def test_a_conclusion_is_concluded_at_its_quote():
    reader = TaskReader()
    reader.feed('{"reasoning":[{"conclusion":"a', 0)
    assert [type(event) for event in reader.feed('"', 1)] == [FieldClosed, Concluded]
