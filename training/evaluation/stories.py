"""Paragraphs and bookkeeping in worlds that training never saw: one step of each, judged by the world itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from recurrent_writer import prompt
from recurrent_writer.bookkeeping import Bookkeeping, InvalidBookkeeping
from recurrent_writer.writer import bookkeeping_sampling, paragraph_sampling
from runtime import Context, Engine
from training.evaluation.row import Row, Track, share
from training.world.course import Course, TaughtStep
from training.world.judge import Verdict, judge
from training.world.lexicon import Split

# Seeds from here on are never drawn in training, whose seeds have 48 bits.
FIRST_SEED = 2**50


@dataclass(frozen=True)
class Judged:
    """A step that the model wrote, and what came of it."""

    step: TaughtStep
    paragraph: str
    verdict: Verdict
    bookkeeping: Bookkeeping | None


def rows(engine: Engine, worlds: int, split: Split, track: Track) -> Iterator[Row]:
    """Plans followed, contradictions, bookkeeping; with words of training, or with names and things that are new."""
    section = "stories" if split == "train" else "stories, new names and things"
    advance = track(section, worlds)
    results = []
    for number in range(worlds):
        results.append(write_step(engine, FIRST_SEED + number, split, 1 + number % 20))
        advance()
    verdicts = [result.verdict for result in results]
    yield share(section, "plan followed", [verdict.follows for verdict in verdicts], 95)
    for part in ("people", "place", "thing", "event"):
        yield share(section, f"- its {part}", [v.followed[part] for v in verdicts if part in v.followed])
    yield share(section, "nothing against the world", [not verdict.faults for verdict in verdicts], 95)
    sentences = sum(verdict.sentences for verdict in verdicts)
    judged = sum(verdict.judged for verdict in verdicts)
    yield Row(section, "- sentences that fit a written form", 100 * judged / max(1, sentences), sentences)
    yield share(section, "bookkeeping valid at first try", [result.bookkeeping is not None for result in results], 99)
    yield from _bookkeeping_rows(section, results)


def write_step(engine: Engine, seed: int, split: Split, number: int) -> Judged:
    """Let the model write the `number`-th step (the first is 0) of a world."""
    course = Course(seed, split)
    step = next(islice(course, number, None))
    with engine.context(prompt_ids(engine, step)) as context:
        told = context.text
        paragraph = " ".join(context.generate(paragraph_sampling(seed)).run().split())
        reply = _settle(engine, context, step, seed)
    verdict = judge(step, paragraph, course.style.narrator, course.history.state.spots, told)
    try:
        bookkeeping = Bookkeeping.read(reply, step.memory)
    except InvalidBookkeeping:
        bookkeeping = None
    return Judged(step, paragraph, verdict, bookkeeping)


def prompt_ids(engine: Engine, step: TaughtStep) -> list[int]:
    """The tokens that the model reads before it writes a step's paragraph."""
    segments = [
        *prompt.opening(engine.chat, step.premise, step.style),
        *(segment for paragraph in step.recent for segment in prompt.recent(paragraph)),
        *prompt.task(engine.chat, step.recalled, step.memory, step.plan),
    ]
    return prompt.encode(engine, segments)


def _settle(engine: Engine, context: Context, step: TaughtStep, seed: int) -> str:
    context.append(prompt.encode(engine, prompt.update(engine.chat)))
    return context.generate(bookkeeping_sampling(seed, len(step.memory))).run()


def _bookkeeping_rows(section: str, results: list[Judged]) -> Iterator[Row]:
    """How near the model's edits are to the teacher's."""
    counts: Counter[str] = Counter()
    for result in results:
        if result.bookkeeping is None:
            continue
        wanted = {item.number for item in result.step.bookkeeping.drop}
        dropped = {item.number for item in result.bookkeeping.drop}
        counts.update(wanted=len(wanted), dropped=len(dropped), both=len(wanted & dropped))
        names = {
            entity.name.split()[-1].lower() for entity in (result.step.event.binding.values() if result.step.event else ())
        }
        added = " ".join(item.sentence for item in result.bookkeeping.add).lower()
        counts.update(events=1, remembered=any(name in added for name in names))
    yield Row(
        section, "- sentences to drop that were dropped", 100 * counts["both"] / max(1, counts["wanted"]), counts["wanted"]
    )
    yield Row(
        section, "- dropped sentences that were to be", 100 * counts["both"] / max(1, counts["dropped"]), counts["dropped"]
    )
    yield Row(section, "- event remembered by name", 100 * counts["remembered"] / max(1, counts["events"]), counts["events"])
