"""A story as the teacher would write it: RecurrentGPT steps with exact memories, plans and reasons."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from recurrent_writer.bookkeeping import MAX_DROPS, Add, Bookkeeping, Drop
from recurrent_writer.embedding import DIMENSION, Rarity, embed
from recurrent_writer.prompt import OPENING_PLAN
from recurrent_writer.sentences import windows
from recurrent_writer.writer import RECALLED_ITEMS, RECENT_PARAGRAPHS
from training.world import reasons
from training.world.forms import Narrator, render
from training.world.history import Event, History
from training.world.kinds import Kind, read_kinds
from training.world.lexicon import Entity, Person, Split, Term, Thing
from training.world.state import Binding, Fact, Whereabouts
from training.world.teller import Style, Teller, draw_style

# The teacher's short memory: fuller than this it lets the oldest sentence go that nothing hangs on.
TEACHER_SENTENCES = 12


@dataclass(frozen=True)
class Remembered:
    """A sentence of the short memory: what it says, and the facts that keep it true."""

    sentence: str
    why: str
    facts: tuple[Fact, ...]
    step: int
    spot: str = ""
    """The hiding spot that the sentence names."""


@dataclass(frozen=True)
class TaughtStep:
    """One step of the recurrence, with everything that the model reads and is to write."""

    premise: str
    style: str
    recent: tuple[str, ...]
    recalled: tuple[str, ...]
    memory: tuple[str, ...]
    plan: str
    paragraph: str
    bookkeeping: Bookkeeping
    event: Event | None
    """What the plan is about; None for the first step."""
    required: tuple[tuple[str, Entity], ...] = ()
    """Facts that the paragraph states and that only what the model reads can tell it: (attribute, entity)."""


class _Items:
    """The teacher's long memory: texts, the steps they are of, and their vectors in one growing matrix."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.steps: list[int] = []
        self._vectors = np.zeros((64, DIMENSION), np.float32)
        self._rarity = Rarity()

    def append(self, step: int, text: str) -> None:
        if len(self.texts) == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
        self._vectors[len(self.texts)] = embed(text)
        self._rarity.add(text)
        self.texts.append(text)
        self.steps.append(step)

    def nearest(self, query: str, before_step: int, known: Collection[str], count: int) -> list[str]:
        """The texts nearest to the query, best first, each once."""
        older = bisect_left(self.steps, before_step)
        found: dict[str, None] = {}
        for index in np.argsort(-(self._vectors[:older] @ embed(query, self._rarity)), kind="stable"):
            if len(found) == count:
                break
            if self.texts[index] not in known:
                found[self.texts[index]] = None
        return list(found)


class Course:
    """Steps of one story, for ever. `habit` is the teller's, `invented` the share of made-up words."""

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        style: Style | None = None,
        free_share: float = 0.15,
        habit: float = 0.0,
        invented: float = 0.35,
    ) -> None:
        self.history = History(seed, split, invented)
        self.rng = self.history.rng
        self.style = style or draw_style(self.rng, self.history.protagonist)
        self.style_words = self.style.words(self.rng)
        self.teller = Teller(self.history, self.style, habit)
        self.free_share = free_share
        self.premise = ""
        self.memory: list[Remembered] = []
        self.paragraphs: list[str] = []
        self.spared: Entity | None = None
        """Somebody or something that no event is to touch."""
        self.searched: tuple[str, ...] = ()
        """What the search alone found for the latest step."""
        self._items = _Items()
        self._plans: list[tuple[str, Event]] = []
        self._told: dict[tuple[str, Entity], str] = {}
        self._known: set[Entity] = set()

    def __iter__(self) -> Iterator[TaughtStep]:
        while True:
            yield self.step()

    def step(self, forced: Event | None = None) -> TaughtStep:
        """The next step; of one of the plans that the last one gave, or of an event that has to happen."""
        if not self.paragraphs:
            return self._begin()
        plan, event = self.rng.choice(self._plans) if forced is None else (self.teller.plan(forced), forced)
        if forced is None and self.rng.random() < self.free_share:
            plan, event = self._free_plan(plan, event)
        return self._go_on(plan, event)

    def told(self, attribute: str, entity: Entity) -> str | None:
        """The sentence that told a fact; None if nobody was told it yet."""
        return self._told.get((attribute, entity))

    def _begin(self) -> TaughtStep:
        """The premise and the first paragraph, from a written situation."""
        history, rng = self.history, self.rng
        situation = rng.choice(_situations())
        binding = _cast(situation, history)
        here = history.state.at[history.protagonist]
        made = history.state.apply(situation, binding, rng, history.lexicon)
        event = Event(situation, binding, here, tuple(made))
        scene = history.scene(binding, here, Narrator())
        self.premise = render(rng.choice(situation.forms["premise"]), scene).text
        forms = situation.forms[self.style.register]
        told = render(self.teller.pick(forms), history.scene(binding, here, self.style.narrator))
        sentences = [render(form, scene).text for form in rng.sample(situation.forms["fact"], rng.choice((1, 2, 2, 3)))]
        by_fact = {id(sentence): tuple(made) for sentence in sentences[:1]}
        self._known |= set(binding.values()) | {here}
        added = [
            Remembered(sentence, reasons.to_add(rng, (), binding), by_fact.get(id(sentence), ()), 1)
            for sentence in dict.fromkeys(sentences)
        ]
        described = {("trade", history.protagonist), ("trait", history.protagonist)}
        self._told |= {use: self.premise for use in told.uses | described if _said(use, self.premise)}
        added += self._describe(told.uses, room=3 - len(added))
        return self._finish(OPENING_PLAN, told.text, event, added, recalled=(), required=())

    def _go_on(self, plan: str, event: Event) -> TaughtStep:
        history = self.history
        event = history.happen(event)
        told = self.teller.tell(event, plan)
        for _ in range(3):  # a telling that takes too many facts for granted is told again
            required = tuple(use for use in sorted(told.uses, key=str) if use in self._told)
            if len(required) <= 2:
                break
            told = self.teller.tell(event, plan)
        recalled = self._recall(plan, required)
        added = self._remember(event, told.fact, told.uses)
        return self._finish(plan, told.paragraph, event, added, recalled, required)

    def _free_plan(self, plan: str, event: Event) -> tuple[str, Event]:
        """What a person would type instead of taking a plan: a command of the world's events, or anything else."""
        protagonist = self.history.protagonist
        if self.rng.random() < 0.5:
            own = [e for e in self.history.candidates(4) if e.binding["A"] == protagonist]
            if own:
                return self.teller.command(own[0]), own[0]
        actions = list(_actions())
        self.rng.shuffle(actions)
        for kind in actions[:25]:
            binding = next(self.history.state.bindings(kind, protagonist, self.rng, self.history.lexicon), None)
            if binding is not None:
                found = Event(kind, binding, self.history.state.at[protagonist])
                return self.teller.command(found), found
        return plan, event

    def _remember(self, event: Event, fact: str, uses: frozenset[tuple[str, Entity]]) -> list[Remembered]:
        """The sentences that a step adds: what happened, and who somebody is whom it described for the first time."""
        step, rng = len(self.paragraphs) + 1, self.rng
        added: list[Remembered] = []
        passing = event.kind.theme == "actions" and rng.random() < 0.5
        if not passing:
            why = reasons.to_add(rng, event.made, event.binding)
            hidden = (arguments[0] for predicate, arguments in event.made if predicate == "hidden")
            spots = [self.history.state.spots[thing] for thing in hidden if isinstance(thing, Thing)]
            added.append(Remembered(fact, why, event.made, step, "".join(spots[:1])))
        added += self._describe(uses, room=3 - len(added))
        for use in uses:
            if not isinstance(use[1], Person):
                self._told.setdefault(use, fact)
        for made in event.made:
            if made[0] == "hidden":
                self._told["spot", made[1][0]] = fact
        for entity in event.binding.values():
            if isinstance(entity, Term) and entity.kind == "secret" and entity.name in fact:
                self._told["secret", entity] = fact
        self._known |= set(event.binding.values()) | {event.here}
        return added

    def _describe(self, uses: frozenset[tuple[str, Entity]], room: int) -> list[Remembered]:
        """Sentences that say who somebody is, where a paragraph told it for the first time."""
        added: list[Remembered] = []
        for attribute, entity in sorted(uses, key=str):
            if isinstance(entity, Person) and (attribute, entity) not in self._told and len(added) < room:
                sentence = reasons.description(self.rng, entity, attribute)
                why = reasons.to_describe(self.rng, entity)
                added.append(Remembered(sentence, why, (), len(self.paragraphs) + 1))
                self._told[attribute, entity] = sentence
        return added

    def _finish(
        self,
        plan: str,
        paragraph: str,
        event: Event,
        added: list[Remembered],
        recalled: tuple[str, ...],
        required: tuple[tuple[str, Entity], ...],
    ) -> TaughtStep:
        texts = {remembered.sentence for remembered in self.memory}
        added = [remembered for remembered in added if remembered.sentence not in texts]
        before = tuple(remembered.sentence for remembered in self.memory)
        recent = tuple(self.paragraphs[-RECENT_PARAGRAPHS:])
        drop = self._let_go(added, event)
        self.paragraphs.append(paragraph)
        number = len(self.paragraphs)
        for text in (*(remembered.sentence for remembered in added), *windows(paragraph)):
            self._items.append(number, text)
        self._plans = self._next_plans()
        bookkeeping = Bookkeeping(
            drop, tuple(Add(item.sentence, item.why) for item in added), tuple(text for text, _ in self._plans)
        )
        return TaughtStep(
            self.premise, self.style_words, recent, recalled, before, plan, paragraph, bookkeeping,
            None if plan == OPENING_PLAN else event, required,
        )  # fmt: skip

    def _let_go(self, added: list[Remembered], event: Event) -> tuple[Drop, ...]:
        """Drop what is no longer true, then, while the memory is too full, the oldest that nothing hangs on."""
        state, rng = self.history.state, self.rng
        gone: dict[int, str] = {}
        for index, item in enumerate(self.memory):
            untrue = [fact for fact in item.facts if not state.holds(fact)]
            if untrue and len(gone) < MAX_DROPS:
                gone[index] = reasons.to_drop(rng, untrue[0], state)
        waiting = sorted(
            (index for index in range(len(self.memory)) if index not in gone),
            key=lambda index: (bool(self.memory[index].facts), index),
        )
        while len(self.memory) - len(gone) + len(added) > TEACHER_SENTENCES and waiting and len(gone) < MAX_DROPS:
            gone[waiting.pop(0)] = reasons.to_forget(rng)
        self.memory = [item for index, item in enumerate(self.memory) if index not in gone] + added
        return tuple(Drop(index + 1, gone[index]) for index in sorted(gone))

    def _next_plans(self) -> list[tuple[str, Event]]:
        """Three different plans for what can happen next, mostly about whom and what the story knows."""
        found = [event for event in self.history.candidates(6) if self.spared not in event.binding.values()]
        found = found or self.history.candidates(1)
        found.sort(key=lambda event: len(set(event.binding.values()) - self._known) + 2 * self.rng.random())
        plans: dict[str, Event] = {}
        for event in found:
            if len(plans) < 3:
                plans.setdefault(self.teller.plan(event), event)
        while len(plans) < 3:  # a world in which little can happen: the same event in other words
            event = self.rng.choice(found)
            plans.setdefault(self.teller.plan(event), event)
        chosen = list(plans.items())
        self.rng.shuffle(chosen)
        return chosen

    def _recall(self, plan: str, required: Sequence[tuple[str, Entity]]) -> tuple[str, ...]:
        """What the long memory gives for the plan, as the program recalls it, and whatever the paragraph cannot do without."""
        known = {item.sentence for item in self.memory}
        first_recent = len(self.paragraphs) - RECENT_PARAGRAPHS + 1
        texts = self._items.nearest(plan, first_recent, known, RECALLED_ITEMS)
        self.searched = tuple(texts)
        there = [self.premise, *known, *self.paragraphs[-RECENT_PARAGRAPHS:]]
        added: list[str] = []
        while missing := self._missing(required, " ".join([*there, *texts, *added])):
            added.append(missing)
            texts = texts[: RECALLED_ITEMS - len(added)]  # what is left out may be what told another fact
        return (*texts, *added)

    def _missing(self, required: Sequence[tuple[str, Entity]], read: str) -> str | None:
        """The sentence that told the first of these facts which is not in a text."""
        sources = (self._told[key] for key in required if not _said(key, read))
        return next((source for source in sources if source not in read), None)


def _said(use: tuple[str, Entity], text: str) -> bool:
    """True if the text itself tells the fact."""
    attribute, entity = use
    if isinstance(entity, Person):
        return any(entity.name in sentence and str(getattr(entity, attribute)) in sentence for sentence in windows(text))
    return attribute == "secret" and entity.name in text


def _cast(situation: Kind, history: History) -> Binding:
    """Fill a situation's roles from the world, which gets what it lacks."""
    state, lexicon, rng = history.state, history.lexicon, history.rng
    binding: Binding = {"A": history.protagonist}
    here = state.at[history.protagonist]
    for letter, (base, tag) in situation.roles.items():
        if letter in binding:
            continue
        entity: Entity
        match base:
            case "person":
                entity = (
                    next(p for p in state.people if p not in binding.values())
                    if len(state.people) > len(binding)
                    else lexicon.person()
                )
                if entity not in state.people:
                    state.people.append(entity)
                state.at[entity] = here
            case "thing":
                fitting = [t for t in state.things if t not in binding.values() and (not tag or tag in t.tags)]
                entity = rng.choice(fitting) if fitting else lexicon.thing(tag)
                state.things.setdefault(entity, Whereabouts("lies", here))
            case "place":
                others = [p for p in state.places if p != here and p not in binding.values() and (not tag or tag in p.tags)]
                entity = rng.choice(others) if others else lexicon.place(tag)
                if entity not in state.places:
                    state.places.append(entity)
                    state.ways[entity] = [here]
                    state.ways[here].append(entity)
            case "creature":
                entity = lexicon.creature()
            case "title":
                entity = lexicon.title()
            case _:
                entity = lexicon.secret()
        binding[letter] = entity
    return binding


@cache
def _situations() -> tuple[Kind, ...]:
    return tuple(read_kinds(files("training.world").joinpath("situations.toml").read_text("utf-8"), "situations"))


@cache
def _actions() -> tuple[Kind, ...]:
    return tuple(read_kinds(files("training.world").joinpath("actions.toml").read_text("utf-8"), "actions"))
