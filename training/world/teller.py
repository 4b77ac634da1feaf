"""Tells events as prose: one paragraph each, in one narrator's voice, from written forms; knows which facts it used."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from training.world.forms import Form, Narrator, Rendered, render
from training.world.history import Event, History
from training.world.kinds import Kind
from training.world.lexicon import Entity, Person
from training.world.scene_forms import SceneForms, all_scenes

Register = Literal["plain", "adventure", "quiet"]
REGISTERS: tuple[Register, ...] = ("plain", "adventure", "quiet")

_REGISTER_WORDS = {
    "plain": ("plain tale", "plain tale", "simple tale", "told plainly"),
    "adventure": ("adventure", "swift adventure", "adventure tale"),
    "quiet": ("quiet and lyrical", "lyrical tale", "slow and lyrical"),
}
_PERSON_WORDS = {1: "first person", 2: "second person", 3: "third person"}
_MOST_WORDS = 105


@dataclass(frozen=True)
class Style:
    """How a story is told."""

    register: Register
    narrator: Narrator

    def words(self, rng: random.Random) -> str:
        """The style as a person would put it: "plain tale, third person, past tense"."""
        register = rng.choice(_REGISTER_WORDS[self.register])
        return f"{register}, {_PERSON_WORDS[self.narrator.person]}, {self.narrator.tense} tense"


def draw_style(rng: random.Random, protagonist: Person) -> Style:
    """A style; the plain tale, third person and past tense are the commonest, second person is mostly in the present."""
    register = rng.choices(REGISTERS, (0.5, 0.25, 0.25))[0]
    match rng.choices((1, 2, 3), (0.1, 0.22, 0.68))[0]:
        case 1:
            return Style(register, Narrator(1, "past", protagonist))
        case 2:
            return Style(register, Narrator(2, "present" if rng.random() < 0.8 else "past", protagonist))
    return Style(register, Narrator(3, "past" if rng.random() < 0.8 else "present", None))


@dataclass(frozen=True)
class Told:
    """An event in prose, a plan, and a sentence to remember. `uses` are facts that the prose states beside the event."""

    paragraph: str
    uses: frozenset[tuple[str, Entity]]
    fact: str


class Teller:
    """Tells one history in one style. `habit` says how much it prefers the first of its forms for a thing: 0 not at all."""

    def __init__(self, history: History, style: Style, habit: float = 0.0) -> None:
        self.history = history
        self.style = style
        self.habit = habit
        self.rng = history.rng

    def pick(self, forms: Sequence[Form]) -> Form:
        """One of the forms; the n-th is drawn with a weight of n to the power of -habit (Zipf)."""
        return self.rng.choices(forms, [rank**-self.habit for rank in range(1, len(forms) + 1)])[0]

    def plan(self, event: Event) -> str:
        """What is to happen, in the words of a plan."""
        return self._render(self.rng.choice(event.kind.forms["plan"]), event, Narrator()).text

    def command(self, event: Event) -> str:
        """What a player who is A would type."""
        act = self._render(self.rng.choice(event.kind.forms["act"]), event, Narrator()).text
        actor = event.binding["A"]
        assert isinstance(actor, Person)
        bare = act[0].lower() + act[1:] if not act.startswith(("I ", "I'")) else act
        if bare.startswith(("I ", "I'")):
            return self.rng.choice((act, act + "."))
        return self.rng.choice(
            (bare, bare, act, f"> {bare}", f"I {bare}.", f"{bare}.", f"Let {actor.name} {bare}.", f"You {bare}.")
        )

    def tell(self, event: Event, plan: str) -> Told:
        """The event as a paragraph that carries out this plan. To be called when the event has just happened."""
        narrator = self.style.narrator
        core = self._core(event, narrator)
        before, after = self._around(event, narrator, core, plan)
        parts = [rendered for rendered in (*before, core, *after) if rendered is not None]
        uses = frozenset(use for part in parts for use in part.uses)
        return Told(" ".join(part.text for part in parts), uses, self.fact(event))

    def fact(self, event: Event) -> str:
        """What is to be remembered: a form that names the hiding spot or the secret if there is one."""
        forms = event.kind.forms["fact"]
        telling = [form for form in forms if _states(form, "spot") or "S" in form.roles] or forms
        return self._render(self.pick(telling), event, Narrator()).text

    def _core(self, event: Event, narrator: Narrator) -> Rendered:
        kind = event.kind
        register: str = self.style.register
        if "voices" in kind.forms and self.rng.random() < 0.3:
            register = "voices"
        forms = _mentioning_all(kind, register)
        if narrator.person == 1:
            forms = [form for form in forms if "{A} and {" not in form.source] or forms
        return self._render(self.pick(forms), event, narrator)

    def _around(
        self, event: Event, narrator: Narrator, core: Rendered, plan: str
    ) -> tuple[list[Rendered | None], list[Rendered | None]]:
        rng, words = self.rng, len(core.text.split())
        people = [entity for letter, entity in event.binding.items() if isinstance(entity, Person) and letter != "A"]
        here_is_due = event.here.name in plan and event.here.name not in core.text
        before: list[Rendered | None] = []
        after: list[Rendered | None] = []

        def add(part: str, where: list[Rendered | None], chance: float, people: Sequence[Person] = ()) -> None:
            nonlocal words
            if rng.random() < chance and words < _MOST_WORDS - 20:
                rendered = self._scene(part, event, narrator, people)
                if rendered is not None and words + len(rendered.text.split()) <= _MOST_WORDS:
                    where.append(rendered)
                    words += len(rendered.text.split())

        if here_is_due:
            before.append(self._scene("opener", event, narrator, (), with_here=True))
            words += 20
        else:
            add("opener", before, 0.35)
        if event.newcomer is not None and event.newcomer in people:
            add("intro", before, 0.75, (event.newcomer,))
        add("aside", before, 0.1)
        if people:
            add("talk", after, 0.15, people[:1])
        add("aside", after, 0.1)
        add("closer", after, 0.3)
        return before, after

    def _scene(
        self, part: str, event: Event, narrator: Narrator, people: Sequence[Person], *, with_here: bool = False
    ) -> Rendered | None:
        state = self.history.state
        tags = {f"place:{tag}" for tag in event.here.tags} | {f"weather:{state.weather}", f"time:{state.time}"}
        groups = [g for g in _by_part()[part] if g.register in ("", self.style.register) and g.when <= tags]
        if not groups:
            return None
        # The more a group asks for, the better it fits.
        group = self.rng.choices(groups, [(1 + len(g.when)) * len(g.forms) ** 0.5 for g in groups])[0]
        forms: Iterable[Form] = group.forms
        if with_here:
            forms = [f for g in groups for f in g.forms if "{here" in f.source]
        binding: dict[str, Entity] = {"A": event.binding["A"]}
        if people:
            binding["B"] = people[0]
        scene = self.history.scene(binding, event.here, narrator)
        return render(self.pick(list(forms)), scene)

    def _render(self, form: Form, event: Event, narrator: Narrator) -> Rendered:
        return render(form, self.history.scene(event.binding, event.here, narrator))


@cache
def _by_part() -> dict[str, list[SceneForms]]:
    groups: dict[str, list[SceneForms]] = {}
    for group in all_scenes():
        groups.setdefault(group.part, []).append(group)
    return groups


@cache
def _mentioning_all(kind: Kind, register: str) -> list[Form]:
    """The forms that name every role, places too; all forms if none does."""
    roles = frozenset(kind.roles)
    return [form for form in kind.forms[register] if roles <= form.roles] or list(kind.forms[register])


def _states(form: Form, attribute: str) -> bool:
    return any(getattr(part, "attribute", None) == attribute for part in form.parts)
