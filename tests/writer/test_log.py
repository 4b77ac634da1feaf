"""The event log: what was acknowledged is never lost, what was torn is said."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_writer.errors import StoryDamaged
from recurrent_writer.log import Event, EventLog

PAYLOADS = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3), min_size=1, max_size=6
)


def filled(folder, payloads):
    log = EventLog(folder / "events.jsonl")
    for payload in payloads:
        log.append("thing", payload)
    return log


@settings(deadline=None, max_examples=40)
@given(payloads=PAYLOADS)
def test_what_was_appended_is_read_again(tmp_path_factory, payloads):
    folder = tmp_path_factory.mktemp("log")
    log = filled(folder, payloads)
    again = EventLog(log.file)
    assert again.events == log.events
    assert [event.payload for event in again.events] == payloads
    assert [event.parent for event in again.events] == [None, *range(1, len(payloads))]


@settings(deadline=None, max_examples=40)
@given(payloads=PAYLOADS, data=st.data())
def test_a_log_cut_anywhere_keeps_every_whole_line(tmp_path_factory, payloads, data):
    folder = tmp_path_factory.mktemp("log")
    log = filled(folder, payloads)
    whole = log.file.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    log.file.write_bytes(whole[:cut])
    again = EventLog(log.file)
    lines = whole[:cut].count(b"\n")
    assert len(again.events) == lines
    assert again.torn_bytes == cut - len(b"".join(whole.splitlines(keepends=True)[:lines]))
    again.append("after", {})
    assert [event.id for event in EventLog(log.file).events] == list(range(1, lines + 2))


def test_a_whole_line_that_was_changed_is_refused(tmp_path):
    log = filled(tmp_path, [{"a": 1}, {"a": 2}])
    log.file.write_text(log.file.read_text().replace('{"a":2}', '{"a":3}'))
    with pytest.raises(StoryDamaged, match="Line 2 of"):
        EventLog(log.file)


@pytest.mark.parametrize("written", [0, 10, 10_000])
def test_an_append_that_failed_leaves_no_trace(tmp_path, monkeypatch, written):
    log = filled(tmp_path, [{"a": 1}])

    def full(handle):
        raise OSError(28, "No space left on device")

    line = Event(2, 1, "now", "thing", {"a": 2}).line().encode()
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        broken.setattr(Event, "line", lambda event: line[:written].decode())
        with pytest.raises(OSError, match="No space"):
            log.append("thing", {"a": 2})
    log.append("thing", {"a": 3})
    assert [event.payload for event in EventLog(log.file).events] == [{"a": 1}, {"a": 3}]
    assert EventLog(log.file).events == log.events


def test_damage_in_the_middle_is_refused_and_nothing_is_changed(tmp_path):
    log = filled(tmp_path, [{"a": 1}, {"a": 2}, {"a": 3}])
    lines = log.file.read_text().splitlines(keepends=True)
    log.file.write_text(lines[0] + "nonsense\n" + lines[2])
    before = log.file.read_bytes()
    with pytest.raises(StoryDamaged, match="Line 2 of"):
        EventLog(log.file)
    assert log.file.read_bytes() == before


def test_a_line_is_one_json_object_that_people_can_read(tmp_path):
    log = filled(tmp_path, [{"text": "caf\u00e9\nnext"}])
    record = json.loads(log.file.read_text("utf-8"))
    assert list(record) == ["id", "parent", "time", "kind", "payload", "check"]
    assert "caf\u00e9" in log.file.read_text("utf-8")
