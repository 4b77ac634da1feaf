"""A story on disk: the log is the truth, the readable files follow it, nothing anybody wrote is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace

import pytest

from recurrent_writer.bookkeeping import Add, Bookkeeping
from recurrent_writer.errors import InvalidStory, StoryDamaged, StoryExists, StoryLocked, StoryNotFound
from recurrent_writer.story import Settings, Step, Story

SETTINGS = Settings("Ada lost a key.", "plain tale", 7, "")


def make_step(number, paragraph=None):
    sentence = f"Sentence {number}."
    return Step(
        number=number,
        plan=f"Plan {number}",
        recalled=(),
        paragraph=paragraph or f"Paragraph {number}. It has two sentences.",
        bookkeeping=Bookkeeping((), (Add(sentence, "why"),), ("a", "b", "c")),
        short_memory=(sentence,),
        encoded_tokens=10,
        generated_tokens=5,
        resident_tokens=9,
        seconds=0.5,
        degraded=False,
    )


@pytest.fixture
def story(tmp_path):
    with Story.create(tmp_path, "tale", SETTINGS) as story:
        yield story


def write_steps(story, count):
    for number in range(len(story.steps) + 1, len(story.steps) + count + 1):
        story.accept(make_step(number))


def test_a_story_is_read_as_it_was_written(tmp_path, story):
    write_steps(story, 3)
    story.choose("what is next")
    again = Story.open(tmp_path, "tale")
    assert again.settings == SETTINGS
    assert again.steps == story.steps
    assert again.pending_plan == "what is next"
    assert again.short_memory == ("Sentence 3.",)
    assert again.plans == ("a", "b", "c")


def test_the_readable_files_follow_the_log(story):
    write_steps(story, 21)
    first = (story.folder / "manuscript" / "0001.md").read_text("utf-8")
    second = (story.folder / "manuscript" / "0002.md").read_text("utf-8")
    assert first.startswith("# Chapter 1\n\nParagraph 1.")
    assert first.count("\n\nParagraph") == 20
    assert second == "# Chapter 2\n\nParagraph 21. It has two sentences.\n\n"
    assert "- Sentence 21.\n" in (story.folder / "memory" / "short.md").read_text("utf-8")
    assert "2. b\n" in (story.folder / "plans.md").read_text("utf-8")
    about = tomllib.loads((story.folder / "story.toml").read_text("utf-8"))
    assert about["title"] == "Tale"
    assert about["head"] == story.log.events[-1].id
    assert about["format"] == 1


def test_files_that_are_missing_are_made_again(tmp_path, story):
    write_steps(story, 22)
    story.close()
    text = (story.folder / "manuscript" / "0001.md").read_text("utf-8")
    for file in (*story.folder.glob("manuscript/*"), story.folder / "story.toml", story.folder / "plans.md"):
        file.unlink()
    Story.open(tmp_path, "tale", write=True).close()
    assert (story.folder / "manuscript" / "0001.md").read_text("utf-8") == text
    assert (story.folder / "manuscript" / "0002.md").exists()
    assert (story.folder / "story.toml").exists()


def test_an_edit_by_hand_is_kept_and_said(tmp_path, story):
    write_steps(story, 2)
    file = story.folder / "manuscript" / "0001.md"
    file.write_text("all mine", "utf-8")
    story.accept(make_step(3))
    assert any("0001.edited-1.md" in note for note in story.notes)
    assert file.with_name("0001.edited-1.md").read_text("utf-8") == "all mine"
    assert "Paragraph 3" in file.read_text("utf-8")
    story.notes.clear()
    story.accept(make_step(4))
    assert story.notes == []


def test_a_torn_line_is_left_out_and_said(tmp_path, story):
    write_steps(story, 2)
    story.close()
    with story.log.file.open("ab") as stream:
        stream.write(b'{"id":4,"par')
    again = Story.open(tmp_path, "tale", write=True)
    assert len(again.steps) == 2
    assert any("torn (12 bytes)" in note for note in again.notes)
    again.accept(make_step(3))
    again.close()
    assert len(Story.open(tmp_path, "tale").steps) == 3


def test_a_story_of_another_version_is_refused(tmp_path, story):
    story.log.append("step", {"number": 1, "invention": "of a later version"})
    with pytest.raises(StoryDamaged, match="another version"):
        Story.open(tmp_path, "tale")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(StoryExists, match="something else"):
        Story.create(tmp_path, "mine", SETTINGS)


def test_a_draft_goes_when_it_is_done_and_is_kept_when_it_is_not(tmp_path, story):
    draft = story.draft()
    draft.write("Once ")
    assert draft.file.read_text("utf-8") == "Once "
    draft.close(discard=True)
    assert not draft.file.exists()
    lost = story.draft()
    lost.write("half a parag")
    lost.close(discard=False)
    second = story.draft()
    second.close(discard=False)
    assert not second.file.exists(), "an empty draft is not worth keeping"
    story.close()
    with Story.open(tmp_path, "tale", write=True) as again:
        assert any(lost.file.name in note for note in again.notes)
    assert lost.file.read_text("utf-8") == "half a parag"


def test_one_process_writes_at_a_time(tmp_path, story):
    script = (
        "import sys; from pathlib import Path; from recurrent_writer.story import Story\n"
        "Story.open(Path(sys.argv[1]), 'tale', write=True)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"StoryLocked: The story 'tale' is being written by process {os.getpid()}" in run.stderr
    assert Story.open(tmp_path, "tale").name == "tale", "reading needs no lock"
    story.close()
    Story.open(tmp_path, "tale", write=True).close()


def test_a_lock_in_the_same_process_holds_too(tmp_path, story):
    with pytest.raises(StoryLocked, match="wait for it or stop it"):
        Story.open(tmp_path, "tale", write=True)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 81, "-x", "caf\u00e9"])
def test_names_that_no_folder_should_have_are_refused(tmp_path, name):
    with pytest.raises(InvalidStory, match="cannot be the name"):
        Story.create(tmp_path, name, SETTINGS)
    with pytest.raises(StoryNotFound):
        Story.open(tmp_path, name)


def test_a_story_is_never_written_over(tmp_path, story):
    with pytest.raises(StoryExists, match="go on with it by"):
        Story.create(tmp_path, "tale", SETTINGS)


def test_an_empty_premise_is_refused(tmp_path):
    with pytest.raises(InvalidStory, match="premise is empty"):
        Story.create(tmp_path, "tale", replace(SETTINGS, premise=" \n"))
    assert not (tmp_path / "tale").exists()


def test_a_story_cut_off_before_its_first_line_can_be_begun_again(tmp_path):
    (tmp_path / "tale").mkdir()
    (tmp_path / "tale" / "events.jsonl").write_bytes(b'{"id":1,')
    with pytest.raises(StoryNotFound, match="cut off before it began"):
        Story.open(tmp_path, "tale")
    with Story.create(tmp_path, "tale", SETTINGS) as story:
        write_steps(story, 1)
    assert len(Story.open(tmp_path, "tale").steps) == 1


def test_recall_finds_what_was_accepted_before_and_after_the_index_was_opened(story):
    story.accept(make_step(1, "Ada hid the brass key under the stair. Nobody saw."))
    assert story.recall("the brass key", 2, before_step=1) == []
    assert story.recall("the brass key", 1, before_step=2)[0].step == 1
    story.accept(make_step(2, "Bram bought a goose. It bit him."))
    assert story.recall("Bram and the goose", 1, before_step=3)[0].step == 2
    assert story.notes == []


def test_an_index_that_does_not_fit_is_made_anew_and_that_is_said(story, tmp_path):
    write_steps(story, 3)
    story.close()
    (story.folder / "index").mkdir(exist_ok=True)
    (story.folder / "index" / "chroma.sqlite3").write_bytes(b"no database at all" * 99)
    with Story.open(tmp_path, "tale", write=True) as again:
        assert again.recall("two sentences", 1, before_step=3)
        assert "made anew" in again.notes[0]


def test_the_log_holds_the_whole_step(story):
    write_steps(story, 1)
    record = json.loads(story.log.file.read_text("utf-8").splitlines()[-1])
    assert record["kind"] == "step"
    assert record["payload"]["paragraph"] == "Paragraph 1. It has two sentences."
    assert record["payload"]["bookkeeping"]["add"] == [{"sentence": "Sentence 1.", "why": "why"}]
