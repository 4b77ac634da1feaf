"""`recurrent-writer write`: begin a story or go on with one."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recurrent_writer.cli.console import ProseStream, remark, stderr, visible
from recurrent_writer.cli.engine import load_engine
from recurrent_writer.errors import InvalidStory
from recurrent_writer.library import free_name, library_folder
from recurrent_writer.prompt import DEFAULT_STYLE
from recurrent_writer.story import Settings, Step, Story

if TYPE_CHECKING:
    from recurrent_writer.writer import Writer

DEFAULT_PARAGRAPHS = 12
# Control characters that JSON may hold as they are, and that a terminal obeys.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class PlanMode(StrEnum):
    """Who chooses the next plan."""

    auto = "auto"
    ask = "ask"


def write(
    story_name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A story to go on with.")] = None,
    premise: Annotated[str | None, typer.Option(help="What a new story is about, in a sentence or more.")] = None,
    name: Annotated[str | None, typer.Option(help="The new story's name; made from the premise if left out.")] = None,
    paragraphs: Annotated[
        str, typer.Option(metavar="N|+N", help="Write until the story has N paragraphs; +N writes N more.")
    ] = f"+{DEFAULT_PARAGRAPHS}",
    style: Annotated[str, typer.Option(help="How a new story is told.")] = DEFAULT_STYLE,
    seed: Annotated[int | None, typer.Option(help="The same seed and model write the same new story.")] = None,
    model: Annotated[str | None, typer.Option(help="A folder or a Hugging Face id; the bundled model if left out.")] = None,
    plan: Annotated[PlanMode, typer.Option(help="Take one of the three plans by itself, or ask you.")] = PlanMode.auto,
    stories: Annotated[Path | None, typer.Option(help="The folder that holds the stories.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per accepted step instead of prose.")] = False,
) -> None:
    """Write a story, paragraph by paragraph; prose goes to stdout, everything else to stderr."""
    if (story_name is None) == (premise is None):
        raise InvalidStory(
            "Begin a story with --premise TEXT, or name one to go on with: recurrent-writer write NAME --paragraphs +12."
        )
    if story_name is not None and (name is not None or seed is not None or style != DEFAULT_STYLE):
        raise InvalidStory("--name, --seed and --style belong to a new story; an old one keeps what it began with.")
    for option, text in (("--premise", premise), ("--style", style), ("--model", model)):
        if text is not None and re.search("[\ud800-\udfff]", text):
            raise InvalidStory(f"{option} holds bytes that are not UTF-8: give it in UTF-8.")
    more, count = _paragraphs(paragraphs)
    library = library_folder(stories)
    if premise is not None:
        settings = Settings(
            premise=" ".join(premise.split()),
            style=" ".join(style.split()),
            seed=random.randrange(2**32) if seed is None else seed,
            model=_lasting(model),
        )
        story, engine = _begin(library, name or free_name(library, premise), settings)
    else:
        assert story_name is not None
        story = Story.open(library, story_name, write=True)
        engine = load_engine(model or story.settings.model or None)
    from recurrent_writer.writer import Writer

    with story, engine:
        target = len(story.steps) + count if more else count
        writer = Writer(engine, story)
        remark(f"{story.folder}  seed {story.settings.seed}  {engine.model_path.name}")
        plans = _ask(writer) if plan is PlanMode.ask else _take(writer)
        _run(writer, plans, target, _JsonOutput() if json_ else _ProseOutput())
        if len(story.steps) >= target > 0:
            remark(
                f"{len(story.steps)} paragraphs. Go on with: recurrent-writer write {story.name} --paragraphs +{DEFAULT_PARAGRAPHS}"
            )


def _paragraphs(text: str) -> tuple[bool, int]:
    if not re.fullmatch(r"\+?\d{1,6}", text) or int(text) < 1:
        raise InvalidStory(f"--paragraphs {text}: give a number such as 12, or +12 for twelve more.")
    return text.startswith("+"), int(text)


def _begin(library: Path, name: str, settings: Settings) -> tuple[Story, Any]:
    """A new story and the engine for it; what cannot become a story leaves nothing behind."""
    Story.check_new(library, name, settings.premise)
    from recurrent_writer.writer import Writer

    engine = load_engine(settings.model or None)
    Writer.check_opening(engine, settings.premise, settings.style)
    return Story.create(library, name, settings), engine


def _lasting(model: str | None) -> str:
    """A model as a story keeps it: an id as it is, a folder by its whole path."""
    folder = Path(model or "").expanduser()
    return str(folder.resolve()) if model and folder.is_dir() else model or ""


def _take(writer: Writer) -> Iterator[str]:
    while True:
        yield writer.next_plan()


def _ask(writer: Writer) -> Iterator[str]:
    """Plans as the person at the keyboard picks, edits or writes them; ends with their input."""
    from recurrent_writer.prompt import OPENING_PLAN

    story = writer.story
    while True:
        own = [story.pending_plan] if story.pending_plan else []
        plans = list(dict.fromkeys([*own, *(story.plans or (OPENING_PLAN,))]))
        choices = {str(number): plan for number, plan in enumerate(plans, 1)}
        for number, plan in choices.items():
            stderr.print(f"  {number}. {visible(plan)}", markup=False, highlight=False)
        stderr.print(f"Plan? 1-{len(plans)}, or your own words; Enter takes 1, q ends: ", markup=False, end="")
        line = sys.stdin.readline() if sys.stdin else ""
        answer = line.strip()
        if not line or answer.lower() in ("q", "quit"):
            stderr.print()
            return
        if answer.isdecimal() and answer not in choices:
            remark(f"There is no plan {answer}.")
            continue
        yield choices.get(answer or "1", answer)


class _ProseOutput:
    """Prose to stdout as it is written; one quiet line to stderr for each step."""

    def __init__(self) -> None:
        self._prose = ProseStream()

    def text(self, piece: str) -> None:
        self._prose.write(piece)

    def retracted(self, why: str) -> None:
        self._prose.end_paragraph()
        remark(why)

    def end(self) -> None:
        self._prose.end_paragraph()

    def step(self, step: Step, target: int) -> None:
        rate = step.generated_tokens / max(step.seconds, 1e-9)
        added, dropped = len(step.bookkeeping.add), len(step.bookkeeping.drop)
        remark(
            f"  {step.number}/{target}  {step.seconds:.1f} s  {rate:.0f} tokens/s  {step.resident_tokens} resident  "
            f"memory {len(step.short_memory)} (+{added} -{dropped})"
            + ("  degraded: the memory was kept as it was" if step.degraded else "")
        )


class _JsonOutput:
    """One JSON object per accepted step to stdout; a progress line to stderr."""

    def text(self, piece: str) -> None:
        pass

    def retracted(self, why: str) -> None:
        remark(why)

    def end(self) -> None:
        pass

    def step(self, step: Step, target: int) -> None:
        record = {
            "step": step.number,
            "paragraph": step.paragraph,
            "plan": step.plan,
            "short_memory": list(step.short_memory),
            "plans": list(step.plans),
            "encoded_tokens": step.encoded_tokens,
            "generated_tokens": step.generated_tokens,
            "resident_tokens": step.resident_tokens,
            "seconds": step.seconds,
            "degraded": step.degraded,
        }
        sys.stdout.write(json.dumps(record, ensure_ascii=False).translate(_CONTROLS) + "\n")
        sys.stdout.flush()
        remark(f"  {step.number}/{target}  {step.seconds:.1f} s")


def _run(writer: Writer, plans: Iterable[str], target: int, output: _ProseOutput | _JsonOutput) -> None:
    from recurrent_writer.writer import Retracted, Text, Written

    story = writer.story
    plans = iter(plans)
    while len(story.steps) < target:
        _say_notes(story)
        plan = next(plans, None)
        if plan is None:
            return
        try:
            for event in writer.step(plan):
                match event:
                    case Text(piece):
                        output.text(piece)
                    case Retracted(why):
                        output.retracted(why)
                    case Written():
                        output.end()
                    case Step():
                        output.step(event, target)
        finally:
            output.end()
    _say_notes(story)


def _say_notes(story: Story) -> None:
    while story.notes:
        remark(story.notes.pop(0))
