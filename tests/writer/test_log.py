"""The event log: what was acknowledged is never lost, what was torn is said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_writer.errors import StoryDamaged
from recurrent_writer.log import EventLog

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


def test_a_last_line_with_a_wrong_checksum_is_torn(tmp_path):
    log = filled(tmp_path, [{"a": 1}, {"a": 2}])
    log.file.write_text(log.file.read_text().replace('{"a":2}', '{"a":3}'))
    again = EventLog(log.file)
    assert len(again.events) == 1
    assert again.torn_bytes > 0


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
