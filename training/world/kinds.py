"""Kinds of events: what they need, what they change, and the written forms that tell, plan, remember and ask for them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from training.world.forms import Form, FormError, Narrator, Scene, parse, render
from training.world.inflect import UnknownVerb
from training.world.lexicon import Entity, Person, Place, Term, Thing

REGISTERS = ("plain", "adventure", "quiet", "voices")
# The sections of a table and how many forms each has at least: events; what players try that changes little; beginnings.
LEAST = {
    "events": {"plan": 4, "fact": 3, "act": 3, **dict.fromkeys(REGISTERS, 5)},
    "actions": {"act": 6, "fact": 2, "plain": 3, "adventure": 2, "quiet": 2},
    "situations": {"premise": 10, "fact": 4, "plain": 6, "adventure": 6, "quiet": 6},
}

# What the state itself understands; any other predicate is the authors' own ("stolen T A").
BUILT_IN = {
    "at": "AP", "near": "AP", "apart": "AB", "has": "AT", "lies": "T", "hidden": "T", "lost": "T", "gone": "T",
    "owns": "AT", "wants": "AT", "knows": "AS", "friend": "AB", "foe": "AB", "kin": "AB",
    "ill": "A", "hurt": "A", "dead": "A", "broken": "T", "weather": "*", "time": "*",
}  # fmt: skip
SYMMETRIC = frozenset({"friend", "foe", "kin", "married", "betrothed", "feud", "rival", "partners"})
WEATHERS = ("clear", "rain", "storm", "fog", "snow", "wind", "frost", "heat")
TIMES = ("morning", "noon", "evening", "night")
_ROLE_TYPES = {"person": "ABCD", "thing": "TUV", "place": "PQR", "secret": "S", "creature": "W", "title": "W"}


class KindError(ValueError):
    """An event kind that is not well made; the message names the kind and what to mend."""


@dataclass(frozen=True)
class Atom:
    """One condition or effect: "not has A T" -> predicate "has", arguments ("A", "T"), holds False."""

    predicate: str
    arguments: tuple[str, ...]
    holds: bool = True

    @staticmethod
    def read(text: str) -> Atom:
        words = text.split()
        holds = words[0] != "not"
        predicate, *arguments = words if holds else words[1:]
        return Atom(predicate, tuple(arguments), holds)

    def __str__(self) -> str:
        return " ".join(("" if self.holds else "not ", self.predicate, *self.arguments)).strip()


@dataclass(frozen=True)
class Kind:
    """An event kind. `roles` maps a letter to (type, tag or ""); `forms` has the lists plan, fact, act and the registers."""

    name: str
    theme: str
    """The file it stands in; "actions" and "situations" have sections of their own."""
    roles: dict[str, tuple[str, str]]
    when: tuple[Atom, ...]
    then: tuple[Atom, ...]
    cue: tuple[str, ...]
    forms: dict[str, tuple[Form, ...]]

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def prose(self) -> tuple[str, ...]:
        """The registers that it has forms for."""
        return tuple(register for register in REGISTERS if register in self.forms)

    def cued(self, text: str) -> bool:
        """True if the text has a word that begins as one of the kind's cues does."""
        return any(re.search(rf"\b{re.escape(cue)}", text, re.IGNORECASE) for cue in self.cue)


def read_kinds(text: str, theme: str) -> list[Kind]:
    """The kinds in one TOML document. Raises `KindError` with every fault found, one a line."""
    faults: list[str] = []
    kinds: list[Kind] = []
    for name, table in tomllib.loads(text).items():
        try:
            kind = _kind(name, theme, table)
        except (KindError, FormError, UnknownVerb, KeyError) as fault:
            faults.append(f"[{name}] {fault}")
            continue
        kinds.append(kind)
        faults += [f"[{name}] {fault}" for fault in _faults(kind)]
    if faults:
        raise KindError("\n".join(faults))
    return kinds


def _kind(name: str, theme: str, table: dict[str, Any]) -> Kind:
    roles = {}
    for letter, type_ in table["roles"].items():
        base, _, tag = type_.partition(":")
        if letter not in _ROLE_TYPES.get(base, ""):
            raise KindError(
                f"role {letter} = '{type_}': persons are A-D, things T-V, places P-R, a secret S, a creature or title W"
            )
        roles[letter] = (base, tag)
    forms = {}
    for section in _least(theme):
        forms[section] = tuple(parse(line.strip()) for line in table[section].splitlines() if line.strip())
    atoms = {key: tuple(Atom.read(line) for line in table.get(key, ())) for key in ("when", "then")}
    return Kind(name, theme, roles, atoms["when"], atoms["then"], tuple(table.get("cue", ())), forms)


def _least(theme: str) -> dict[str, int]:
    return LEAST.get(theme, LEAST["events"])


def _faults(kind: Kind) -> Iterable[str]:
    roles = set(kind.roles)
    if "A" not in roles:
        yield "role A, the one who acts or suffers, is missing"
    for atom in (*kind.when, *kind.then):
        shape = BUILT_IN.get(atom.predicate)
        if shape == "*":
            if atom.arguments[0] not in (WEATHERS if atom.predicate == "weather" else TIMES):
                yield f"'{atom}': unknown word"
            continue
        for argument in atom.arguments:
            if argument not in roles:
                yield f"'{atom}': {argument} is no role of this kind"
        if shape is not None and not len(shape) <= len(atom.arguments) <= len(shape) + (shape == "T"):
            yield f"'{atom}': takes {len(shape)} roles"
        if atom in kind.then and atom.predicate in ("near", "apart"):
            yield f"'{atom}': can be asked for, not brought about"
    located = {a.arguments[0] for a in kind.when if a.holds and a.predicate in ("lies", "hidden", "lost", "gone")}
    located |= {argument for a in kind.when if a.holds for argument in a.arguments}
    if kind.theme == "situations":
        located = {argument for atom in kind.then for argument in atom.arguments} | {"P", "Q", "R"}
    for letter, (base, _) in kind.roles.items():
        if base in ("thing", "place", "secret") and letter not in located:
            yield f"role {letter}: no condition in 'when' says where it comes from (for instance 'has A {letter}')"
    for section, least in _least(kind.theme).items():
        forms = kind.forms[section]
        if len(forms) < least:
            yield f"{section}: {len(forms)} forms, at least {least} wanted"
        if len({form.source for form in forms}) < len(forms):
            yield f"{section}: a form stands there twice"
        needed = roles - {"S"} if section in ("plan", "act", "premise") else set(roles)
        needed -= {letter for letter in roles if section in REGISTERS and kind.roles[letter][0] == "place"}
        if section == "fact" and kind.theme == "situations":
            needed = set()
        if section == "act":
            needed = needed - {"A"} - {letter for letter in roles if kind.roles[letter][0] == "place"}
        for form in forms:
            if missing := needed - form.roles:
                yield f"{section}: role {', '.join(sorted(missing))} is not mentioned: {form.source}"
            if unknown := form.roles - roles:
                yield f"{section}: {', '.join(sorted(unknown))} is no role of this kind: {form.source}"
            if section == "plan" and any(not isinstance(p, str) and getattr(p, "attribute", "") == "spot" for p in form.parts):
                yield f"plan: a plan does not give the hiding spot away: {form.source}"
            words = len(form.source.split())
            most = 95 if kind.theme == "situations" else 75
            if section in REGISTERS and not 9 <= words <= most:
                yield f"{section}: {words} words, 12 to {most - 15} wanted: {form.source}"
            if section in REGISTERS and not form.roles - unknown - roles:
                for narrator in _NARRATORS:
                    told = sample(form, kind, narrator)
                    if kind.theme != "situations" and not kind.cued(told):
                        yield f"{section}: no word of 'cue' in: {told}"
                        break


_PEOPLE = (
    Person("Ada", "she", "miller", "stubborn"), Person("Bram", "he", "ferryman", "patient"),
    Person("Cora", "she", "baker", "merry"), Person("Dunstan", "he", "smith", "wary"),
)  # fmt: skip
_SAMPLE: dict[str, Entity] = {
    **dict(zip("ABCD", _PEOPLE, strict=True)),
    "T": Thing("brass", "key"), "U": Thing("blue", "lantern"), "V": Thing("oak", "chest"),
    "P": Place("the old mill", "in"), "Q": Place("Harrow Ford", "at"), "R": Place("the salt marsh", "in"),
    "S": Term("secret", "the old well has run dry"),
}  # fmt: skip
_NARRATORS = (Narrator(3, "past"), Narrator(2, "present", _PEOPLE[0]), Narrator(1, "past", _PEOPLE[0]))


def sample(form: Form, kind: Kind | None = None, narrator: Narrator | None = None) -> str:
    """The form as it reads with a sample cast, for authors and checks."""
    binding = dict(_SAMPLE)
    title = kind is not None and kind.roles.get("W", ("", ""))[0] == "title"
    binding["W"] = Term("title", "The Drowned Bell") if title else Term("creature", "grey wolf")
    here = Place("the north quay", "on")
    return render(form, Scene(binding, narrator or Narrator(), here, spot=lambda thing: "under the loose floorboard")).text


def _event_files() -> list[Traversable]:
    folder = files("training.world").joinpath("events")
    return sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)


@cache
def all_kinds() -> dict[str, Kind]:
    """Every event kind of the world by name."""
    kinds: dict[str, Kind] = {}
    for file in _event_files():
        for kind in read_kinds(file.read_text("utf-8"), file.name.removesuffix(".toml")):
            if kind.name in kinds:
                raise KindError(f"[{kind.name}] stands in both {kinds[kind.name].theme} and {kind.theme}")
            kinds[kind.name] = kind
    return kinds
