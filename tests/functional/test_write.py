"""`write`, `stories` and `doctor`, as typed."""

from __future__ import annotations

import re

import pytest

PREMISE = "Ada lost a key at the mill."


@pytest.fixture
def begin(run):
    """Begins a story of a few paragraphs with the bundled model."""

    def begin(*more, paragraphs="2", stdin=""):
        return run("write", "--premise", PREMISE, "--paragraphs", paragraphs, "--seed", "3", *more, stdin=stdin)

    return begin


def test_prose_goes_to_stdout_and_everything_else_to_stderr(begin, library):
    ran = begin("--name", "tale")
    assert ran.code == 0
    story = (library / "tale" / "manuscript" / "0001.md").read_text("utf-8")
    assert ran.out.split() == story.removeprefix("# Chapter 1").split()
    assert "1/2" in ran.err
    assert "tokens/s" in ran.err
    assert "write tale --paragraphs +12" in ran.err


def test_json_prints_one_object_for_each_step(begin):
    ran = begin("--json", paragraphs="3")
    assert [record["step"] for record in ran.records] == [1, 2, 3]
    assert list(ran.records[0]) == [
        "step", "paragraph", "plan", "short_memory", "plans", "encoded_tokens", "generated_tokens", "resident_tokens",
        "seconds", "degraded",
    ]  # fmt: skip
    for record in ran.records:
        assert record["paragraph"]
        assert len(record["short_memory"]) <= 20
        assert record["encoded_tokens"] > 0
        assert record["resident_tokens"] > 0


def test_the_same_seed_writes_the_same_story(begin):
    one = begin("--json", "--name", "one")
    two = begin("--json", "--name", "two")
    assert [r["paragraph"] for r in one.records] == [r["paragraph"] for r in two.records]


def test_a_story_goes_on_by_so_many_or_up_to_so_many(begin, run):
    begin("--name", "tale")
    more = run("write", "tale", "--paragraphs", "+2", "--json")
    assert [record["step"] for record in more.records] == [3, 4]
    upto = run("write", "tale", "--paragraphs", "5", "--json")
    assert [record["step"] for record in upto.records] == [5]
    assert run("write", "tale", "--paragraphs", "5", "--json").records == []


def test_a_story_in_pieces_is_the_story_in_one(begin, run):
    whole = begin("--json", "--name", "whole", paragraphs="4").records
    pieces = begin("--json", "--name", "pieces", paragraphs="1").records
    for _ in range(3):
        pieces += run("write", "pieces", "--paragraphs", "+1", "--json").records
    assert [(r["plan"], r["paragraph"], r["short_memory"]) for r in pieces] == [
        (r["plan"], r["paragraph"], r["short_memory"]) for r in whole
    ]


def test_names_are_made_from_the_premise_and_never_twice(begin, library):
    begin(paragraphs="1")
    begin(paragraphs="1")
    assert sorted(folder.name for folder in library.iterdir()) == ["ada-lost-a-key-at", "ada-lost-a-key-at-2"]


def test_a_person_may_pick_write_or_stop(begin):
    ran = begin("--plan", "ask", "--json", paragraphs="9", stdin="1\nAda flies to the moon.\n9\n\nq\n")
    plans = [record["plan"] for record in ran.records]
    assert len(plans) == 3
    assert plans[0].startswith("Begin the story")
    assert plans[1] == "Ada flies to the moon."
    assert plans[2] == ran.records[1]["plans"][0]
    assert "There is no plan 9." in ran.err
    assert re.search(r"1\. .*\n", ran.err)


def test_a_plan_that_was_chosen_is_not_asked_for_again(begin, run, library):
    begin("--plan", "ask", "--name", "tale", paragraphs="1", stdin="1\n")
    from recurrent_writer.story import Story

    with Story.open(library, "tale", write=True) as story:
        story.choose("Ada waits.")
    assert run("write", "tale", "--paragraphs", "+1", "--json").records[0]["plan"] == "Ada waits."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Begin a story with --premise TEXT, or name one to go on with"),
        (("tale", "--premise", "x"), "Begin a story with --premise TEXT, or name one"),
        (("tale", "--seed", "1"), "belong to a new story"),
        (("--premise", " "), "The premise is empty"),
        (("--premise", "x", "--paragraphs", "many"), "give a number such as 12, or +12"),
        (("--premise", "x", "--paragraphs", "0"), "give a number such as 12"),
        (("--premise", "x", "--paragraphs", "-3"), "give a number such as 12"),
        (("nothing-here",), "There is no story 'nothing-here'"),
        (("../evil",), "There is no story '../evil'"),
        (("--premise", "x", "--name", "../evil"), "cannot be the name of a story"),
        (("--premise", "x", "--model", "/no/such/folder"), "There is no folder /no/such/folder"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(run, library, arguments, sentence):
    ran = run("write", *arguments)
    assert ran.code == 2
    assert sentence in " ".join(ran.err.split())
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert not library.exists() or not list(library.iterdir())


def test_an_unknown_option_exits_with_code_2(run):
    assert run("write", "--bogus").code == 2
    assert run("bogus").code == 2


def test_a_name_that_is_taken_is_refused(begin):
    begin("--name", "tale")
    ran = begin("--name", "tale")
    assert ran.code == 2
    assert "There is a story 'tale' already" in ran.err


def test_a_torn_line_is_said_and_the_story_goes_on(begin, run, library):
    begin("--name", "tale")
    with (library / "tale" / "events.jsonl").open("ab") as stream:
        stream.write(b'{"id":99,"kind":"st')
    ran = run("write", "tale", "--paragraphs", "+1", "--json")
    assert ran.code == 0
    assert "torn" in ran.err
    assert [record["step"] for record in ran.records] == [3]


def test_stories_are_listed_shown_and_exported(begin, run, tmp_path):
    empty = run("stories", "list")
    assert empty.code == 0
    assert "There is no story" in empty.err
    begin("--name", "tale")
    listed = run("stories", "list").out
    assert "tale" in listed
    assert PREMISE in listed
    shown = run("stories", "show", "tale").out
    assert shown.startswith("Tale\n\n")
    markdown = run("stories", "export", "tale", "--format", "md").out
    assert markdown.startswith(f"# Tale\n\n*{PREMISE}*\n\n## Chapter 1\n\n")
    file = tmp_path / "tale.txt"
    ran = run("stories", "export", "tale", "--format", "txt", "-o", str(file))
    assert ran.code == 0
    assert ran.out == ""
    assert file.read_text("utf-8").startswith("Tale\n\n")
    missing = run("stories", "show", "other")
    assert missing.code == 2
    assert "There is no story 'other'" in missing.err
    unwritable = run("stories", "export", "tale", "-o", str(tmp_path / "no" / "such" / "file"))
    assert unwritable.code == 2
    assert "cannot be written" in unwritable.err


def test_a_story_with_escapes_in_it_is_shown_as_characters(begin, run, library):
    from recurrent_writer.story import Settings, Step, Story
    from tests.writer.test_story import make_step

    with Story.create(library, "evil", Settings("A \x1b[31mred\x1b[0m [bold]premise[/bold].", "plain", 1, "")) as story:
        story.accept(make_step(1, "Text \x1b]0;title\x07 and [red]tags[/red]."))
        assert isinstance(story.steps[0], Step)
    shown = run("stories", "show", "evil").out
    assert "\x1b" not in shown
    assert "[red]tags[/red]" in shown
    listed = run("stories", "list").out
    assert "\x1b" not in listed
    assert "[bold]premise[/bold]" in listed


def test_doctor_says_what_it_found(run, library):
    ran = run("doctor")
    assert ran.code == 0
    lines = {line.split()[1]: line for line in ran.out.splitlines()}
    assert {"python", "torch", "transformers", "chromadb", "memory", "devices", "model", "stories"} <= set(lines)
    assert "qwen3" in lines["model"]
    assert str(library) in lines["stories"]


def test_doctor_says_what_to_do_about_what_is_wrong(run):
    ran = run("doctor", "--model", "/no/such/folder")
    assert ran.code == 1
    assert "NO  model" in ran.out
    assert "name a folder with a model" in ran.out


def test_a_script_can_name_the_library(begin, tmp_path):
    begin("--stories", str(tmp_path / "other"), paragraphs="1")
    assert (tmp_path / "other" / "ada-lost-a-key-at" / "events.jsonl").exists()
