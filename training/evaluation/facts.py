"""A fact told long ago, which stands nowhere but in the memory block: is it used rightly?"""

from __future__ import annotations

from collections.abc import Iterator

from recurrent_writer.writer import RECALLED_ITEMS, RECENT_PARAGRAPHS, paragraph_sampling
from runtime import Engine
from training.evaluation.row import Row, Track, share
from training.evaluation.stories import FIRST_SEED, prompt_ids
from training.world.recollection import ask

DISTANCES = (1, 10, 100, 1000)


def rows(engine: Engine, cases: int, track: Track) -> Iterator[Row]:
    """For each distance: the hiding place of a thing, or a secret, from so many paragraphs ago."""
    for distance in DISTANCES:
        advance = track(f"a fact from {distance} paragraphs ago", cases)
        used, recalled = [], []
        for number in range(cases):
            asked = ask(FIRST_SEED + 10_000 + number, distance)
            with engine.context(prompt_ids(engine, asked.step)) as context:
                paragraph = context.generate(paragraph_sampling(number)).run()
            used.append(asked.fact.lower() in paragraph.lower())
            recalled.append(asked.recalled)
            advance()
        yield share("memory", f"fact from {distance} paragraphs ago used rightly", used, 90)
        if distance >= RECENT_PARAGRAPHS:  # a paragraph that still stands in the prompt is not searched for
            yield share("memory", f"- found by the search among {RECALLED_ITEMS}", recalled)
