"""What a terminal is shown: text as text, whatever it contains, wrapped at words as it streams."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text


class Screen(Console):
    """A console that leaves a closed pipe to the program; Rich would end it with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Raise the `BrokenPipeError` that is being handled."""
        raise


stderr = Screen(stderr=True, highlight=False)

# The picture of each control character: a terminal shows it and does nothing.
_PICTURES = {code: 0x2400 + code for code in range(32) if code != 0x0A} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
# Characters that turn the direction of text, or hide in it; not the joiners, which Persian, Hindi and emoji are written with.
_PICTURES |= dict.fromkeys([0x061C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF], 0xFFFD)

# Categories of characters that may begin a line: letters, digits, opening marks.
_OPENERS = ("Lo", "Lu", "Ll", "Nd", "Ps", "Pi")


def visible(text: str) -> str:
    """The text with control characters made visible: nothing in it can move a cursor or set a colour. Line ends stay."""
    return text.translate(_PICTURES)


def complain(sentence: str) -> None:
    """One sentence to stderr."""
    stderr.print(Text(visible(sentence)), soft_wrap=True)


def remark(sentence: str) -> None:
    """One quiet sentence to stderr."""
    stderr.print(Text(visible(sentence), style="dim"), soft_wrap=True)


def file_fault(fault: OSError) -> str:
    """What the operating system has against a file, in a sentence."""
    file = fault.filename or "A file or the output"
    return f"{file} cannot be read or written: {fault.strerror or fault}. Mend that, or name another place."


class ProseStream:
    """Streams prose to a file; on a terminal it breaks lines between words, and between the letters of scripts without spaces."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._width = min(shutil.get_terminal_size().columns, 100) if self._terminal else 0
        self._column = 0
        self._word = ""
        self._open = False

    def write(self, piece: str) -> None:
        """A piece of the paragraph; the word at its end waits until it is whole."""
        self._open |= bool(piece)
        piece = visible(piece)
        if not self._terminal:
            self._stream.write(piece)
        else:
            for character in piece:
                if character.isspace():
                    self._put_word()
                    self._put_space(character)
                else:
                    if self._word and _may_break(self._word[-1], character):
                        self._put_word()
                    self._word += character
        self._stream.flush()

    def end_paragraph(self) -> None:
        """The end of the paragraph, and an empty line; nothing if no paragraph was begun."""
        if not self._open:
            return
        self._open = False
        self._put_word()
        self._stream.write("\n\n")
        self._stream.flush()
        self._column = 0

    def _put_word(self) -> None:
        width = cell_len(self._word)
        if self._column and self._column + width > self._width:
            self._stream.write("\n")
            self._column = 0
        self._stream.write(self._word)
        self._column += width
        self._word = ""

    def _put_space(self, character: str) -> None:
        if character == "\n":
            self._stream.write("\n")
            self._column = 0
        elif 0 < self._column < self._width:
            self._stream.write(" ")
            self._column += 1


def _may_break(left: str, right: str) -> bool:
    """True if a line may break between two characters: beside a wide one, before a letter, digit or opening mark."""
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in (left, right))
    return wide and unicodedata.category(right) in _OPENERS and unicodedata.category(left) not in ("Ps", "Pi")
