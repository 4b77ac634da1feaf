"""Judges a paragraph that a model wrote: does it carry out its plan, and does it say anything against the world?

The world's prose is written in forms, and a model that learned from them mostly writes sentences of those forms. Where one of its
sentences fits a form, the words in the slots are compared with the truth: a wrong name, pronoun, thing, trade or hiding place
is a statement against the world. Names that nobody gave it, and trades and hiding places that belong to nobody, are looked for in
every sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import get_args

from recurrent_writer.sentences import split
from training.world.course import TaughtStep
from training.world.forms import ANY_SLOTS, Form, Narrator, Scene, Slot, Verb, fill
from training.world.history import Event
from training.world.inflect import Agreement, Tense, inflect
from training.world.kinds import all_kinds
from training.world.lexicon import Entity, Person, Place, Term, Thing, words
from training.world.scene_forms import all_scenes

_PRONOUN = r"(?:he|she|they|you|I|him|her|them|me|his|their|your|my|himself|herself|themself|yourself|myself)"
_NAME = r"(?:[A-Z][\w'-]*(?: [A-Z][\w'-]*)?|[Yy]ou|I|me)"
_PHRASE = r"[\w',-]+(?: [\w',-]+){0,7}?"
_LEAST_LITERAL = 12


@dataclass(frozen=True)
class Verdict:
    """`followed` says which parts of the plan are in the paragraph; `faults` are statements against the world."""

    followed: dict[str, bool]
    faults: tuple[str, ...]
    sentences: int
    judged: int
    """How many of the sentences fitted a form, so that every word in their slots was compared."""

    @property
    def follows(self) -> bool:
        return all(self.followed.values())


def judge(step: TaughtStep, paragraph: str, narrator: Narrator, spots: dict[Thing, str], prompt_text: str) -> Verdict:
    """Judge a paragraph that was written for a step. `prompt_text` is everything that the model was told."""
    assert step.event is not None
    event = step.event
    faults = _unknown_names(paragraph, prompt_text)
    sentences = split(paragraph)
    judged = 0
    expected = _Expected(event, narrator, spots)
    for sentence in sentences:
        fitting = [fits for form in _sentences(event.kind.name) if (fits := form.fit(sentence, expected)) is not None]
        if fitting:
            judged += 1
            # A sentence may fit several forms: it is right if it is right as one of them.
            wrong: list[list[str]] = [_compare(fits, expected, prompt_text) for fits in fitting]
            if all(wrong):
                faults += sorted(wrong, key=len)[0]
        else:
            faults += _strange_facts(sentence, event, spots, prompt_text)
    return Verdict(_followed(step, paragraph, narrator), tuple(dict.fromkeys(faults)), len(sentences), judged)


def _followed(step: TaughtStep, paragraph: str, narrator: Narrator) -> dict[str, bool]:
    """Whether the people, places, things and the event of the plan are in the paragraph."""
    event = step.event
    assert event is not None
    text = paragraph.lower()
    found = {"event": event.kind.cued(paragraph)}
    for entity in (*event.binding.values(), event.here):
        match entity:
            case Person():
                if narrator.pronoun(entity) in ("you", "I"):
                    here = (
                        re.search(r"\byou" if narrator.person == 2 else r"\b(?:I|me|my)\b", paragraph, re.IGNORECASE)
                        is not None
                    )
                else:
                    here = entity.name.split()[0].lower() in text
                found["people"] = found.get("people", True) and here
            case Thing():
                found["thing"] = found.get("thing", True) and entity.noun.lower() in text
            case Place() if entity.name in step.plan:
                found["place"] = found.get("place", True) and entity.name.split()[-1].lower() in text
            case Term(kind="creature"):
                found["thing"] = found.get("thing", True) and entity.name.split()[-1].lower() in text
    return found


@dataclass(frozen=True)
class _Fits:
    """A sentence that fits a form: each slot with the words that stand in it."""

    slots: tuple[tuple[Slot, str], ...]


class _FormSentence:
    """One sentence of a form as a pattern."""

    def __init__(self, parts: Sequence[str | Slot | Verb]) -> None:
        self.parts = parts
        self.literal = max((part for part in parts if isinstance(part, str)), key=len, default="").strip()

    def fit(self, sentence: str, expected: _Expected) -> _Fits | None:
        if len(self.literal) < _LEAST_LITERAL or self.literal not in sentence:
            return None
        pattern = "".join(_part_pattern(part, expected) for part in self.parts).strip()
        match = re.fullmatch(pattern, sentence)
        if match is None:
            return None
        slots = [part for part in self.parts if isinstance(part, Slot)]
        return _Fits(tuple(zip(slots, match.groups(), strict=True)))


class _Expected:
    """What the slots of an event's forms should hold."""

    def __init__(self, event: Event, narrator: Narrator, spots: dict[Thing, str]) -> None:
        self.event, self.narrator = event, narrator
        self._scene = Scene(event.binding, narrator, event.here, spot=lambda thing: spots.get(thing, ""))
        self._people = [entity for entity in event.binding.values() if isinstance(entity, Person)]

    def right(self, slot: Slot) -> list[str]:
        """Everything that may stand in a slot, the fullest first; nothing for a slot that is free."""
        if slot.attribute.startswith("here"):
            return [fill(slot, self._scene, set())]
        if not slot.role or slot.role not in self.event.binding:
            return []
        found = [fill(slot, self._scene, set())]
        if slot.role == "B":  # scenes call whoever is there B
            found += [
                fill(slot, Scene({**self.event.binding, "B": person}, self.narrator, self.event.here), set())
                for person in self._people
            ]
        if isinstance(self.event.binding[slot.role], Person) and slot.attribute in ("", "'s"):
            found += [f"{words_.split()[0]}'s" if words_.endswith("'s") else words_.split()[0] for words_ in found]
        return sorted(dict.fromkeys(found), key=len, reverse=True)


def _part_pattern(part: str | Slot | Verb, expected: _Expected) -> str:
    if isinstance(part, str):
        return re.escape(part)
    if isinstance(part, Verb):
        tense = expected.narrator.tense
        forms = {inflect(part.lemma, tense, agreement) for agreement in get_args(Agreement)}
        return "(?i:" + "|".join(sorted(map(re.escape, forms))) + ")"
    anything = f"{_PHRASE}"
    if part.role and part.role in "ABCD":
        if part.attribute == "'s":
            anything = rf"{_NAME}'s|[Yy]our|[Mm]y"
        elif part.attribute == "":
            anything = _NAME
        elif part.attribute in ("he", "him", "his", "himself"):
            anything = f"(?i:{_PRONOUN})"
    # What should stand there is tried first, so that of two slots side by side each gets its own words.
    right = "|".join(f"(?i:{re.escape(words_)})" for words_ in expected.right(part))
    return f"({right}|{anything})" if right else f"({anything})"


@cache
def _sentences(kind: str) -> tuple[_FormSentence, ...]:
    """The sentences of a kind's prose, and of the scenes that may stand around any."""
    if kind in all_kinds():
        own = all_kinds()[kind]
        return (*_cut(form for register in own.prose for form in own.forms[register]), *_scene_sentences())
    return _scene_sentences()


@cache
def _scene_sentences() -> tuple[_FormSentence, ...]:
    return _cut(form for group in all_scenes() for form in group.forms)


def _cut(forms: Iterable[Form]) -> tuple[_FormSentence, ...]:
    """Forms cut into sentences, as prose is."""
    found = []
    for form in forms:
        marks = {f"\x02{index}\x03": part for index, part in enumerate(form.parts) if not isinstance(part, str)}
        text = "".join(part if isinstance(part, str) else f"\x02{index}\x03" for index, part in enumerate(form.parts))
        # A slot or verb may begin a sentence: let it look like a capital while the text is cut.
        for sentence in split(re.sub(r"(\x02\d+\x03)", r"A\1", text)):
            pieces = re.split(r"A(\x02\d+\x03)", sentence)
            found.append(_FormSentence([marks.get(piece, piece) for piece in pieces if piece]))
    return tuple(found)


def _compare(fits: _Fits, expected: _Expected, prompt_text: str) -> list[str]:
    """What stands wrongly in the slots of a sentence that fits a form."""
    faults = []
    for slot, words_ in fits.slots:
        right = expected.right(slot)
        entity = expected.event.binding.get(slot.role)
        if slot.attribute in ("trade", "trait") and entity is not None and not _told(entity, slot.attribute, prompt_text):
            continue
        if right and words_.lower() not in [good.lower() for good in right]:
            faults.append(f"'{words_}' instead of '{right[0]}'")
    return faults


def _told(entity: Entity, attribute: str, prompt_text: str) -> bool:
    """True if the model was told the fact: in some sentence both the name and the word stand."""
    assert isinstance(entity, Person)
    value = str(getattr(entity, attribute))
    return any(entity.name.split()[0] in line and value in line for line in re.split(r"[.\n]", prompt_text))


def _unknown_names(paragraph: str, prompt_text: str) -> list[str]:
    """Capital words inside sentences, or beginnings that are no word of the forms, that the prompt does not have."""
    known = set(re.findall(r"[A-Za-z]+", prompt_text)) | {"I"}
    lower = {word.lower() for word in known}
    found = []
    for sentence in split(paragraph):
        for match in re.finditer(r"[A-Z][a-z]+", sentence):
            word = match[0]
            before = sentence[: match.start()].rstrip()
            begins = not before or before[-1] in "\".!?:;'("
            if word in known or (begins and (word.lower() in lower or word.lower() in _form_words())):
                continue
            if word not in _form_capitals():
                found.append(f"unknown name '{word}'")
    return found


def _strange_facts(sentence: str, event: Event, spots: dict[Thing, str], prompt_text: str) -> list[str]:
    """Hiding places in a sentence of no known form that nobody told of."""
    true = {spots[thing] for thing in event.binding.values() if isinstance(thing, Thing) and thing in spots}
    return [
        f"hiding place '{spot}'"
        for spot in words("things", "spots")
        if len(spot.split()) > 2 and spot in sentence and spot not in prompt_text and spot not in true
    ]


@cache
def _form_words() -> frozenset[str]:
    """Every word that the forms can begin a sentence with, in lower case."""
    listed = [*(words("any", kind) for kind in sorted(ANY_SLOTS)), words("people", "trades"), words("people", "traits")]
    texts = (*_form_texts(), *(entry for entries in listed for entry in entries))
    return frozenset(word.lower() for text in texts for word in re.findall(r"[A-Za-z]+", text))


@cache
def _form_capitals() -> frozenset[str]:
    """Capital words that the forms themselves hold."""
    return frozenset(word for text in _form_texts() for word in re.findall(r"[A-Z][a-z]+", text))


@cache
def _form_texts() -> tuple[str, ...]:
    forms = [form for kind in all_kinds().values() for register in kind.prose for form in kind.forms[register]]
    forms += [form for group in all_scenes() for form in group.forms]
    texts = [part for form in forms for part in form.parts if isinstance(part, str)]
    verbs = {part.lemma for form in forms for part in form.parts if isinstance(part, Verb)}
    return (*texts, *(inflect(verb, tense, "third") for verb in verbs for tense in get_args(Tense)))
