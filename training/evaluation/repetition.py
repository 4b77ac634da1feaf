"""How much a long story repeats itself, and how much of it was copied from what the model was trained on."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from recurrent_writer.prompt import DEFAULT_STYLE
from recurrent_writer.story import Settings, Step, Story
from recurrent_writer.writer import Writer
from runtime import Engine
from training.data import read_shard
from training.evaluation.row import Row, Track

BLOCK = 100
_PREMISES = (
    "Marisol repairs clocks in a harbour town. One morning a stranger leaves a clock that runs backwards.",
    "Lorcan can whistle any storm to sleep, except the one that is coming.",
    "Ottilie wants to be a pirate. So far she owns a spoon.",
)


def rows(engine: Engine, paragraphs: int, data: Path | None, track: Track) -> Iterator[Row]:
    """Three long stories: 4-grams already seen in the same story, by hundreds of paragraphs; 12-grams from the training text."""
    stories = [_write(engine, premise, seed, paragraphs, track) for seed, premise in enumerate(_PREMISES)]
    for begin in range(0, paragraphs, BLOCK):
        shares = [_seen(story, begin, begin + BLOCK) for story in stories]
        name = f"4-grams seen before in the story, paragraphs {begin + 1} to {begin + BLOCK}"
        yield Row("repetition", name, sum(shares) / len(shares), len(shares))
    encoded = [step.encoded_tokens for story in stories for step in story[-20:]]
    early = [step.encoded_tokens for story in stories for step in story[10:30]]
    yield Row(
        "repetition", "tokens encoded per step, last 20 over steps 11 to 30", 100 * sum(encoded) / sum(early), len(encoded)
    )
    yield Row(
        "repetition",
        "steps whose bookkeeping failed",
        100 * sum(s.degraded for story in stories for s in story) / (3 * paragraphs),
        3 * paragraphs,
    )
    if data is not None:
        wanted = {gram for story in stories for step in story for gram in _grams(step.paragraph, 12)}
        yield Row("repetition", "12-grams copied from training text", _copied(engine, wanted, data, track), len(wanted))


def _write(engine: Engine, premise: str, seed: int, paragraphs: int, track: Track) -> Sequence[Step]:
    advance = track(f"story {seed + 1} of {len(_PREMISES)}", paragraphs)
    with tempfile.TemporaryDirectory() as folder:
        with Story.create(Path(folder), "long", Settings(premise, DEFAULT_STYLE, seed, "")) as story:
            writer = Writer(engine, story)
            while len(story.steps) < paragraphs:
                for _ in writer.step(writer.next_plan()):
                    pass
                advance()
            writer.close()
        return story.steps


def _seen(story: Sequence[Step], begin: int, end: int) -> float:
    """The share of 4-grams in these paragraphs, in per cent, that stand somewhere before in the story."""
    known: set[tuple[str, ...]] = set()
    again = total = 0
    for number, step in enumerate(story[:end]):
        grams = list(_grams(step.paragraph, 4))
        if number >= begin:
            again += sum(gram in known for gram in grams)
            total += len(grams)
        known.update(grams)
    return 100 * again / max(1, total)


def _copied(engine: Engine, wanted: set[tuple[str, ...]], data: Path, track: Track) -> float:
    shards = sorted(data.glob("*.npz"))
    advance = track("reading the training text", len(shards))
    found: set[tuple[str, ...]] = set()
    for shard in shards:
        texts = engine.tokenizer.batch_decode([example.ids.tolist() for example in read_shard(shard)], skip_special_tokens=True)
        found |= {gram for text in texts for gram in _grams(text, 12) if gram in wanted}
        advance()
    return 100 * len(found) / max(1, len(wanted))


def _grams(text: str, length: int) -> Iterable[tuple[str, ...]]:
    words = re.findall(r"[\w'-]+", text.lower())
    return zip(*(words[at:] for at in range(length)), strict=False)
