"""Sentences around an event: how a paragraph opens and closes, asides, talk, and how somebody is first described."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from training.world.forms import Form, FormError, parse
from training.world.inflect import UnknownVerb
from training.world.kinds import REGISTERS, TIMES, WEATHERS

PARTS = {"opener": "A", "closer": "A", "aside": "A", "talk": "AB", "intro": "B"}
PLACE_TAGS = frozenset({"indoor", "outdoor", "water", "high", "wild", "home", "market", "road", "sacred", "dark", "work"})


class SceneError(ValueError):
    """A group of scene forms that is not well made; the message says what to mend."""


@dataclass(frozen=True)
class SceneForms:
    """A group of forms of one part ("opener"), for one register ("" for any) and under tags ("place:water", "weather:fog")."""

    name: str
    part: str
    register: str
    when: frozenset[str]
    forms: tuple[Form, ...]


def read_scenes(text: str) -> list[SceneForms]:
    """The groups in one TOML document. Raises `SceneError` with every fault found, one a line."""
    faults: list[str] = []
    groups: list[SceneForms] = []
    for name, table in tomllib.loads(text).items():
        part, register, when = table["part"], table.get("register", ""), frozenset(table.get("when", ()))
        if part not in PARTS or register not in ("", *REGISTERS[:3]):
            faults.append(f"[{name}] part is one of {', '.join(PARTS)}, register plain, adventure, quiet or left out")
            continue
        for tag in when:
            kind, _, word = tag.partition(":")
            if word not in {"place": PLACE_TAGS, "weather": WEATHERS, "time": TIMES}.get(kind, ()):
                faults.append(f"[{name}] unknown tag '{tag}'")
        forms = []
        for line in filter(None, map(str.strip, table["forms"].splitlines())):
            try:
                form = parse(line)
            except (FormError, UnknownVerb) as fault:
                faults.append(f"[{name}] {fault}")
                continue
            if strange := form.roles - set(PARTS[part]):
                faults.append(f"[{name}] {', '.join(sorted(strange))} is no role of a part '{part}': {line}")
            if not 4 <= len(line.split()) <= 50:
                faults.append(f"[{name}] {len(line.split())} words, 6 to 40 wanted: {line}")
            forms.append(form)
        if len({form.source for form in forms}) < len(forms):
            faults.append(f"[{name}] a form stands there twice")
        groups.append(SceneForms(name, part, register, when, tuple(forms)))
    if faults:
        raise SceneError("\n".join(faults))
    return groups


@cache
def all_scenes() -> tuple[SceneForms, ...]:
    """Every group of scene forms."""
    folder = files("training.world").joinpath("scenes")
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return tuple(group for file in found for group in read_scenes(file.read_text("utf-8")))
