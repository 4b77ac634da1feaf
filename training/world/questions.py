"""Questions about a story whose answers stand in its memory: who holds, is where, knows or wants what."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.world.course import Remembered
from training.world.lexicon import Entity, Person, Place, Thing
from training.world.state import Fact

_ASK = {
    "has": ("Who has {T}?", "Who holds {T} now?", "In whose hands is {T}?"),
    "at": ("Where is {A}?", "Where has {A} gone?", "In what place is {A} now?"),
    "hidden": ("Where is {T}?", "Where was {T} hidden?", "Where should one look for {T}?"),
    "wants": ("What does {A} want?", "What is {A} after?"),
    "knows": ("What does {A} know?", "What secret does {A} know?"),
}
NOT_SAID = "It is not said."


@dataclass(frozen=True)
class Question:
    """A memory, a question about it, and the answer."""

    memory: tuple[str, ...]
    question: str
    answer: str

    @property
    def prompt(self) -> str:
        """What the user says."""
        lines = "".join(f"{number}. {sentence}\n" for number, sentence in enumerate(self.memory, 1))
        return f"Memory:\n{lines}\nQuestion: {self.question}"


def draw_question(rng: random.Random, memory: Sequence[Remembered]) -> Question | None:
    """A question that one of these sentences answers, or, now and then, none of them; None if they answer nothing."""
    answered = [(item, fact) for item in memory for fact in item.facts if fact[0] in _ASK and _answer(item, fact)]
    if not answered:
        return None
    item, fact = rng.choice(answered)
    question = rng.choice(_ASK[fact[0]])
    for entity in fact[1]:
        question = question.replace(
            "{T}" if isinstance(entity, Thing) else "{A}" if isinstance(entity, Person) else "{P}", _the(entity)
        )
    sentences = [remembered.sentence for remembered in memory]
    answer = _answer(item, fact)
    if rng.random() < 0.15:
        about = fact[1][-1 if fact[0] == "has" else 0].name
        sentences = [sentence for sentence in sentences if about not in sentence]
        answer = NOT_SAID
    return Question(tuple(sentences), question, answer) if sentences else None


def _answer(item: Remembered, fact: Fact) -> str:
    """The answer that the sentence gives; empty if it does not say it in so many words."""
    predicate, arguments = fact
    sentence = item.sentence
    if predicate == "hidden":
        place = arguments[1]
        assert isinstance(place, Place)
        if item.spot and item.spot in sentence and place.name in sentence:
            return f"{item.spot[0].upper()}{item.spot[1:]}, {place.at}."
        return ""
    said = arguments[0] if predicate == "has" else arguments[1]
    other = arguments[1] if predicate == "has" else arguments[0]
    if said.name not in sentence or other.name not in sentence:
        return ""
    answer = _the(said)
    return f"{answer[0].upper()}{answer[1:]}."


def _the(entity: Entity) -> str:
    return f"the {entity.name}" if isinstance(entity, Thing) else entity.name
