"""What a terminal is shown: model output is text, never markup."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from recurrent_writer.cli.console import ProseStream, complain, visible


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_nothing_that_a_terminal_obeys_gets_through(text):
    shown = visible(text)
    assert len(shown) == len(text)
    assert not any(ord(c) < 32 and c != "\n" for c in shown)
    assert not any(0x7F <= ord(c) < 0xA0 for c in shown)


def test_an_escape_sequence_is_shown_as_characters():
    assert visible("a\x1b[31mb\x07\r\n") == "a\u241b[31mb\u2407\u240d\n"
    assert visible("left\u202eright") == "left\ufffdright"


def test_joiners_stay_and_marks_of_direction_do_not():
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f467"
    assert visible(joined) == joined
    assert visible("a\u061cb") == "a\ufffdb"


def test_rich_tags_are_plain_characters(capsys):
    complain("[bold red]not a tag[/bold red] [link=x]y[/link]")
    assert capsys.readouterr().err == "[bold red]not a tag[/bold red] [link=x]y[/link]\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def width(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: __import__("os").terminal_size((20, 24)))
    return 20


def test_a_terminal_gets_whole_words(width):
    stream = Terminal()
    prose = ProseStream(stream)
    for piece in ("The quick br", "own fox jum", "ped over the lazy d", "og."):
        prose.write(piece)
    prose.end_paragraph()
    assert stream.getvalue().split() == "The quick brown fox jumped over the lazy dog.".split()
    assert all(len(line) <= width for line in stream.getvalue().splitlines())


@given(words=st.lists(st.text(st.sampled_from("ab\u4f60"), min_size=1, max_size=30), min_size=1), cuts=st.integers(1, 5))
def test_no_word_is_lost_however_the_pieces_fall(words, cuts):
    text = " ".join(words)
    stream = Terminal()
    prose = ProseStream(stream)
    for at in range(0, len(text), cuts):
        prose.write(text[at : at + cuts])
    prose.end_paragraph()
    assert "".join(stream.getvalue().split()) == "".join(words)


def test_letters_without_spaces_stream_as_they_come(width):
    stream = Terminal()
    prose = ProseStream(stream)
    text = "\u4f60\u597d\uff0c\u4e16\u754c\u3002" * 5 + "\U0001f469\u200d\U0001f467"
    for number, character in enumerate(text, 1):
        prose.write(character)
        assert number - len(stream.getvalue().replace("\n", "")) <= 5
    prose.end_paragraph()
    lines = stream.getvalue().split("\n\n")[0].splitlines()
    assert "".join(lines) == text
    assert all(cell_len(line) <= width for line in lines)
    assert not any(line.startswith(("\uff0c", "\u3002", "\u200d")) for line in lines)


def test_a_paragraph_ends_once():
    stream = io.StringIO()
    prose = ProseStream(stream)
    prose.end_paragraph()
    prose.write("one")
    prose.end_paragraph()
    prose.end_paragraph()
    assert stream.getvalue() == "one\n\n"


def test_a_file_gets_the_text_as_it_is():
    stream = io.StringIO()
    prose = ProseStream(stream)
    prose.write("one two " * 40)
    prose.end_paragraph()
    assert stream.getvalue() == "one two " * 40 + "\n\n"
