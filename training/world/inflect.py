"""Verb forms for the narrator's tense and person (irregular verbs from the library lemminflect)."""

from __future__ import annotations

from functools import cache
from typing import Literal

from lemminflect import getInflection

Tense = Literal["past", "present"]
Agreement = Literal["first", "second", "third", "plural"]

# Verbs that the library does not know as we use them, or of whose past forms it lists the rarer one first.
_BE = {
    ("past", "first"): "was",
    ("past", "third"): "was",
    ("present", "first"): "am",
    ("present", "third"): "is",
}
_MODALS = {
    "can": "could",
    "will": "would",
    "may": "might",
    "shall": "should",
    "should": "should",
    "must": "must",
    "need": "needed",
}
_PAST = {
    "lie": "lay",
    "weave": "wove",
    "hang": "hung",
    "bid": "bade",
    "found": "founded",
    "travel": "travelled",
    "dream": "dreamed",
    "learn": "learned",
    "fit": "fitted",
    "spit": "spat",
    "wet": "wetted",
    "ought": "ought",
}
# Regular verbs that its word list lacks.
_UNLISTED = frozenset(("dare", "outshout", "outstare", "unclench", "uncross", "upend"))
_THIRD = {"fulfil": "fulfils", "ought": "ought"}


class UnknownVerb(ValueError):
    """A verb marker holds a word that has no known past or present form."""


@cache
def inflect(lemma: str, tense: Tense, agreement: Agreement) -> str:
    """The finite form of `lemma`; raises `UnknownVerb` for what is no verb."""
    if lemma == "be":
        return _BE.get((tense, agreement), "were" if tense == "past" else "are")
    if lemma in _MODALS:
        if tense == "past":
            return _MODALS[lemma]
        if lemma != "need":
            return lemma
    if tense == "present" and agreement != "third":
        return lemma
    known, tag = (_PAST, "VBD") if tense == "past" else (_THIRD, "VBZ")
    if lemma in known:
        return known[lemma]
    found = getInflection(lemma, tag=tag, inflect_oov=lemma in _UNLISTED)
    if not found:
        raise UnknownVerb(f"'{lemma}' is not a verb that can be put into the {tense} tense")
    return str(found[0])
