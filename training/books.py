"""Public-domain prose: paragraphs of books, and plans guessed from them."""

from __future__ import annotations

import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_LEAST_WORDS, _MOST_WORDS = 35, 140
_NAME = re.compile(r"(?<=[a-z,;] )(?:(?:Mr|Mrs|Miss|Dr|Sir|Lady|Captain|Aunt|Uncle)\.? )?[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})?")
_WORD = re.compile(r"(?<![A-Za-z'])[a-z]{5,}(?![A-Za-z'])")
_NO_NAMES = frozenset(
    "English French German Christmas Sunday Monday Tuesday Wednesday Thursday Friday Saturday God Heaven Lord January February "
    "March April May June July August September October November December Then There This That They What When Where".split()
)
_PLANS = (
    "{names}: {words}.",
    "Write about {names} and {words}.",
    "{names}. {words_capital}.",
    "Next comes {names}, with {words}.",
    "{words_capital}; {names} is in it.",
    "Let there be {words}, and {names}.",
)
_NAMELESS = ("Write about {words}.", "{words_capital}.", "Next: {words}.", "Let there be {words}.")


@dataclass(frozen=True)
class Book:
    """A book as paragraphs of moderate length, in order."""

    title: str
    author: str
    paragraphs: tuple[str, ...]


def read_books(folder: Path) -> Iterator[Book]:
    """The books of every `*.jsonl.xz` in a folder: one JSON object a line with title, author and text."""
    for file in sorted(folder.glob("*.jsonl.xz")):
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield Book(record["title"], record["author"], tuple(_paragraphs(record["text"])))


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        paragraph = plain(block)
        if _LEAST_WORDS <= len(paragraph.split()) <= _MOST_WORDS and paragraph[-1:] in '.!?"' and "|" not in paragraph:
            yield paragraph


def plain(text: str) -> str:
    """One line, straight quotation marks, no Markdown emphasis."""
    text = text.replace("\u201c", '"').replace("\u201d", '"').replace("\u2019", "'").replace("\u2018", "'")
    return " ".join(re.sub(r"[_*#]+", "", text).split())


class PlanGuesser:
    """Guesses the plan that a paragraph carries out: its names, and those of its words that are rare elsewhere."""

    def __init__(self, books: Sequence[Book]) -> None:
        self._documents: Counter[str] = Counter()
        for book in books:
            for paragraph in book.paragraphs[::7]:
                self._documents.update(set(_WORD.findall(paragraph)))

    def guess(self, paragraph: str, rng: random.Random) -> str:
        """A plan for the paragraph, as a person in a hurry would write it."""
        names = [name for name in dict.fromkeys(_NAME.findall(paragraph)) if name.split()[0] not in _NO_NAMES][:3]
        words = sorted(set(_WORD.findall(paragraph)), key=lambda word: (self._documents[word], word))[:8]
        chosen = rng.sample(words, min(len(words), rng.randint(2, 4)))
        listed = _listed([f"the {word}" if rng.random() < 0.2 else word for word in chosen] or ["what happens"])
        capital = listed[0].upper() + listed[1:]
        form = rng.choice(_PLANS if names else _NAMELESS)
        return form.format(names=_listed(names), words=listed, words_capital=capital)


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
