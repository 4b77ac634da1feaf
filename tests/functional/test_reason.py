"""`reason` and `replay`: answers on stdout, trees on stderr, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FAMILY = """
def lookup(name: str, relation: str) -> str:
    "Who somebody's friend or sister is."
    return {("Maud", "friend"): "Hugh", ("Hugh", "sister"): "Edith"}.get((name, relation), "unknown")

def _hidden(): ...
"""
SERVER = Path(__file__).parents[2] / "examples" / "family_server.py"


@pytest.fixture
def family(tmp_path):
    file = tmp_path / "family.py"
    file.write_text(FAMILY)
    return file


def test_an_answer_goes_to_stdout_and_nothing_else(run):
    ran = run("reason", "What is 12+30?", "--tool", "calc")
    assert (ran.code, ran.out, ran.err) == (0, "42\n", "")


def test_the_tree_goes_to_stderr_with_what_it_costs(run, family):
    ran = run("reason", "Who is the sister of Maud's friend?", "--tool", f"{family}:lookup", "--show", "tree")
    assert (ran.code, ran.out) == (0, "Edith\n")
    assert "tokens written" in ran.err
    assert "answer: Edith" in ran.err


def test_the_whole_tree_as_json(run, family):
    ran = run("reason", "Who is the sister of Maud's friend?", "--tool", str(family), "--show", "json", "--mode", "gap")
    assert json.loads(ran.out)["answer"] == "Edith"
    assert '"tool_result": "Hugh"' in ran.out


def test_tools_of_an_mcp_server(run):
    ran = run("reason", "Who is the sister of Maud's friend?", "--mcp", f"'{sys.executable}' '{SERVER}'")
    assert (ran.code, ran.out) == (0, "Edith\n")


def test_a_run_is_recorded_and_shown_again(run, tmp_path):
    file = tmp_path / "run.jsonl"
    first = run("reason", "What is (3+4)*5?", "--tool", "calc", "--record", str(file), "--show", "tree")
    again = run("replay", str(file))
    assert (again.code, again.out) == (0, first.out)
    assert again.err.split(" tool call")[0] == first.err.split(" tool call")[0]
    with file.open("a") as torn:
        torn.write('{"source": "sam')
    again = run("replay", str(file), "--show", "json")
    assert "The last line" in again.err
    assert json.loads(again.out)["answer"] == "35"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("reason", " "), "The question is empty"),
        (("reason", "?", "--tool", "nowhere.py"), "say calc, or name a Python file"),
        (("reason", "?", "--tool", "{family}:sister"), "there is no function 'sister' in"),
        (("reason", "?", "--tool", "{broken}"), "cannot be loaded (SyntaxError"),
        (("reason", "?", "--tool", "{untyped}"), "untyped"),
        (("reason", "?", "--tool", "calc", "--tool", "calc"), "calc"),
        (("reason", "?", "--mcp", "no-such-program"), "no-such-program"),
        (("reason", "?", "--mcp", "'"), "that is no command"),
        (("reason", "What is 12+30?", "--tool", "calc", "--max-tokens", "9"), "There is no answer after 9 tokens"),
        (("replay", "nowhere.jsonl"), "nowhere.jsonl' cannot be read"),
        (("replay", "{family}"), "family.py"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, family, tmp_path, arguments, sentence):
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "untyped.py").write_text("def untyped(name): ...")
    places = {"family": family, "broken": tmp_path / "broken.py", "untyped": tmp_path / "untyped.py"}
    ran = run(*(argument.format(**places) if "{" in argument else argument for argument in arguments))
    assert ran.code == 2
    assert sentence in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
