"""Steps that need a fact from long ago: where a thing was hidden, or what a secret says."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from recurrent_writer.writer import RECALLED_ITEMS
from training.world.course import Course, TaughtStep
from training.world.history import Event
from training.world.kinds import Kind, all_kinds
from training.world.lexicon import Entity, Place, Thing


@dataclass(frozen=True)
class Asked:
    """A step whose paragraph needs a fact; `recalled` says whether the search of the long memory alone gives it."""

    step: TaughtStep
    fact: str
    recalled: bool


def ask(seed: int, distance: int, habit: float = 0.0, invented: float = 0.35) -> Asked:
    """A world in which a thing was hidden, or a secret told, `distance` paragraphs before somebody comes back to it."""
    for attempt in range(1000):
        asked = _try(Course(seed + 2**20 * attempt, free_share=0, habit=habit, invented=invented), distance)
        if asked is not None:
            return asked
    raise AssertionError("no world was found in which something is hidden and fetched")


def _try(course: Course, distance: int) -> Asked | None:
    rng = course.rng
    for _ in range(3):
        course.step()
    attribute = rng.choice(("spot", "secret"))
    telling = _happening(course, rng, _tells_secret if attribute == "secret" else _hides)
    if telling is None:
        return None
    course.step(telling)
    state = course.history.state
    kept = telling.binding["S" if attribute == "secret" else "T"]
    source = course.told(attribute, kept)
    fact = state.spots.get(kept, "") if isinstance(kept, Thing) else kept.name
    if source is None or fact not in source:
        return None
    course.spared = kept
    for _ in range(distance - 1):
        course.step()
    place = state.things[kept].owner if isinstance(kept, Thing) else state.at[course.history.protagonist]
    if not isinstance(place, Place):  # somebody has found it and holds it
        return None
    for person in state.people:  # they have walked to where it can be done
        state.at[person] = place
    using = _happening(course, rng, _uses_secret if attribute == "secret" else _uses_spot, kept)
    if using is None:
        return None
    course.memory = [item for item in course.memory if fact not in item.sentence]
    step = course.step(using)
    if fact not in step.paragraph or fact in step.plan:
        return None
    # The fact is to stand in the memory block alone: once, among what else was recalled.
    others = [text for text in step.recalled if fact not in text]
    block = [*others[: RECALLED_ITEMS - 1], source]
    rng.shuffle(block)
    alone = replace(
        step,
        recalled=tuple(block),
        recent=tuple(paragraph for paragraph in step.recent if fact not in paragraph),
    )
    return Asked(alone, fact, recalled=any(fact in text for text in course.searched))


def _happening(course: Course, rng: random.Random, wanted: Callable[[Kind], bool], about: Entity | None = None) -> Event | None:
    """An event of a wanted kind that can happen now (and is about somebody or something)."""
    history = course.history
    kinds = [kind for kind in all_kinds().values() if wanted(kind)]
    rng.shuffle(kinds)
    for kind in kinds:
        for actor in history.state.living():
            for binding in islice(history.state.bindings(kind, actor, rng, history.lexicon), 20):
                if about is None or about in binding.values():
                    return Event(kind, binding, history.state.at[actor])
    return None


def _hides(kind: Kind) -> bool:
    return any(atom.holds and atom.predicate == "hidden" and atom.arguments == ("T",) for atom in kind.then)


def _uses_spot(kind: Kind) -> bool:
    asked = any(atom.holds and atom.predicate == "hidden" and atom.arguments == ("T",) for atom in kind.when)
    return asked and all("{T.spot}" in form.source for register in kind.prose for form in kind.forms[register])


def _tells_secret(kind: Kind) -> bool:
    return any(atom.holds and atom.predicate == "knows" for atom in kind.then) and _speaks_secret(kind)


def _uses_secret(kind: Kind) -> bool:
    return any(atom.holds and atom.predicate == "knows" for atom in kind.when) and _speaks_secret(kind)


def _speaks_secret(kind: Kind) -> bool:
    return all("{S}" in form.source for register in kind.prose for form in kind.forms[register])
