"""The tree that the events build."""

from __future__ import annotations

import pytest

from tests.runtime.tasks.runs import tree_of, up_to, write

CALL = {"tool_name": "find", "parameters": {"what": "key"}, "tool_result": "box"}
RUN = {
    "reasoning": [
        {
            "thought": "a",
            "subtasks": [
                {"thought": "b", "tooluse": CALL, "conclusion": "c"},
                {"thought": "d", "subtasks": [{"thought": "e", "conclusion": "f"}], "conclusion": "g"},
            ],
            "conclusion": "h",
        }
    ],
    "answer": "box",
}


def test_a_finished_tree_holds_all_that_was_written_pruned_or_not():
    tree = tree_of(write(RUN))
    assert tree.to_json() == RUN
    assert tree.answered
    assert tree.calls == 1


def test_a_node_is_found_by_its_path():
    tree = tree_of(write(RUN))
    assert tree.node((0, 1, 0)).thought == "e"
    assert tree.node((0,)).conclusion == "h"
    for path in [(), (1,), (0, 0, 0)]:
        with pytest.raises(IndexError):
            tree.node(path)


def test_open_nodes_lead_to_what_is_being_written():
    assert [node.path for node in tree_of(up_to(RUN, '"e')).open_nodes] == [(0,), (0, 1), (0, 1, 0)]
    assert tree_of(write(RUN)).open_nodes == []


def test_states_follow_the_pruning():
    before, after = tree_of(up_to(RUN, '"g')), tree_of(up_to(RUN, '"g"'))
    assert [node.state for node in before.node((0,)).below()] == ["closed", "open", "closed"]
    assert [node.state for node in after.node((0,)).below()] == ["closed", "open", "pruned"]
    assert not before.node((0, 1)).subtasks_pruned
    assert after.node((0, 1)).subtasks_pruned


def test_everything_below_a_pruned_list_is_pruned():
    tree = tree_of(write(RUN))
    assert [node.path for node in tree.node((0,)).below()] == [(0, 0), (0, 1), (0, 1, 0)]
    assert {node.state for node in tree.node((0,)).below()} == {"pruned"}
    assert tree.node((0,)).state == "closed"


def test_a_half_written_tree_is_shown_as_far_as_it_goes():
    tree = tree_of(up_to(RUN, '"tool_result":'))
    assert tree.to_json() == {
        "reasoning": [
            {"thought": "a", "subtasks": [{"thought": "b", "tooluse": {"tool_name": "find", "parameters": {"what": "key"}}}]}
        ]
    }
    assert tree.calls == 0


def test_the_answer_grows():
    tree = tree_of(up_to(RUN, '"answer":"bo'))
    assert tree.answer == "bo"
    assert not tree.answered
    assert "answer" not in tree.to_json()


def test_tokens_are_counted_when_something_ends():
    node = tree_of(write(RUN)).node((0, 1))
    assert node.tokens == len(write(RUN["reasoning"][0]["subtasks"][1]))
    assert node.subtasks_tokens == len(write(RUN["reasoning"][0]["subtasks"][1]["subtasks"])) - 2
    assert tree_of(up_to(RUN, '"e')).node((0, 1)).tokens == 0
