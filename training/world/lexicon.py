"""The words of the world: names, trades, things, places, hiding spots, secrets; listed, held out, or invented."""

from __future__ import annotations

import random
import tomllib
import zlib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Person:
    """Somebody: a name, the pronoun they go by ("he", "she", "they"), a trade and a trait."""

    name: str
    pronoun: str
    trade: str
    trait: str


@dataclass(frozen=True)
class Thing:
    """Something to hold, hide, lose or give: "brass" + "key"."""

    quality: str
    noun: str
    tags: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def name(self) -> str:
        return f"{self.quality} {self.noun}" if self.quality else self.noun


@dataclass(frozen=True)
class Place:
    """Somewhere: a phrase with its article ("the old mill", "Harrow Ford") and its preposition ("in", "at", "on")."""

    name: str
    preposition: str
    tags: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def at(self) -> str:
        return f"{self.preposition} {self.name}"


@dataclass(frozen=True)
class Term:
    """A creature ("grey wolf"), a title ("The Drowned Bell") or a secret ("the old well has run dry")."""

    kind: Literal["creature", "title", "secret"]
    name: str


Entity = Person | Thing | Place | Term


def _held_out(word: str) -> bool:
    """One word in eight is never seen in training; which one hangs on the word alone."""
    return zlib.crc32(word.encode()) % 8 == 0


_ONSETS = "b br c ch cl d dr f fl g gl gr h j k kl l m n p pr qu r s sh sk st t th tr v w y z".split()
_VOWELS = "a e i o u ae ai ea ee ia io oa oo ou".split()
_CODAS = ["", "", "", "", *"l m n r s t th nd rn ck sh lm rd x ng".split()]


def invent(rng: random.Random, syllables: int | None = None) -> str:
    """A made-up word in lower case that follows English spelling."""
    count = syllables or rng.choice((2, 2, 2, 3))
    word = "".join(
        rng.choice(_ONSETS)
        + rng.choice(_VOWELS[: 5 if rng.random() < 0.8 else None])
        + (rng.choice(_CODAS) if i == count - 1 else "")
        for i in range(count)
    )
    return word if len(word) <= 10 else invent(rng, syllables)


@cache
def _tables() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("training.world").joinpath("lexicon.toml").read_text("utf-8"))


@cache
def _list(table: str, key: str, split: Split | None) -> tuple[str, ...]:
    """Entries of a list, one a line; `split` None takes all."""
    entries = tuple(line.strip() for line in _tables()[table][key].splitlines() if line.strip())
    if split is None:
        return entries
    return tuple(entry for entry in entries if _held_out(entry.split("|")[0].strip()) == (split == "held_out"))


def words(table: str, key: str) -> tuple[str, ...]:
    """Every entry of a list."""
    return _list(table, key, None)


class Lexicon:
    """Draws words for one world. `split` says from which half of every list; `invented` is the share of made-up words."""

    def __init__(self, rng: random.Random, split: Split = "train", invented: float = 0.35) -> None:
        self.rng, self.split, self.invented = rng, split, invented
        self._names: set[str] = set()

    def draw(self, table: str, key: str) -> str:
        """Any entry of a list that is not split into training and held-out words."""
        return self.rng.choice(_list(table, key, None))

    def _split(self, table: str, key: str) -> str:
        return self.rng.choice(_list(table, key, self.split))

    def _fresh(self, word: str) -> bool:
        if word.lower() in self._names:
            return False
        self._names.add(word.lower())
        return True

    def _made_up(self) -> bool:
        return self.rng.random() < self.invented

    def person(self) -> Person:
        pronoun = self.rng.choice(("he", "she", "he", "she", "he", "she", "he", "she", "they"))
        while True:
            table = {"he": "male", "she": "female"}.get(pronoun) or self.rng.choice(("male", "female"))
            name = invent(self.rng).capitalize() if self._made_up() else self._split("names", table)
            if self.rng.random() < 0.06:
                name += " " + (invent(self.rng).capitalize() if self._made_up() else self._split("names", "family"))
            if self._fresh(name.split()[0]):
                return Person(name, pronoun, self.draw("people", "trades"), self.draw("people", "traits"))

    def thing(self, tag: str | None = None) -> Thing:
        while True:
            line = self._split("things", "nouns")
            noun, _, tags = (part.strip() for part in line.partition("|"))
            if tag and tag not in tags.split():
                continue
            if self.rng.random() < self.invented / 2:
                noun = invent(self.rng)
            quality = invent(self.rng) if self.rng.random() < self.invented / 4 else self._split("things", "qualities")
            thing = Thing(quality, noun, frozenset(tags.split()))
            if self._fresh(thing.noun) and self._fresh(thing.name):
                return thing

    def place(self, tag: str | None = None) -> Place:
        while True:
            name, preposition, tags = (part.strip() for part in self._split("places", "places").split("|"))
            if tag and tag not in tags.split():
                continue
            if self._made_up():
                word = invent(self.rng).capitalize()
                kind = name.split()[-1]
                name = f"the {kind} of {word}" if self.rng.random() < 0.5 else f"{word} {kind.capitalize()}"
            if self._fresh(name.split()[-1]) and self._fresh(name):
                return Place(name, preposition, frozenset(tags.split()))

    def spot(self) -> str:
        """Where a thing may be hidden: "under the loose floorboard"."""
        return self.draw("things", "spots")

    def creature(self) -> Term:
        name = self._split("terms", "creatures")
        return Term("creature", f"{name.split()[0]} {invent(self.rng)}" if self.rng.random() < self.invented / 3 else name)

    def title(self) -> Term:
        return Term("title", self._split("terms", "titles"))

    def secret(self) -> Term:
        """Something to know and tell, with words drawn for its {n}, {q}, {name}, {place} and {w}."""
        filled = {
            "n": self._split("things", "nouns").split("|")[0].strip(),
            "q": self._split("things", "qualities"),
            "name": self._split("names", self.rng.choice(("male", "female"))),
            "place": self._split("places", "places").split("|")[0].strip(),
            "w": invent(self.rng),
        }
        return Term("secret", self._split("terms", "secrets").format(**filled))
