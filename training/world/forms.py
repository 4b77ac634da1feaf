"""Written sentences with slots: parsed once, rendered for any narrator (person and tense) and any cast.

A form is plain English in which `{A}` stands for who fills role A, `{T}` for a thing, and `[go]` for the verb in
the narrator's tense, agreeing with its subject. WRITING.md, beside this file, tells an author the whole language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from training.world.inflect import Agreement, Tense, inflect
from training.world.lexicon import Entity, Person, Place, Term, Thing

PERSON_ATTRIBUTES = frozenset({"", "'s", "he", "him", "his", "himself", "trade", "trait"})
THING_ATTRIBUTES = frozenset({"", "a", "n", "noun", "spot"})
PLACE_ATTRIBUTES = frozenset({"", "at"})
TERM_ATTRIBUTES = frozenset({"", "a", "n"})
SCENE_SLOTS = frozenset({"here", "here.at", "weather", "time", "season"})
ANY_SLOTS = frozenset({"bird", "tree", "flower", "food", "beast", "colour"})

_PRONOUNS = {
    "he": ("he", "him", "his", "himself"),
    "she": ("she", "her", "her", "herself"),
    "they": ("they", "them", "their", "themself"),
    "you": ("you", "you", "your", "yourself"),
    "I": ("I", "me", "my", "myself"),
}
_PREPOSITIONS = frozenset(
    "to for with at by from of on in into onto upon over under behind beside between against toward towards "
    "around round about near past beyond without within among through across along above below opposite let".split()
)
_SPEAKS = re.compile(
    r"(?: [a-z]+ly)? \[(?:say|ask|cry|call|whisper|mutter|reply|answer|shout|demand|murmur|add|snap|inquire|want|exclaim|bellow|"
    r"roar|wonder|yell|hiss|growl|sigh|offer|put|venture|croak|squeak|repeat|insist|protest|breathe|moan|groan|laugh)\]"
)
_MARK = re.compile(r"\{([A-Za-z][A-Za-z.']*)\}|\[([a-z]+)(?::(it|pl))?\]")


class FormError(ValueError):
    """A form that cannot be read; the message says where and why."""


@dataclass(frozen=True)
class Slot:
    """`{A.his}`: role "A", attribute "his". `role` is "" for the slots of the scene (`{weather}`, `{any.bird}`)."""

    role: str
    attribute: str
    quoted: bool
    starts: bool
    object: bool


@dataclass(frozen=True)
class Verb:
    """`[go]`: a finite verb; `subject` is the slot it agrees with, None for any other noun."""

    lemma: str
    number: Literal["it", "pl"] | None
    subject: Slot | None
    starts: bool


@dataclass(frozen=True)
class Form:
    """A parsed form. `roles` are the capital letters it mentions."""

    source: str
    parts: tuple[str | Slot | Verb, ...]
    roles: frozenset[str]


@dataclass(frozen=True)
class Narrator:
    """Who tells: grammatical person 1, 2 or 3, the tense, and who "I" or "you" is (None: nobody)."""

    person: Literal[1, 2, 3] = 3
    tense: Tense = "past"
    protagonist: Person | None = None

    def pronoun(self, person: Person) -> str:
        if self.protagonist is person and self.person != 3:
            return "you" if self.person == 2 else "I"
        return person.pronoun


@dataclass
class Scene:
    """What the slots of a form are filled from."""

    binding: Mapping[str, Entity]
    narrator: Narrator = field(default_factory=Narrator)
    here: Place | None = None
    weather: str = "rain"
    time: str = "morning"
    season: str = "autumn"
    spot: Callable[[Thing], str] = lambda thing: "out of sight"
    any: Callable[[str], str] = lambda kind: kind


@dataclass(frozen=True)
class Rendered:
    """A form put into words. `uses` are the facts it states that the event itself does not give: (attribute, entity)."""

    text: str
    uses: frozenset[tuple[str, Entity]]


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    vowel = phrase[0].lower() in "aeiou" and not phrase.lower().startswith(("uni", "use", "one", "eu"))
    return f"{'an' if vowel or phrase.lower().startswith(('hour', 'honest', 'heir')) else 'a'} {phrase}"


@cache
def parse(source: str) -> Form:
    """Read a form. Raises `FormError` for an unknown slot, a verb inside speech, or an odd quotation mark."""
    return _Parser(source).parse()


class _Parser:
    """Goes through a form from left to right and knows what the wording of the next slot or verb depends on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.parts: list[str | Slot | Verb] = []
        self.roles: set[str] = set()
        self.read = ""
        """The text so far, with "]" for every verb and "}" for every slot."""
        self.quoted = False
        self.starts = True
        """True where a sentence begins."""
        self.subject: Slot | None = None
        self.last_person: Slot | None = None
        self.last_was_object = False

    def parse(self) -> Form:
        at = 0
        for match in _MARK.finditer(self.source):
            self._text(self.source[at : match.start()])
            at = match.end()
            if match[2]:
                self._verb(match[2], match[3])
            else:
                self._slot(match[1], at)
        if self.source[at:]:
            self.parts.append(self.source[at:])
        self._check()
        return Form(self.source, tuple(self.parts), frozenset(self.roles))

    def _text(self, text: str) -> None:
        if not text:
            return
        self.parts.append(text)
        self.read += text
        for index, character in enumerate(text):
            if character == '"':
                self.quoted = not self.quoted
                # Speech that goes on after "..., {A} [say], ..." keeps its small letter: only a fresh sentence starts.
                self.starts = self.quoted or self.starts
            elif character in ".!?" and (index + 1 == len(text) or not text[index + 1].isalpha()):
                self.starts, self.subject = True, None
            elif not character.isspace():
                self.starts = False

    def _verb(self, lemma: str, number: str | None) -> None:
        if self.quoted:
            raise FormError(f"verb marker [{lemma}] inside speech, which is not put into the narrator's tense: {self.source}")
        inflect(lemma, "past", "third"), inflect(lemma, "present", "third")
        if re.search(r"\}\W*who\W*$", self.read):
            self.subject = self.last_person
        agrees: Literal["it", "pl"] | None = "it" if number == "it" else "pl" if number else None
        self.parts.append(Verb(lemma, agrees, None if agrees else self.subject, self.starts))
        self.read += "]"
        self.starts = self.last_was_object = False

    def _slot(self, name: str, end: int) -> None:
        role, attribute = _slot_name(name, self.source)
        if re.search(r"[?!]\"\s*$", self.read) and _SPEAKS.match(self.source, end):
            self.starts = False  # "Why?" you ask
        slot = Slot(role, attribute, self.quoted, self.starts, self._is_object())
        if role and role in "ABCD":
            if self.quoted and attribute in ("he", "him", "his", "himself"):
                raise FormError(f"pronoun slot {{{name}}} inside speech: write the word itself: {self.source}")
            if not self.quoted and (attribute == "he" or (attribute == "" and not slot.object)):
                self.subject = slot
            self.last_person = slot
        if role:
            self.roles.add(role)
        self.parts.append(slot)
        self.read += "}"
        self.starts, self.last_was_object = False, slot.object

    def _is_object(self) -> bool:
        """True for a slot behind a verb or a preposition, or behind such a slot and "and"."""
        before = re.search(r"([a-z]+|\])\s*$", self.read.lower())
        word = before[1] if before else ""
        return word == "]" or word in _PREPOSITIONS or (self.last_was_object and self.read.endswith("} and "))

    def _check(self) -> None:
        if self.source.count('"') % 2:
            raise FormError(f"an odd number of quotation marks: {self.source}")
        rest = "".join(part for part in self.parts if isinstance(part, str))
        if stray := re.search(r"[{}\[\]]", rest):
            raise FormError(f"'{stray[0]}' that belongs to no slot or verb: {self.source}")
        if not self.source.isascii():
            raise FormError(f"a character beyond ASCII: {self.source}")


def _slot_name(name: str, source: str) -> tuple[str, str]:
    if name in SCENE_SLOTS or (name.startswith("any.") and name[4:] in ANY_SLOTS):
        return "", name
    role, attribute = name[0], name[1:].removeprefix(".")
    allowed = (
        PERSON_ATTRIBUTES if role in "ABCD"
        else THING_ATTRIBUTES if role in "TUV"
        else PLACE_ATTRIBUTES if role in "PQR"
        else {""} if role == "S"
        else TERM_ATTRIBUTES if role == "W"
        else frozenset[str]()
    )  # fmt: skip
    if attribute not in allowed:
        raise FormError(f"unknown slot {{{name}}}: {source}")
    return role, attribute


def render(form: Form, scene: Scene) -> Rendered:
    """Put a form into words. Every role of the form must be bound in the scene."""
    words: list[str] = []
    uses: set[tuple[str, Entity]] = set()
    for part in form.parts:
        if isinstance(part, str):
            words.append(part)
            continue
        if isinstance(part, Verb):
            word = inflect(part.lemma, scene.narrator.tense, _agreement(part, scene))
        else:
            word = fill(part, scene, uses)
        words.append(word[0].upper() + word[1:] if part.starts else word)
    return Rendered("".join(words), frozenset(uses))


def _agreement(verb: Verb, scene: Scene) -> Agreement:
    if verb.number:
        return "third" if verb.number == "it" else "plural"
    if verb.subject is None:
        return "third"
    person = scene.binding[verb.subject.role]
    assert isinstance(person, Person)
    match scene.narrator.pronoun(person):
        case "you":
            return "second"
        case "I":
            return "first"
        case "they" if verb.subject.attribute == "he":
            return "plural"
    return "third"


def fill(slot: Slot, scene: Scene, uses: set[tuple[str, Entity]]) -> str:
    """The words for a slot; facts that they state are added to `uses`."""
    if not slot.role:
        if slot.attribute.startswith("any."):
            return scene.any(slot.attribute[4:])
        if slot.attribute.startswith("here"):
            assert scene.here is not None
            return scene.here.at if slot.attribute == "here.at" else scene.here.name
        return str(getattr(scene, slot.attribute))
    entity = scene.binding[slot.role]
    match entity:
        case Person():
            return _person(entity, slot, scene.narrator, uses)
        case Thing():
            if slot.attribute == "spot":
                uses.add(("spot", entity))
                return scene.spot(entity)
            names = {"": f"the {entity.name}", "a": article(entity.name), "n": entity.name, "noun": entity.noun}
            return names[slot.attribute]
        case Place():
            return entity.at if slot.attribute == "at" else entity.name
        case Term(kind="creature"):
            return {"": f"the {entity.name}", "a": article(entity.name), "n": entity.name}[slot.attribute]
        case Term(kind="secret"):
            uses.add(("secret", entity))
            return entity.name
        case Term():
            return entity.name


def _person(person: Person, slot: Slot, narrator: Narrator, uses: set[tuple[str, Entity]]) -> str:
    if slot.attribute in ("trade", "trait"):
        uses.add((slot.attribute, person))
        return str(getattr(person, slot.attribute))
    pronoun = person.pronoun if slot.quoted else narrator.pronoun(person)
    if pronoun in ("you", "I"):
        subject, other, possessive, reflexive = _PRONOUNS[pronoun]
        cases = {"": other if slot.object else subject, "'s": possessive, "he": subject, "him": other, "his": possessive}
        return cases.get(slot.attribute, reflexive)
    subject, other, possessive, reflexive = _PRONOUNS[pronoun]
    return {"": person.name.split()[0] if slot.quoted else person.name, "'s": f"{person.name}'s", "he": subject,
            "him": other, "his": possessive, "himself": reflexive}[slot.attribute]  # fmt: skip
