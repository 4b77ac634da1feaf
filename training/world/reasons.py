"""Why a sentence is remembered or let go, in the teacher's words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from training.world.forms import article
from training.world.lexicon import Entity, Person, Thing
from training.world.state import Fact, State

_ADD = {
    "has": ("who has {T} matters", "{T} may be wanted again", "to know where {T} is", "{A} holds {T} now"),
    "at": ("to know where {A} is", "{A} is somewhere else now", "the place has changed"),
    "hidden": ("only this says where {T} is", "{T} will be looked for", "the hiding place must not be forgotten"),
    "lost": ("{T} may turn up again", "somebody will miss {T}", "{T} is out of reach for now"),
    "lies": ("anybody may take {T} now", "to know where {T} is"),
    "gone": ("{T} cannot be used again", "{T} is no more"),
    "knows": ("a secret can come out", "{A} may use what {A} knows", "it will not stay quiet"),
    "friend": ("it changes what they are to each other", "a friend can be called on"),
    "foe": ("it will not be forgiven soon", "it changes what they are to each other"),
    "hurt": ("{A} is not able to do everything", "a wound takes time"),
    "ill": ("{A} needs care", "an illness takes its time"),
    "dead": ("{A} cannot come back", "the others will mourn"),
    "broken": ("{T} needs mending", "{T} is of no use as it is"),
    "": ("it may have consequences", "it is not settled yet", "something will come of it", "it is still open"),
}
_ADD_ANY = (
    "{A} will remember it",
    "it may matter later",
    "it shows how things stand",
    "it belongs to the story",
    "to go on from there",
)
_DROP = {
    "has": ("{T} has changed hands", "{T} is with somebody else now", "{T} is elsewhere now"),
    "at": ("{A} has moved on", "{A} is no longer there"),
    "hidden": ("{T} is no longer there", "the hiding place is empty now"),
    "lost": ("{T} was found", "{T} is not lost any more"),
    "lies": ("{T} was taken up", "{T} is not there any more"),
    "hurt": ("the wound has healed", "{A} is well again"),
    "ill": ("{A} is well again", "the illness is over"),
    "broken": ("{T} is whole again", "{T} was mended"),
    "friend": ("that has changed between them", "it is no longer so"),
    "foe": ("they have made it up", "it is no longer so"),
    "": ("it is settled", "that is over", "it is no longer so", "it has come to an end"),
}
_FORGET = ("it was long ago", "nothing hangs on it now", "it no longer matters", "the story has moved on")
_DESCRIBE = ("to know who {A} is", "{A} must stay the same", "so that {A} can be told from the others")
_DESCRIPTION = {
    "trade": ("{A} is {x}.", "{A} works as {x}.", "By trade {A} is {x}."),
    "trait": ("{A} is {x}.", "{A} is known to be {x}.", "{A} is rather {x}."),
}


def to_add(rng: random.Random, made: Sequence[Fact], binding: Mapping[str, Entity]) -> str:
    """Why what an event made true is worth a sentence."""
    if made and rng.random() < 0.8:
        return _fill(rng, _ADD, rng.choice(list(made)))
    return rng.choice(_ADD_ANY).replace("{A}", binding["A"].name)


def to_drop(rng: random.Random, untrue: Fact, state: State) -> str:
    """Why a sentence goes whose fact is not true any more."""
    predicate, arguments = untrue
    thing = next((entity for entity in arguments if isinstance(entity, Thing)), None)
    if predicate in ("has", "hidden", "lies", "lost") and thing is not None and rng.random() < 0.5:
        found = state.things[thing]
        if found.way == "has" and found.owner is not None:
            return f"{found.owner.name} has the {thing.name} now"
    if predicate == "at" and isinstance(arguments[0], Person) and rng.random() < 0.5:
        return f"{arguments[0].name} is {state.at[arguments[0]].at} now"
    return _fill(rng, _DROP, untrue)


def to_forget(rng: random.Random) -> str:
    """Why a sentence goes that is true but old."""
    return rng.choice(_FORGET)


def to_describe(rng: random.Random, person: Person) -> str:
    """Why it is worth a sentence what somebody is like."""
    return rng.choice(_DESCRIBE).replace("{A}", person.name)


def description(rng: random.Random, person: Person, attribute: str) -> str:
    """What somebody is or is like, as a sentence to remember."""
    value = article(person.trade) if attribute == "trade" else person.trait
    return rng.choice(_DESCRIPTION[attribute]).replace("{A}", person.name).replace("{x}", value)


def _fill(rng: random.Random, table: Mapping[str, tuple[str, ...]], fact: Fact) -> str:
    predicate, arguments = fact
    text = rng.choice(table.get(predicate, table[""]))
    for entity in arguments:
        letter = "{A}" if isinstance(entity, Person) else "{T}" if isinstance(entity, Thing) else "{P}"
        text = text.replace(letter, f"the {entity.name}" if isinstance(entity, Thing) else entity.name)
    return text if "{" not in text else rng.choice(table[""])
