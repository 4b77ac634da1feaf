"""Cutting prose into sentences."""

from __future__ import annotations

import re

# Behind . ! ? or an ellipsis, with the quotation marks that close there, before a space and something that can begin a sentence.
_END = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)]*\s+(?=[\"'\u201c\u2018(]*[A-Z0-9])|(?<=[\u3002\uff01\uff1f])")

# A phrase four times or more in succession: a model has run into a circle.
_CIRCLE = re.compile(r"\b(\w.{2,80}?)(?:[\s,;.]*\1){3,}")


def split(text: str) -> list[str]:
    """The sentences of a text, each without the space around it. Speech in quotation marks is not cut in two."""
    sentences, begin = [], 0
    for match in _END.finditer(text):
        end = match.start() + len(match[0].rstrip())
        if _speaking(text[begin:end]):
            continue
        sentences.append(text[begin:end].strip())
        begin = match.end()
    return [sentence for sentence in (*sentences, text[begin:].strip()) if sentence]


def _speaking(text: str) -> bool:
    """True if a quotation is open at the end of a text."""
    return text.count('"') % 2 == 1 or text.count("\u201c") > text.count("\u201d")


def windows(text: str) -> list[str]:
    """A text in pairs of sentences; a last single one joins the pair before it."""
    sentences = split(text)
    pairs = [sentences[at : at + 2] for at in range(0, len(sentences), 2)]
    if len(pairs) > 1 and len(pairs[-1]) == 1:
        pairs[-2:] = [[*pairs[-2], *pairs[-1]]]
    return [" ".join(pair) for pair in pairs]


def whole(text: str) -> str:
    """The text up to its last finished sentence; all of it if it has none."""
    end = max((text.rfind(mark) for mark in ".!?\u2026\u3002"), default=-1)
    if end < 0:
        return text
    while end + 1 < len(text) and text[end + 1] in "\"'\u201d\u2019)":
        end += 1
    return text[: end + 1]


def straight(text: str) -> str:
    """The text with every phrase said once that it says four times or more in succession."""
    return _CIRCLE.sub(r"\1", text)
