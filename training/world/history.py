"""A world and what happens in it: a cast, places, things, and events one after the other, each with its causes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from training.world.forms import Narrator, Scene
from training.world.kinds import BUILT_IN, TIMES, WEATHERS, Kind, all_kinds
from training.world.lexicon import Lexicon, Person, Place, Split
from training.world.state import Binding, Fact, State, Whereabouts

# How many latest kinds are not to happen again, and how much likelier a kind is that some earlier event made possible.
_FRESH = 24
_CONSEQUENCE = 10.0
_PROTAGONIST_SHARE = 0.8
_NEWCOMER_SHARE = 0.04
_MOST_PEOPLE, _MOST_THINGS = 7, 12
_BACKSTORY = 2


@dataclass(frozen=True)
class Event:
    """Something that happens: a kind, who and what fill its roles, and where."""

    kind: Kind
    binding: Binding = field(hash=False)
    here: Place
    made: tuple[Fact, ...] = ()
    """What it made true (empty while it is only planned)."""
    newcomer: Person | None = None
    """Somebody whom the story has not met before."""


class History:
    """One world, told from a seed. `state` is what is true after the events that have happened."""

    def __init__(self, seed: int, split: Split = "train", invented: float = 0.35) -> None:
        self.rng = random.Random(seed)
        self.lexicon = Lexicon(self.rng, split, invented)
        self.state = _new_state(self.rng, self.lexicon)
        self.protagonist = self.state.people[0]
        for name in self.rng.sample(sorted(all_kinds()), _BACKSTORY):
            self._prepare(all_kinds()[name])
        self._latest: deque[str] = deque(maxlen=_FRESH)
        self._met: set[Person] = set()

    def candidates(self, count: int) -> list[Event]:
        """Up to `count` different events that can happen next, the likeliest first."""
        found: list[Event] = []
        weights = _weights(self.state, self._latest)
        names = list(weights)
        for _ in range(40 * count):
            if len(found) == count:
                break
            kind = all_kinds()[self.rng.choices(names, [weights[name] for name in names])[0]]
            if any(event.kind is kind for event in found):
                continue
            for actor in self._actors():
                binding = next(self.state.bindings(kind, actor, self.rng, self.lexicon), None)
                if binding is not None and not self._kills_protagonist(kind, binding):
                    found.append(Event(kind, binding, self.state.at[actor]))
                    break
        return found

    def happen(self, event: Event) -> Event:
        """Bring an event about; returns it with what it made true."""
        made = self.state.apply(event.kind, event.binding, self.rng, self.lexicon)
        self._latest.append(event.kind.name)
        people = [entity for entity in event.binding.values() if isinstance(entity, Person)]
        newcomer = next((person for person in people if person not in self._met), None)
        self._met.update(people)
        self._drift()
        return Event(event.kind, event.binding, event.here, tuple(made), newcomer)

    def __iter__(self) -> Iterator[Event]:
        """Events for ever."""
        while True:
            yield self.happen(self.candidates(1)[0])

    def scene(self, binding: Binding, here: Place, narrator: Narrator) -> Scene:
        """What forms about this place and moment are filled from. `any` draws its word once for a scene."""
        drawn: dict[str, str] = {}

        def any_(kind: str) -> str:
            return drawn.setdefault(kind, self.lexicon.draw("any", kind))

        return Scene(
            binding,
            narrator,
            here,
            weather=self.lexicon.draw("weather", self.state.weather),
            time=self.lexicon.draw("time", self.state.time),
            season=self.state.season,
            spot=lambda thing: self.state.spots.get(thing, "out of sight"),
            any=any_,
        )

    def _prepare(self, kind: Kind) -> None:
        """Make true, as something that happened before the story, what an event of this kind asks for: so rare ones happen too."""
        state, rng = self.state, self.rng
        here = state.at[self.protagonist]
        elsewhere = rng.choice(state.ways[here])
        people = rng.sample(state.people, len(state.people))
        binding: Binding = {}
        for letter, (base, tag) in kind.roles.items():
            match base:
                case "person" if people:
                    binding[letter] = people.pop()
                case "thing":
                    thing = self.lexicon.thing(tag)
                    state.things[thing] = Whereabouts("lies", here)
                    binding[letter] = thing
                case "place" if not tag or tag in elsewhere.tags:
                    binding[letter] = elsewhere
                case "creature":
                    binding[letter] = self.lexicon.creature()
                case "title":
                    binding[letter] = self.lexicon.title()
                case "secret":
                    binding[letter] = self.lexicon.secret()
                case _:
                    return
        for entity in binding.values():
            if isinstance(entity, Person):
                state.at[entity] = here
        for atom in kind.when:
            if atom.predicate not in ("near", "at", "apart"):
                state.bring_about(atom, binding, here, self.lexicon)

    def _kills_protagonist(self, kind: Kind, binding: Binding) -> bool:
        return any(atom.predicate == "dead" and binding[atom.arguments[0]] == self.protagonist for atom in kind.then)

    def _actors(self) -> list[Person]:
        """Who may be A, in the order to try: mostly the protagonist, else those who are with them, then anybody."""
        living = self.state.living()
        here = self.state.at[self.protagonist]
        others = [person for person in living if person != self.protagonist]
        self.rng.shuffle(others)
        others.sort(key=lambda person: self.state.at[person] != here)
        first = self.rng.random() < _PROTAGONIST_SHARE
        return [self.protagonist, *others] if first else [*others, self.protagonist]

    def _drift(self) -> None:
        """Time and weather go on, newcomers turn up, and the others come to where the story is."""
        state, rng = self.state, self.rng
        if rng.random() < 0.35:
            state.time = TIMES[(TIMES.index(state.time) + 1) % len(TIMES)]
            if state.time == "morning" and rng.random() < 0.6:
                state.weather = rng.choice(WEATHERS)
        living = state.living()
        if len(living) < 3 or (len(living) < _MOST_PEOPLE and rng.random() < _NEWCOMER_SHARE):
            person = self.lexicon.person()
            state.people.append(person)
            state.at[person] = state.at[self.protagonist]
            _equip(state, person, rng, self.lexicon)
        living = state.living()
        # The others do not stray for ever: now and then one comes to where the story is.
        here = state.at[self.protagonist]
        away = [person for person in living if state.at[person] != here]
        if away and rng.random() < (0.6 if len(away) == len(living) - 1 else 0.12):
            state.at[rng.choice(away)] = here
        # What was begun between people brings them together: so arcs close.
        open_arcs = sorted((fact for fact in state.facts if fact[0] not in BUILT_IN), key=str)
        if open_arcs and rng.random() < 0.4:
            for entity in rng.choice(open_arcs)[1]:
                if isinstance(entity, Person) and entity in living:
                    state.at[entity] = here
        if sum(found.way != "gone" for found in state.things.values()) < _MOST_THINGS // 2:
            state.things[self.lexicon.thing()] = Whereabouts("lies", here)


def _new_state(rng: random.Random, lexicon: Lexicon) -> State:
    state = State(weather=rng.choice(WEATHERS), time=rng.choice(TIMES), season=lexicon.draw("season", "seasons"))
    state.places = [lexicon.place() for _ in range(rng.randint(4, 7))]
    state.ways = {place: [] for place in state.places}
    for index, place in enumerate(state.places[1:], 1):
        _join(state, place, rng.choice(state.places[:index]))
    for _ in range(2):
        first, second = rng.sample(state.places, 2)
        _join(state, first, second)
    for _ in range(rng.randint(3, 5)):
        person = lexicon.person()
        state.people.append(person)
        state.at[person] = state.places[0] if rng.random() < 0.7 else rng.choice(state.places)
        _equip(state, person, rng, lexicon)
    state.at[state.people[0]] = state.places[0]
    for _ in range(rng.randint(2, 4)):
        state.things[lexicon.thing()] = Whereabouts(rng.choice(("lies", "lies", "lost")), rng.choice(state.places))
    for _ in range(rng.randint(1, 3)):
        pair = sorted(rng.sample(state.people, 2), key=lambda person: person.name)
        state.facts.add((rng.choice(("friend", "friend", "foe", "kin")), tuple(pair)))
    things = list(state.things)
    for person in state.people:
        if rng.random() < 0.4:
            state.facts.add(("wants", (person, rng.choice(things))))
    return state


def _join(state: State, first: Place, second: Place) -> None:
    if second not in state.ways[first]:
        state.ways[first].append(second)
        state.ways[second].append(first)


def _equip(state: State, person: Person, rng: random.Random, lexicon: Lexicon) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        thing = lexicon.thing()
        state.things[thing] = Whereabouts("has", person)
        state.facts.add(("owns", (person, thing)))
    if rng.random() < 0.5:
        state.facts.add(("knows", (person, lexicon.secret())))


def _weights(state: State, latest: Sequence[str]) -> dict[str, float]:
    """How likely each kind is to be tried now."""
    there = {predicate for predicate, _ in state.facts}
    weights: dict[str, float] = {}
    for name, (asked, _) in _asked().items():
        if name in latest or not asked <= there:
            continue
        weights[name] = _CONSEQUENCE ** len(asked)
    return weights


@cache
def _asked() -> dict[str, tuple[frozenset[str], Kind]]:
    """For each kind, the predicates of its authors' own that it asks for."""
    return {
        name: (frozenset(atom.predicate for atom in kind.when if atom.holds and atom.predicate not in BUILT_IN), kind)
        for name, kind in all_kinds().items()
    }
