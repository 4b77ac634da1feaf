"""Whatever goes wrong ends with one sentence and an exit code, and with nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recurrent_writer.story import Settings, Story
from recurrent_writer.writer import Retracted, Text, Writer, Written
from tests.writer.test_story import make_step

ROOT = Path(__file__).parents[2]
PREMISE = "Ada lost a key at the mill."


@pytest.fixture
def tale(library):
    """A story of two paragraphs that no model was needed for."""
    with Story.create(library, "tale", Settings(PREMISE, "plain tale", 1, "")) as story:
        for number in (1, 2):
            story.accept(make_step(number))
    return story


@pytest.fixture
def scripted(monkeypatch):
    """Has a step give these events, and raise what is an exception; returns the plans it will be given."""

    def script(*events):
        plans = []

        def step(writer, plan):
            plans.append(plan)
            for event in events:
                if isinstance(event, BaseException):
                    raise event
                yield event
            accepted = make_step(len(writer.story.steps) + 1)
            writer.story.accept(accepted)
            yield accepted

        monkeypatch.setattr(Writer, "step", step)
        return plans

    return script


def program(*arguments, **how):
    """The program in a process of its own."""
    command = [sys.executable, str(ROOT / "app.py"), *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False, **how)


def said(ran, *words):
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    for word in words:
        assert word in ran.err


def test_a_file_in_the_place_of_the_library_is_one_sentence(run, tmp_path):
    file = tmp_path / "file"
    file.touch()
    said(run("stories", "list", "--stories", str(file)), f"{file} is a file: name a folder")
    said(run("write", "tale", "--stories", str(file)), f"{file} is a file: name a folder")
    assert "NO  stories" in run("doctor", "--stories", str(file)).out
    assert "NO  stories" in run("doctor", "--stories", str(file / "below")).out


def test_a_fault_of_the_system_is_one_sentence_with_the_file(run, tale):
    file = tale.folder / "plans.md"
    file.unlink()
    file.mkdir()
    said(run("write", "tale"), str(file), "Is a directory")


def test_a_broken_story_does_not_hide_the_others(run, tale, library):
    (library / "odd" / "events.jsonl").mkdir(parents=True)
    ran = run("stories", "list")
    assert ran.code == 0
    assert "Is a directory" in " ".join(ran.out.split())
    assert PREMISE in ran.out


@pytest.mark.parametrize("option", ["--premise", "--style", "--model"])
def test_bytes_that_are_not_utf8_are_refused_before_anything_is_made(run, library, option):
    more = () if option == "--premise" else ("--premise", PREMISE)
    said(run("write", *more, option, "caf\udce9"), f"{option} holds bytes that are not UTF-8")
    assert not library.exists()


def test_a_package_that_is_missing_is_one_sentence(run, tale, monkeypatch):
    monkeypatch.setitem(sys.modules, "runtime.engine", None)
    said(run("write", "tale"), "run make story again, or pip install .")


def test_doctor_goes_on_behind_what_is_broken(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    ran = run("doctor", "--model", "/no/such/folder")
    assert ran.code == 1
    lines = {line.split()[1]: line for line in ran.out.splitlines()}
    assert lines["devices"].startswith("NO ")
    assert "run make story again, or pip install ." in lines["devices"]
    assert lines["stories"].startswith("ok ")


def test_ctrl_c_ends_the_line_and_says_what_is_kept(run, tale, scripted):
    scripted(Text("Ada turned the k"), KeyboardInterrupt())
    ran = run("write", "tale")
    assert ran.code == 130
    assert ran.out == "Ada turned the k\n\n"
    assert ran.err.endswith("Stopped. Everything accepted so far is on the disk.\n")


def test_a_sentence_that_is_taken_back_leaves_one_empty_line(run, tale, scripted):
    scripted(Text("Ada ran. And th"), Retracted("The last sentence is left out."), Written("Ada ran."))
    ran = run("write", "tale", "--paragraphs", "+1")
    assert ran.out == "Ada ran. And th\n\n"
    assert ran.err.count("The last sentence is left out.") == 1


@pytest.mark.parametrize("arguments", [("stories", "show", "tale"), ("stories", "list"), ("doctor", "--model", "/none")])
def test_a_closed_pipe_ends_the_program_quietly(tale, library, arguments):
    read, write = os.pipe()
    os.close(read)
    ran = program(*arguments, "--stories", str(library), stdout=write)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_sentence(tale, library):
    with Path("/dev/full").open("wb") as full:
        ran = program("stories", "show", "tale", "--stories", str(library), stdout=full)
        helped = program("--help", stdout=full)
    assert ran.returncode == helped.returncode == 2
    for err in (ran.stderr, helped.stderr):
        assert err.decode().splitlines() == [
            "A file or the output cannot be read or written: No space left on device. Mend that, or name another place."
        ]


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_output_is_one_sentence(library):
    command = f"{sys.executable} {ROOT / 'app.py'} stories list --stories {library} >&-"
    ran = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert ran.returncode == 2
    assert ran.stderr == b"The output is closed: send it to a file, or to /dev/null.\n"


def test_a_file_gets_utf8_whatever_the_locale(library):
    with Story.create(library, "tale", Settings("\u4f60\u597d \u2014 \x1b[31m\x9b", "plain tale", 1, "")):
        pass
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ran = program("stories", "export", "tale", "--stories", str(library), stdout=subprocess.PIPE, env=environment)
    assert "*\u4f60\u597d \u2014 \x1b[31m\x9b*" in ran.stdout.decode("utf-8"), "exactly as it is"


def test_a_terminal_is_exported_to_in_visible_characters(run, library, monkeypatch):
    with Story.create(library, "tale", Settings("A \x1b[31mred tale.", "plain tale", 1, "")):
        pass
    assert "\x1b" in run("stories", "export", "tale").out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "A \u241b[31mred tale." in run("stories", "export", "tale").out


def test_the_names_of_folders_are_plain_characters(run, library):
    for name in ("\x1b[31mred", "[bold]x"):
        (library / name).mkdir(parents=True)
        (library / name / "events.jsonl").touch()
    listed = run("stories", "list").out
    assert "\x1b" not in listed
    assert "\u241b[31mred" in listed
    assert "[bold]x" in listed


def test_json_holds_no_control_character(run, tale, scripted, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "make_step", lambda number, make=make_step: make(number, "a\x9b1m\x7fb\u00e9"))
    scripted()
    ran = run("write", "tale", "--paragraphs", "+1", "--json")
    assert "a\\u009b1m\\u007fb\u00e9" in ran.out
    assert json.loads(ran.out)["paragraph"] == "a\x9b1m\x7fb\u00e9"


def test_a_plan_that_was_typed_is_offered_again(run, tale, library):
    with Story.open(library, "tale", write=True) as story:
        story.choose("Ada waits.")
    asked = run("write", "tale", "--plan", "ask", stdin="q\n").err
    assert [line for line in asked.splitlines() if line.startswith("  ")] == ["  1. Ada waits.", "  2. a", "  3. b", "  4. c"]
    with Story.open(library, "tale", write=True) as story:
        story.choose("b")
    asked = run("write", "tale", "--plan", "ask", stdin="q\n").err
    assert [line for line in asked.splitlines() if line.startswith("  ")] == ["  1. b", "  2. a", "  3. c"]


def test_a_plan_may_hold_any_byte(run, tale, scripted):
    plans = scripted()
    ran = run("write", "tale", "--plan", "ask", "--paragraphs", "+3", stdin=b"\xb2caf\xe9\n\xc2\xb2\n\n")
    assert ran.code == 0
    assert plans == ["\ufffdcaf\ufffd", "\u00b2", "a"]


def test_a_model_in_a_folder_is_kept_by_its_whole_path(run, library, monkeypatch, tmp_path, scripted):
    scripted()
    (tmp_path / "emb").symlink_to(ROOT / "runtime" / "ember")
    monkeypatch.chdir(tmp_path)
    assert run("write", "--premise", PREMISE, "--name", "tale", "--model", "./emb", "--paragraphs", "1").code == 0
    assert Story.open(library, "tale").settings.model == str(ROOT / "runtime" / "ember")


def test_a_model_that_cannot_hold_the_premise_leaves_no_story(run, library):
    said(run("write", "--premise", "word " * 5000), "The premise and the style take")
    assert not library.exists()


def test_files_edited_by_hand_are_kept_byte_for_byte(library, tale):
    mine = "caf\u00e9, all mine".encode("latin-1")
    files = [tale.folder / name for name in ("manuscript/0001.md", "memory/short.md", "plans.md")]
    for file in files:
        file.write_bytes(mine)
    with Story.open(library, "tale", write=True) as story:
        assert len(story.notes) == 3
        story.notes.clear()
        story.accept(make_step(3))
        assert story.notes == []
    for file in files:
        assert file.with_name(f"{file.stem}.edited-1.md").read_bytes() == mine
        assert not file.with_name(f"{file.stem}.edited-2.md").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_make_hands_a_premise_on_as_it_was_given(tmp_path):
    stub = tmp_path / "recurrent-writer"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    premise = 'He said "hi" and `id` for $5, it\'s $(id).'
    command = ["make", "-C", str(ROOT), "--no-print-directory", "-o", "setup", "story", f"BIN={tmp_path}", f"PREMISE={premise}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["write", "--premise", premise, "--paragraphs", "12"]


def test_a_torn_line_is_said_to_who_only_reads(run, tale):
    with tale.log.file.open("ab") as stream:
        stream.write(b'{"id":4,"par')
    ran = run("stories", "show", "tale")
    assert ran.code == 0
    assert "torn (12 bytes)" in ran.err
