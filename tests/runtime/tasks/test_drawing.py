"""Drawing: what the terminal shows of a tree, whatever the tree says and however small the terminal is."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from runtime.tasks.drawing import LEAST_HEIGHT, draw
from tests.runtime.tasks.runs import runs, tree_of, up_to, write

CALL = {"tool_name": "find", "parameters": {"what": "[red]key", "n": 2}, "tool_result": {"in": "box"}}
RUN = {
    "reasoning": [
        {
            "thought": "first",
            "subtasks": [
                {"thought": "look around", "tooluse": CALL, "conclusion": "in the box"},
                {"thought": "think", "subtasks": [{"thought": "deeper", "conclusion": "done"}], "conclusion": "thought"},
            ],
            "conclusion": "it is in the box",
        },
        {"thought": "second", "conclusion": "fine"},
    ],
    "answer": "the box",
}


def drawn(tree, width=60, height=None, colours=False):
    console = Console(width=width, file=io.StringIO(), force_terminal=colours, color_system="standard" if colours else None)
    console.print(draw(tree, emitted=1234, resident=99, seconds=2.5, height=height))
    return console.file.getvalue()


def test_a_finished_run_shows_what_pruning_left():
    assert drawn(tree_of(write(RUN))).splitlines() == [
        "1,234 tokens written, 99 in memory, 1 tool call, 2.5 s",
        "├── first",
        "│   ├── [2 tasks dropped, 245 tokens]",
        "│   └── → it is in the box",
        "├── second",
        "│   └── → fine",
        "└── answer: the box",
    ]


def test_an_open_run_shows_the_way_to_what_is_being_written():
    assert drawn(tree_of(up_to(RUN, '"deep'), keep=None), width=100).splitlines() == [
        "1,234 tokens written, 99 in memory, 1 tool call, 2.5 s",
        "└── ▸ first",
        "    ├── look around",
        '    │   ├── find(what=[red]key, n=2) = {"in":"box"}',
        "    │   └── → in the box",
        "    └── ▸ think",
        "        └── ▸ deep",
    ]


def test_a_call_that_waits_for_its_result_is_shown():
    assert "find(what=[red]key, n=2) = …" in drawn(tree_of(up_to(RUN, '"tool_result":')))


def test_an_answer_that_is_no_string_is_shown_as_json():
    assert drawn(tree_of(write({**RUN, "answer": {"a": [1]}}))).splitlines()[-1] == '└── answer: {"a":[1]}'
    assert drawn(tree_of(write({**RUN, "answer": None}))).splitlines()[-1] == "└── answer: null"


def test_open_tasks_are_bold_and_pruned_lists_dim():
    lines = drawn(tree_of(up_to(RUN, '"seco')), colours=True).splitlines()
    assert "\x1b[1;33m▸ seco" in next(line for line in lines if "seco" in line)
    assert "\x1b[2m[2 tasks dropped" in next(line for line in lines if "dropped" in line)


def test_a_long_line_ends_with_dots_at_the_width_of_the_terminal():
    line = drawn(tree_of('{"reasoning":[{"thought":"' + "word " * 400), width=60).splitlines()[1]
    assert cell_len(line) == 60
    assert line.endswith("…")


def test_text_cannot_steer_the_terminal():
    hostile = {"thought": "a\x1b[2J\r\n\x9b1m\u202eb[/bold][link=x]\x00", "conclusion": "c"}
    text = drawn(tree_of(write({"reasoning": [hostile], "answer": ""})))
    assert text.splitlines()[1] == "├── a [2J 1m b[/bold][link=x]"
    assert all(character.isprintable() for line in text.splitlines() for character in line)


def test_a_low_terminal_shows_the_newest_siblings():
    leaves = [{"thought": f"leaf {number}", "conclusion": f"c{number}"} for number in range(50)]
    run = {"reasoning": [{"thought": "top", "subtasks": leaves, "conclusion": "c"}], "answer": ""}
    assert drawn(tree_of(up_to(run, '"leaf 42"')), height=8).splitlines()[1:] == [
        "└── ▸ top",
        "    ├── … 40 earlier tasks",
        "    ├── leaf 40",
        "    │   └── → c40",
        "    ├── leaf 41",
        "    │   └── → c41",
        "    └── ▸ leaf 42",
    ]


def test_a_deep_tree_in_a_low_terminal_shows_its_innermost_end():
    text = '{"reasoning":[' + "".join(f'{{"thought":"level {level}","subtasks":[' for level in range(30)) + '{"thought":"here'
    lines = drawn(tree_of(text), height=10).splitlines()
    assert len(lines) <= 10
    assert "… inside " in lines[1]
    assert lines[-1].endswith("▸ here")


@settings(deadline=None, max_examples=50)
@given(run=runs, share=st.floats(0, 1), keep=st.sampled_from([0, 1, None]), height=st.integers(LEAST_HEIGHT, 30))
def test_a_drawing_has_the_height_and_the_width_that_it_may_have(run, share, keep, height):
    text = write(run)
    tree = tree_of(text[: int(share * len(text))], keep)
    lines = drawn(tree, width=40, height=height).splitlines()
    assert len(lines) <= height
    assert all(cell_len(line) <= 40 for line in lines)
    if tree.open_nodes:
        assert any("▸" in line for line in lines)


@pytest.mark.parametrize("width", [1, 10, 25])
def test_a_terminal_of_any_width_will_do(width):
    text = '{"reasoning":[' + "".join(f'{{"thought":"level {level}","subtasks":[' for level in range(30))
    assert all(cell_len(line) <= max(width, 1) for line in drawn(tree_of(text), width=width).splitlines())


@settings(deadline=None, max_examples=50)
@given(run=runs, keep=st.sampled_from([0, None]))
def test_without_a_height_everything_is_shown(run, keep):
    tree = tree_of(write(run), keep)
    lines = drawn(tree, width=300).splitlines()
    shown = [
        node
        for node in [*tree.reasoning, *(below for top in tree.reasoning for below in top.below())]
        if node.state != "pruned"
    ]
    assert len(lines) >= 1 + len(shown)
    assert not any("earlier" in line for line in lines)
