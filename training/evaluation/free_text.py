"""Premises and actions that a person wrote: are the people and things in them taken up?"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from recurrent_writer import prompt
from recurrent_writer.prompt import DEFAULT_STYLE, OPENING_PLAN
from recurrent_writer.writer import paragraph_sampling
from runtime import Engine
from training.evaluation.row import Row, Track, share

SAMPLES = 3
"""Paragraphs for each text, under different seeds."""


def rows(engine: Engine, track: Track) -> Iterator[Row]:
    """The share of texts all of whose people and things are in the paragraph."""
    cases = tomllib.loads(Path(__file__).with_name("free_text.toml").read_text("utf-8"))
    advance = track("premises", len(cases["premise"]))
    taken = []
    for case in cases["premise"]:
        ids = prompt.encode(engine, _segments(engine, case["text"], DEFAULT_STYLE, (), (), OPENING_PLAN))
        taken += [_takes_up(_write(engine, ids, seed), case["terms"]) for seed in range(SAMPLES)]
        advance()
    yield share("free text", f"{len(cases['premise'])} premises taken up", taken, 80)
    actions = [(scene, action) for scene in cases["scene"] for action in scene["actions"]]
    advance = track("actions", len(actions))
    taken = []
    for scene, action in actions:
        style = "plain tale, second person, present tense"
        ids = prompt.encode(
            engine, _segments(engine, scene["premise"], style, scene["recent"], scene["memory"], action["text"])
        )
        taken += [_takes_up(_write(engine, ids, seed), action["terms"]) for seed in range(SAMPLES)]
        advance()
    yield share("free text", f"{len(actions)} player's actions taken up", taken, 80)


def _segments(
    engine: Engine, premise: str, style: str, recent: Sequence[str], memory: Sequence[str], plan: str
) -> list[prompt.Segment]:
    return [
        *prompt.opening(engine.chat, premise, style),
        *(segment for paragraph in recent for segment in prompt.recent(paragraph)),
        *prompt.task(engine.chat, (), memory, plan),
    ]


def _write(engine: Engine, ids: Sequence[int], seed: int) -> str:
    with engine.context(ids) as context:
        return context.generate(paragraph_sampling(seed)).run()


def _takes_up(paragraph: str, terms: Sequence[str]) -> bool:
    return all(term.lower() in paragraph.lower() for term in terms)
