"""What a terminal is shown: text as text, whatever it contains, wrapped at words as it streams."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from typing import TextIO

from rich.console import Console
from rich.text import Text

stderr = Console(stderr=True, highlight=False)

# The picture of each control character: a terminal shows it and does nothing.
_PICTURES = {code: 0x2400 + code for code in range(32) if code != 0x0A} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
# Characters that turn the direction of text, or hide in it.
_PICTURES |= dict.fromkeys([*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF], 0xFFFD)


def visible(text: str) -> str:
    """The text with control characters made visible: nothing in it can move a cursor or set a colour. Line ends stay."""
    return text.translate(_PICTURES)


def complain(sentence: str) -> None:
    """One sentence to stderr."""
    stderr.print(Text(visible(sentence)), soft_wrap=True)


def remark(sentence: str) -> None:
    """One quiet sentence to stderr."""
    stderr.print(Text(visible(sentence), style="dim"), soft_wrap=True)


class ProseStream:
    """Streams prose to a file; on a terminal it breaks lines between words."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._width = min(shutil.get_terminal_size().columns, 100) if self._terminal else 0
        self._column = 0
        self._word = ""

    def write(self, piece: str) -> None:
        """A piece of the paragraph; the word at its end waits until it is whole."""
        piece = visible(piece)
        if not self._terminal:
            self._stream.write(piece)
        else:
            for character in piece:
                if character.isspace():
                    self._put_word()
                    self._put_space(character)
                else:
                    self._word += character
        self._stream.flush()

    def end_paragraph(self) -> None:
        """The end of the paragraph, and an empty line."""
        self._put_word()
        self._stream.write("\n\n")
        self._stream.flush()
        self._column = 0

    def _put_word(self) -> None:
        width = sum(_cells(character) for character in self._word)
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


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
