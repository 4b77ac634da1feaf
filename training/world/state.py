"""The exact state of a world: who is where, what is where, and every other fact; what an event needs of it and does to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from training.world.kinds import SYMMETRIC, Atom, Kind
from training.world.lexicon import Entity, Lexicon, Person, Place, Term, Thing

Binding = dict[str, Entity]
Fact = tuple[str, tuple[Entity, ...]]

_OPPOSITE = {"friend": "foe", "foe": "friend"}
Way = Literal["has", "lies", "hidden", "lost", "gone"]
_THING_STATES = ("has", "lies", "hidden", "lost", "gone")


@dataclass(frozen=True)
class Whereabouts:
    """Where a thing is: held by somebody ("has"), or lying, hidden or lost at a place, or gone for good."""

    way: Way
    owner: Person | Place | None


@dataclass
class State:
    """Everything that is true. Things that somebody holds are where that person is."""

    people: list[Person] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    ways: dict[Place, list[Place]] = field(default_factory=dict)
    at: dict[Person, Place] = field(default_factory=dict)
    things: dict[Thing, Whereabouts] = field(default_factory=dict)
    spots: dict[Thing, str] = field(default_factory=dict)
    facts: set[Fact] = field(default_factory=set)
    weather: str = "clear"
    time: str = "morning"
    season: str = "autumn"

    def living(self) -> list[Person]:
        return [person for person in self.people if ("dead", (person,)) not in self.facts]

    def holds(self, fact: Fact) -> bool:
        """True if the fact is true now; understands whereabouts as well as plain facts."""
        predicate, arguments = fact
        if predicate == "at":
            return self.at.get(_person(arguments[0])) == arguments[1]
        if predicate in _THING_STATES:
            found = self.things.get(_thing(arguments[1] if predicate == "has" else arguments[0]))
            owner = arguments[0] if predicate == "has" else arguments[1] if len(arguments) > 1 else None
            return found is not None and found.way == predicate and (owner is None or found.owner == owner)
        return (predicate, _ordered(predicate, arguments)) in self.facts

    def apply(self, kind: Kind, binding: Binding, rng: random.Random, lexicon: Lexicon) -> list[Fact]:
        """Bring an event about. Returns the facts that it made true."""
        here = self.at[_person(binding["A"])]
        made: list[Fact] = []
        for atom in kind.then:
            fact = self.bring_about(atom, binding, here, lexicon)
            if atom.holds and fact is not None:
                made.append(fact)
        return [fact for fact in made if self.holds(fact)]

    def bring_about(self, atom: Atom, binding: Binding, here: Place, lexicon: Lexicon) -> Fact | None:
        """Make one effect of an event at a place true; the fact that it is about, None for weather and time."""
        if atom.predicate == "weather":
            self.weather = atom.arguments[0]
            return None
        if atom.predicate == "time":
            self.time = atom.arguments[0]
            return None
        arguments = tuple(binding[letter] for letter in atom.arguments)
        if atom.predicate == "at":
            if atom.holds:
                self.at[_person(arguments[0])] = _place(arguments[1])
            return "at", arguments
        if atom.predicate in _THING_STATES:
            return self._move(atom, arguments, here, lexicon)
        arguments = _ordered(atom.predicate, arguments)
        if atom.holds:
            self.facts.add((atom.predicate, arguments))
            self.facts.discard((_OPPOSITE.get(atom.predicate, ""), arguments))
        else:
            self.facts.discard((atom.predicate, arguments))
        return atom.predicate, arguments

    def _move(self, atom: Atom, arguments: tuple[Entity, ...], here: Place, lexicon: Lexicon) -> Fact | None:
        if not atom.holds:
            return None  # the event says elsewhere where the thing is instead
        if atom.predicate == "has":
            holder, thing = _person(arguments[0]), _thing(arguments[1])
            self.things[thing] = Whereabouts("has", holder)
            return "has", (holder, thing)
        thing = _thing(arguments[0])
        place = _place(arguments[1]) if len(arguments) > 1 else here
        if atom.predicate == "gone":
            self.things[thing] = Whereabouts("gone", None)
            return "gone", (thing,)
        if atom.predicate == "hidden":
            self.spots[thing] = lexicon.spot()
        way: Way = "hidden" if atom.predicate == "hidden" else "lost" if atom.predicate == "lost" else "lies"
        self.things[thing] = Whereabouts(way, place)
        return way, (thing, place)

    def bindings(self, kind: Kind, actor: Person, rng: random.Random, lexicon: Lexicon) -> Iterator[Binding]:
        """Ways for `actor` to be A in an event of this kind now, in random order."""
        yield from self._bind(kind, {"A": actor}, list(kind.when), rng, lexicon)

    def _bind(self, kind: Kind, binding: Binding, atoms: list[Atom], rng: random.Random, lexicon: Lexicon) -> Iterator[Binding]:
        # What can be decided is decided; then the most telling open condition is tried, then any role that is left.
        open_ = []
        for atom in atoms:
            if atom.predicate in ("weather", "time") or all(letter in binding for letter in atom.arguments):
                if not self._true(atom, binding):
                    return
            else:
                open_.append(atom)
        asked = next((atom for atom in open_ if atom.holds and atom.predicate != "apart"), None)
        if asked is not None:
            rest = [atom for atom in open_ if atom is not asked]
            choices = self._choices(asked, binding)
            rng.shuffle(choices)
            for choice in choices:
                extended = self._unify(kind, binding, asked, choice)
                if extended is not None:
                    yield from self._bind(kind, extended, rest, rng, lexicon)
            return
        letter = next((letter for letter in kind.roles if letter not in binding), None)
        if letter is None:
            if self._together(kind, binding):
                yield binding
            return
        for entity in self._candidates(kind, letter, binding, rng, lexicon):
            if self._suits(kind, letter, entity, binding):
                yield from self._bind(kind, {**binding, letter: entity}, open_, rng, lexicon)

    def _true(self, atom: Atom, binding: Binding) -> bool:
        if atom.predicate == "weather":
            return (self.weather == atom.arguments[0]) == atom.holds
        if atom.predicate == "time":
            return (self.time == atom.arguments[0]) == atom.holds
        arguments = tuple(binding[letter] for letter in atom.arguments)
        here = self.at[_person(binding["A"])]
        match atom.predicate:
            case "near":
                found = arguments[1] in self.ways[self.at[_person(arguments[0])]]
            case "apart":
                found = self.at[_person(arguments[0])] != self.at[_person(arguments[1])]
            case "lies" | "hidden" | "lost" if len(arguments) == 1:
                found = self.holds((atom.predicate, (*arguments, here)))
            case _:
                found = self.holds((atom.predicate, arguments))
        return found == atom.holds

    def _choices(self, atom: Atom, binding: Binding) -> list[tuple[Entity, ...]]:
        """Every way in which a condition is true, as entities for its arguments."""
        here = self.at[_person(binding["A"])]
        match atom.predicate:
            case "at":
                return list(self.at.items())
            case "near":
                return [(person, place) for person, spot in self.at.items() for place in self.ways[spot]]
            case "has":
                return [(found.owner, t) for t, found in self.things.items() if found.way == "has" and found.owner]
            case "lies" | "hidden" | "lost" if len(atom.arguments) == 1:
                return [(t,) for t, found in self.things.items() if found.way == atom.predicate and found.owner == here]
            case "lies" | "hidden" | "lost":
                return [(t, found.owner) for t, found in self.things.items() if found.way == atom.predicate and found.owner]
            case "gone":
                return [(t,) for t, found in self.things.items() if found.way == "gone"]
        rows = [arguments for predicate, arguments in self.facts if predicate == atom.predicate]
        if atom.predicate in SYMMETRIC:
            rows += [tuple(reversed(arguments)) for arguments in rows]
        # A set has no order of its own: sort, so that the same seed tells the same story.
        return sorted(rows, key=lambda arguments: [entity.name for entity in arguments])

    def _unify(self, kind: Kind, binding: Binding, atom: Atom, choice: tuple[Entity, ...]) -> Binding | None:
        if len(choice) != len(atom.arguments):
            return None
        extended = dict(binding)
        for letter, entity in zip(atom.arguments, choice, strict=True):
            if letter in extended:
                if extended[letter] != entity:
                    return None
            elif not self._suits(kind, letter, entity, extended):
                return None
            else:
                extended[letter] = entity
        return extended

    def _candidates(self, kind: Kind, letter: str, binding: Binding, rng: random.Random, lexicon: Lexicon) -> list[Entity]:
        base = kind.roles[letter][0]
        here = self.at[_person(binding["A"])]
        apart = any(atom.predicate == "apart" and letter == atom.arguments[1] for atom in kind.when)
        found: list[Entity]
        match base:
            case "person":
                found = [p for p in self.living() if (self.at[p] != here) == apart]
            case "place":
                found = list(self.ways[here])
            case "thing":
                found = list(self.things)
            case "creature":
                return [lexicon.creature()]
            case "title":
                return [lexicon.title()]
            case _:
                return [lexicon.secret()]
        rng.shuffle(found)
        return found

    def _suits(self, kind: Kind, letter: str, entity: Entity, binding: Binding) -> bool:
        base, tag = kind.roles[letter]
        type_ = {"person": Person, "thing": Thing, "place": Place}.get(base, Term)
        if not isinstance(entity, type_) or entity in binding.values():
            return False
        if isinstance(entity, Person) and ("dead", (entity,)) in self.facts:
            return False
        return not tag or tag in getattr(entity, "tags", ())

    def _together(self, kind: Kind, binding: Binding) -> bool:
        apart = {atom.arguments[1] for atom in kind.when if atom.predicate == "apart"}
        here = self.at[_person(binding["A"])]
        return all(
            self.at[entity] == here for letter, entity in binding.items() if isinstance(entity, Person) and letter not in apart
        )


def _ordered(predicate: str, arguments: tuple[Entity, ...]) -> tuple[Entity, ...]:
    return tuple(sorted(arguments, key=lambda entity: entity.name)) if predicate in SYMMETRIC else arguments


def _person(entity: Entity) -> Person:
    assert isinstance(entity, Person)
    return entity


def _place(entity: Entity) -> Place:
    assert isinstance(entity, Place)
    return entity


def _thing(entity: Entity) -> Thing:
    assert isinstance(entity, Thing)
    return entity
