"""Recordings: what was written is read back, crashed runs too, and a replay says what the run said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from runtime.errors import BrokenRecording, MalformedTree, RecordingFailed
from runtime.tasks import PruningStack, TaskReader
from runtime.tasks.events import ToolRequested
from runtime.tasks.recording import Header, Recorder, Recording, Step, read_recording, replay
from runtime.tools import ToolResult
from tests.runtime.tasks.runs import cuts, runs, tokens_of, write

HEADER = Header(
    question="Where is the \ud800 key?",
    model="ember",
    keep=1,
    tools=({"name": "find", "description": "", "parameters": {"type": "object"}},),
    settings={"seed": 7, "temperature": 0.5},
    started="2026-01-02T03:04:05",
)
TEXT = (
    '{"reasoning":[{"thought":"caf\u00e9 \u2014 \U0001f600","tooluse":{"tool_name":"find","parameters":{"a":[1.5,null]},'
    '"tool_result":"box"},"conclusion":"c"}],"answer":{"a":"b"}}'
)


def steps_of(text, sizes=(4,), keep=1):
    """Steps of a run whose tokens have these sizes; results are a step of their own, as they are in a real run."""
    reader, pruning, steps, emitted = TaskReader(), PruningStack(keep), [], 0

    def emit(source, texts, result=None):
        nonlocal emitted
        events, rest = [], ""
        for index, piece in enumerate(texts):
            new = pruning.follow(reader.feed(piece, emitted))
            emitted += 1
            events += new
            if new and isinstance(new[-1], ToolRequested):
                rest = new[-1].rest + "".join(texts[index + 1 :])
                texts = [*texts[:index], piece.removesuffix(new[-1].rest)]
                break
        steps.append(Step(source, tuple(range(len(texts))), tuple(texts), tuple(events), emitted, emitted + 9, 0.5, result))
        return rest

    while text:
        text = emit("sampled", list(tokens_of(text, sizes)))
        if text:
            text = emit("given", list(tokens_of(text, sizes)), ToolResult({"x": 1}, 0.25, error=True))
    return tuple(steps)


def without_rest(events):
    return [
        ToolRequested(event.node, event.tool_name, event.parameters) if isinstance(event, ToolRequested) else event
        for event in events
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def record(path, steps):
    with Recorder(path, HEADER) as recorder:
        for step in steps:
            recorder.step(step)


@pytest.mark.parametrize("sizes", [(1,), (4,), (7, 0, 3), (1000,)])
def test_a_recording_is_read_back_as_it_was(path, sizes):
    steps = steps_of(TEXT, sizes)
    record(path, steps)
    assert read_recording(path) == Recording(HEADER, steps)


@settings(deadline=None, max_examples=50)
@given(run=runs, sizes=cuts)
def test_a_replay_says_what_the_run_said(tmp_path_factory, run, sizes):
    path = tmp_path_factory.mktemp("runs") / "run.jsonl"
    steps = steps_of(write(run), sizes)
    record(path, steps)
    for step, events in replay(read_recording(path)):
        assert events == without_rest(step.events)


def test_every_step_is_on_disk_at_once(path):
    steps = steps_of(TEXT)
    recorder = Recorder(path, HEADER)
    recorder.step(steps[0])
    assert read_recording(path) == Recording(HEADER, steps[:1])
    recorder.close()


def test_each_line_is_json_that_others_can_read(path):
    record(path, steps_of(TEXT))
    header, *steps = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert header["version"] == 1
    assert header["question"] == HEADER.question
    assert steps[0]["events"][0] == {"event": "NodeOpened", "node": [0], "token": 3}
    assert steps[1]["result"] == {"value": {"x": 1}, "seconds": 0.25, "error": True, "cut": False}


def test_a_torn_last_line_is_dropped_and_said(path):
    steps = steps_of(TEXT)
    record(path, steps)
    whole = path.read_bytes()
    last = len(whole.rstrip().splitlines()[-1])
    for lost in (2, 10, last):
        path.write_bytes(whole[:-lost])
        found = read_recording(path)
        assert found.steps == steps[:-1]
        assert found.torn


def test_a_recording_of_nothing_but_its_header_is_a_recording(path):
    record(path, ())
    assert read_recording(path) == Recording(HEADER, ())


def test_a_damaged_line_in_the_middle_is_named(path):
    record(path, steps_of(TEXT))
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:-20] + "\n", *lines[2:]]), "utf-8")
    with pytest.raises(BrokenRecording, match="Line 2 of the recording .* is damaged"):
        read_recording(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is no recording"),
        ("hello\n", "is no recording"),
        ("[]\n", "is no recording"),
        ('{"version":1}\n', "is no recording"),
        ('{"version":2}\n', "is of version 2, and this program reads version 1"),
    ],
)
def test_another_file_is_no_recording(path, content, why):
    path.write_text(content)
    with pytest.raises(BrokenRecording, match=why):
        read_recording(path)


def test_a_file_that_is_not_there_cannot_be_read(path):
    with pytest.raises(BrokenRecording, match="cannot be read: No such file"):
        read_recording(path)


def test_no_recording_is_overwritten(path):
    record(path, ())
    with pytest.raises(RecordingFailed, match="There is a file .* already"):
        Recorder(path, HEADER)


def test_a_folder_that_is_not_there_is_said(path):
    with pytest.raises(RecordingFailed, match="cannot be recorded in .*: No such file or directory"):
        Recorder(path / "deeper", HEADER)


def test_a_replay_of_a_changed_text_goes_wrong_loudly(path):
    step = steps_of(TEXT)[0]
    changed = Step("sampled", (0,), ("nonsense",), (), step.emitted, step.resident, 0.0)
    with pytest.raises(MalformedTree):
        list(replay(Recording(HEADER, (changed,))))
