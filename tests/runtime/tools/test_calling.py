"""Calling a tool: whatever it does, what comes back in time is a result that a model can read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from runtime.errors import ToolFailed
from runtime.tools import Tool, ToolCall, answer, dumps, tool, tools_of
from runtime.tools.calling import shorten

ANY = {"type": "object"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


def made(call, **limits):
    return Tool("it", "", ANY, call, **limits)


def returned(value):
    return answer(made(lambda _: value), {})


class Point(BaseModel):
    day: date
    places: set[str]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(None, None), (5, 5), ("a", "a"), ({"a": [1.5, True]}, {"a": [1.5, True]}), ((1, 2), [1, 2]), ({1: "a"}, {"1": "a"})],
        (Point(day=date(2026, 1, 2), places={"x"}), {"day": "2026-01-02", "places": ["x"]}),
        ("\ud83d\ude00 \ud800", "\U0001f600 \ufffd"),
    ],
)
def test_what_pydantic_can_serialise_is_a_result(value, expected):
    result = returned(value)
    assert result.value == expected
    assert not result.error
    assert not result.cut


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: float("nan"), "ValueError: Out of range float values are not JSON compliant"),
        (lambda: [float("inf")], "ValueError: Out of range float values"),
        (lambda: object(), "Unable to serialize unknown type"),
        (lambda: b"\xff", "UnicodeDecodeError"),
        (lambda: 10**5000, "ValueError: Exceeds the limit"),
        (lambda: deep(5000), "Maximum serialization depth exceeded"),
    ],
)
def test_what_is_no_json_is_an_error_result(make, why):
    result = answer(made(lambda _: make()), {})
    assert result.error
    assert why in result.value["error"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (KeyError("Ada"), "KeyError: 'Ada'"),
        (ValueError(), "ValueError"),
        (ToolFailed("Nobody is called so."), "Nobody is called so."),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RuntimeError("\ud800"), "RuntimeError: ?"),
    ],
)
def test_what_a_tool_raises_is_an_error_result(fault, message):
    def fail(_):
        raise fault

    result = answer(made(fail), {})
    assert result.error
    assert result.value == {"error": message}


def lookup(name: str, year: int) -> str:
    return name


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"name": "Ada"}, "year: Missing required argument"),
        ({"name": 5, "year": 1}, "name: Input should be a valid string"),
        ({"name": "Ada", "year": 1, "x": 2}, "x: Unexpected keyword argument"),
    ],
)
def test_parameters_that_are_not_valid_are_an_error_result(parameters, message):
    assert answer(tools_of([lookup])[0], parameters).value == {"error": message}


def test_a_tool_that_hangs_is_left_behind_in_time():
    release = threading.Event()
    result = answer(made(lambda _: release.wait(30), timeout=0.2), {})
    release.set()
    assert result.error
    assert result.value == {"error": "The tool 'it' did not answer within 0.2 seconds."}
    assert 0.2 <= result.seconds < 5


def test_hanging_calls_do_not_hold_up_others():
    release = threading.Event()
    hanging = [ToolCall(made(lambda _: release.wait(30), timeout=20), {}) for _ in range(50)]
    assert answer(made(lambda _: "quick", timeout=10), {}).value == "quick"
    assert not any(call.done() for call in hanging)
    release.set()
    assert all(call.result().value is True for call in hanging)


def test_calls_run_beside_each_other():
    meeting = threading.Barrier(8)
    calls = [ToolCall(made(lambda _: meeting.wait(20)), {}) for _ in range(8)]
    assert sorted(call.result().value for call in calls) == list(range(8))


def test_a_call_runs_off_the_callers_thread():
    assert returned_by(lambda _: threading.current_thread() is threading.main_thread()) is False


def test_threads_are_used_again():
    answer(made(lambda _: None), {})
    deadline = time.monotonic() + 5
    while (before := returned_by(lambda _: threading.get_ident())) != returned_by(lambda _: threading.get_ident()):
        assert time.monotonic() < deadline, before


def returned_by(call):
    return answer(made(call), {}).value


def test_a_coroutine_is_run():
    @tool
    async def later(number: int) -> int:
        """Wait a little."""
        await asyncio.sleep(0.01)
        return number + 1

    assert answer(tools_of([later])[0], {"number": 1}).value == 2


def test_a_coroutine_that_hangs_is_ended():
    ended = threading.Event()

    async def hang(_):
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    result = answer(made(hang, timeout=0.1), {})
    assert result.value == {"error": "The tool 'it' did not answer within 0.1 seconds."}
    assert ended.wait(5)


def test_a_timeout_of_the_tools_own_is_told_as_it_is():
    async def connect(_):
        raise TimeoutError("no route")

    assert answer(made(connect), {}).value == {"error": "TimeoutError: no route"}


def test_a_tool_cannot_change_the_parameters_of_who_calls():
    parameters = {"names": ["Ada"]}
    answer(made(lambda given: given["names"].clear()), parameters)
    assert parameters == {"names": ["Ada"]}


def test_seconds_are_what_the_call_took():
    assert 0.1 <= answer(made(lambda _: time.sleep(0.1)), {}).seconds < 5


@settings(deadline=None)
@given(value=VALUES, room=st.integers(100, 300))
def test_a_shortened_value_fits_and_a_short_one_is_untouched(value, room):
    short = shorten(value, room)
    assert len(dumps(short)) <= room
    assert (short == value) == (len(dumps(value)) <= room)


def test_a_long_text_says_how_much_is_left_out():
    result = answer(made(lambda _: "a" * 1000, max_result=100), {})
    assert result.cut
    kept, _, note = result.value.partition(" ")
    assert note == f"[{1000 - len(kept)} of 1000 characters left out]"
    assert len(result.text) == 100


def test_a_long_list_keeps_its_first_items():
    value = answer(made(lambda _: list(range(1000)), max_result=200), {}).value
    assert value[:-1] == list(range(len(value) - 1))
    assert value[-1] == f"[{1001 - len(value)} of 1000 items left out]"


def test_a_long_object_keeps_its_first_entries():
    value = answer(made(lambda _: {str(n): n for n in range(1000)}, max_result=200), {}).value
    assert list(value)[:-1] == [str(n) for n in range(len(value) - 1)]
    assert value["[left out]"] == f"{1001 - len(value)} of 1000 entries"


def test_a_long_text_inside_is_cut_where_it_stands():
    value = answer(made(lambda _: {"title": "t", "pages": ["a" * 9000, "b"]}, max_result=1000), {}).value
    assert value["title"] == "t"
    assert "characters left out" in value["pages"][0]


def test_a_long_error_is_cut_too():
    def fail(_):
        raise ValueError("a" * 9000)

    result = answer(made(fail, max_result=300), {})
    assert result.error
    assert result.cut
    assert len(result.text) <= 300


def test_the_text_of_a_result_is_compact_json():
    assert returned({"a": ["\u00e9", "\x7f"]}).text == '{"a":["\u00e9","\\u007f"]}'


def test_an_unfinished_call_does_not_keep_the_program_alive():
    code = (
        "import time; from runtime.tools import Tool, answer\n"
        "print(answer(Tool('it', '', {'type': 'object'}, lambda _: time.sleep(60), timeout=0.1), {}).error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "True"
