"""The recurrence: one live context in which a story is written, paragraph after paragraph, at a cost that stays flat.

A step (RecurrentGPT, section 3; the tree of tasks of TIM): the plan is read, a paragraph is streamed, bookkeeping is done under a
grammar; then everything but the paragraph is dropped from the context, and the paragraph joins the recent ones.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from recurrent_writer import prompt
from recurrent_writer.bookkeeping import Bookkeeping, InvalidBookkeeping
from recurrent_writer.errors import ModelTooSmall, NothingWritten, TextTooLong
from recurrent_writer.sentences import straight, whole
from recurrent_writer.short_memory import revise
from recurrent_writer.story import Draft, Step, Story
from runtime import Context, Engine, Sampling, Span

RECENT_PARAGRAPHS = 2
RECALLED_ITEMS = 3
PARAGRAPH_TOKENS = 400
BOOKKEEPING_TOKENS = 900
MARK_TOKENS = 100
"""What the request for the bookkeeping and the marks of the chat template may take."""
LEAST_POSITIONS = 4096
ATTEMPTS = 3
CIRCLE_TOKENS = 16
"""Text may say again so many tokens that were there before, as a plan's in the paragraph; more become ever less likely (DRY)."""


def paragraph_sampling(seed: int) -> Sampling:
    """How a paragraph is drawn."""
    return _sampling(seed, PARAGRAPH_TOKENS, 0.7, None)


def bookkeeping_sampling(seed: int, sentences: int) -> Sampling:
    """How the bookkeeping for a short memory of so many sentences is drawn."""
    return _sampling(seed, BOOKKEEPING_TOKENS, 0.6, Bookkeeping.schema(sentences))


@dataclass(frozen=True)
class Text:
    """A piece of the paragraph, as it is written."""

    piece: str


@dataclass(frozen=True)
class Retracted:
    """The text since the step began does not count; the paragraph begins anew."""

    why: str


@dataclass(frozen=True)
class Written:
    """The paragraph is complete; the bookkeeping begins."""

    paragraph: str


class Writer:
    """Writes one story on one engine. The context lives as long as the writer does.

    The prompt of a step has room beside what the step writes: a quarter of it each at most for the opening, the plan and the short
    memory; recalled items, then recent paragraphs, are left out where the rest would be too long.
    """

    def __init__(self, engine: Engine, story: Story) -> None:
        """Raises what `check_opening` raises."""
        Writer.check_opening(engine, story.settings.premise, story.settings.style)
        self.engine = engine
        self.story = story
        self._context = engine.context()
        self._append(prompt.opening(engine.chat, story.settings.premise, story.settings.style))
        self._recent: list[Span] = []
        for step in story.steps[-RECENT_PARAGRAPHS:]:
            self._remember_paragraph(step.paragraph)

    @staticmethod
    def check_opening(engine: Engine, premise: str, style: str) -> None:
        """Raise `ModelTooSmall` or `TextTooLong` if the engine cannot hold the prompts of such a story."""
        if (tokens := _positions(engine)) < LEAST_POSITIONS:
            raise ModelTooSmall(
                f"The model has room for {tokens} tokens and a story needs {LEAST_POSITIONS}: name another model with --model."
            )
        ids = prompt.encode(engine, prompt.opening(engine.chat, premise, style))
        if len(ids) > _quarter(engine):
            raise TextTooLong(
                f"The premise and the style take {len(ids)} tokens, and the model has room for {_quarter(engine)}: shorten them."
            )

    @property
    def context(self) -> Context:
        """The live context, for those who want to look at it."""
        return self._context

    def next_plan(self) -> str:
        """The plan that a step takes when nobody chooses: the one chosen before a run was cut off, else one of the three."""
        if self.story.pending_plan is not None:
            return self.story.pending_plan
        if not self.story.plans:
            return prompt.OPENING_PLAN
        return random.Random(self._seed("plan", 0)).choice(self.story.plans)

    def step(self, plan: str) -> Iterator[Text | Retracted | Written | Step]:
        """Write the next paragraph: pieces of text as they come, `Written`, and last the accepted `Step`.

        The story changes when the step is whole, and not before. To leave the iteration early leaves the story as it was.
        Raises `NothingWritten` if the model gives no paragraph in `ATTEMPTS` attempts, `TextTooLong` for a plan that is.
        """
        began = time.monotonic()
        story, context = self.story, self._context
        encoded, generated = context.stats.encoded_tokens, context.stats.generated_tokens
        self._check_plan(plan)
        story.choose(plan)
        memory = self._fitting_memory()
        recalled = [m.text for m in story.recall(plan, RECALLED_ITEMS, before_step=self._first_recent_step())]
        while len(context) + len(task := self._task(recalled, memory, plan)) > _room(self.engine):
            if recalled:
                recalled.pop()
            else:
                context.drop(self._recent.pop(0))
        keep = len(context)
        context.append(task)
        draft = story.draft()
        accepted = False
        try:
            paragraph = yield from self._paragraph(draft)
            yield Written(paragraph)
            bookkeeping, degraded = self._settle(memory, plan)
            step = Step(
                number=len(story.steps) + 1,
                plan=plan,
                recalled=tuple(recalled),
                paragraph=paragraph,
                bookkeeping=bookkeeping,
                short_memory=revise(memory, bookkeeping),
                encoded_tokens=context.stats.encoded_tokens - encoded,
                generated_tokens=context.stats.generated_tokens - generated,
                resident_tokens=context.stats.resident_tokens,
                seconds=round(time.monotonic() - began, 3),
                degraded=degraded,
            )
            story.accept(step)
            accepted = True
        finally:
            draft.close(discard=accepted)
            context.drop(context.span(keep, len(context)))
        self._remember_paragraph(paragraph)
        yield step

    def close(self) -> None:
        """Let the context go."""
        self._context.close()

    def _check_plan(self, plan: str) -> None:
        tokens = len(self.engine.encode(plan, special=False))
        if tokens > _quarter(self.engine):
            raise TextTooLong(
                f"The plan takes {tokens} tokens, and the model has room for {_quarter(self.engine)}: shorten it."
            )

    def _fitting_memory(self) -> tuple[str, ...]:
        """The short memory, without the oldest sentences where it would take more than its share."""
        memory = self.story.short_memory
        while len(self._task((), memory, "")) > _quarter(self.engine):
            memory = memory[1:]
        return memory

    def _task(self, recalled: Sequence[str], memory: Sequence[str], plan: str) -> list[int]:
        return prompt.encode(self.engine, prompt.task(self.engine.chat, recalled, memory, plan))

    def _append(self, segments: list[prompt.Segment]) -> Span:
        return self._context.append(prompt.encode(self.engine, segments))

    def _first_recent_step(self) -> int:
        """The number of the first step whose paragraph is still in the context."""
        return len(self.story.steps) - len(self._recent) + 1

    def _remember_paragraph(self, paragraph: str) -> None:
        self._recent.append(self._append(prompt.recent(paragraph)))
        if len(self._recent) > RECENT_PARAGRAPHS:
            self._context.drop(self._recent.pop(0))

    def _paragraph(self, draft: Draft) -> Generator[Text | Retracted, None, str]:
        """Stream a paragraph at the end of the context, where it stays; returns it."""
        for attempt in range(ATTEMPTS):
            generation = self._context.generate(paragraph_sampling(self._seed("paragraph", attempt)))
            try:
                for piece in generation:
                    draft.write(piece)
                    yield Text(piece)
            finally:
                generation.close()
            text = " ".join(generation.text.split())
            paragraph = whole(text) if generation.finish_reason == "length" else text
            if paragraph:
                if paragraph != text:
                    yield Retracted(
                        f"The paragraph ran over {PARAGRAPH_TOKENS} tokens; its last, unfinished sentence is left out."
                    )
                if (once := straight(paragraph)) != paragraph:
                    yield Retracted("The paragraph ran in a circle; what it said again and again is kept once.")
                    paragraph = once
                return paragraph
            self._context.drop(generation.span)
            yield Retracted("The model wrote nothing; another attempt is made.")
        raise NothingWritten(
            f"The model wrote no text in {ATTEMPTS} attempts: try another plan, or another model with --model."
        )

    def _settle(self, memory: tuple[str, ...], plan: str) -> tuple[Bookkeeping, bool]:
        """The bookkeeping for the paragraph at the end of the context, and whether it had to be done without.

        One try, one repair that sees only the bad reply, then new seeds; last, the memory stays as it is.
        """
        self._append(prompt.update(self.engine.chat))
        for attempt in range(ATTEMPTS):
            reply = self._reply(self._context, memory, attempt)
            try:
                return Bookkeeping.read(reply, memory), False
            except InvalidBookkeeping as fault:
                problem = str(fault)
            if attempt == 0:
                try:
                    return Bookkeeping.read(self._repair(reply, problem, memory), memory), False
                except InvalidBookkeeping:
                    continue
        plans = tuple(other for other in self.story.plans if other != plan)
        return Bookkeeping((), (), (*plans, prompt.CONTINUE_PLAN)), True

    def _repair(self, reply: str, problem: str, memory: tuple[str, ...]) -> str:
        ids = prompt.encode(self.engine, prompt.repair(self.engine.chat, reply, problem))
        with self.engine.context(ids) as context:
            return self._reply(context, memory, ATTEMPTS)

    def _reply(self, context: Context, memory: tuple[str, ...], attempt: int) -> str:
        """A bookkeeping reply at the end of a context, which is left as it was."""
        generation = context.generate(bookkeeping_sampling(self._seed("bookkeeping", attempt), len(memory)))
        text = generation.run()
        context.drop(generation.span)
        return text

    def _seed(self, purpose: str, attempt: int) -> int:
        """A seed that depends on the story's own and on where in it we are: a run that was cut off goes on as it would have."""
        key = f"{self.story.settings.seed}/{len(self.story.steps)}/{purpose}/{attempt}"
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])


def _sampling(seed: int, max_tokens: int, temperature: float, schema: dict[str, Any] | None) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=0.95,
        min_p=0.05,
        dry_multiplier=0.8,
        dry_allowed_length=CIRCLE_TOKENS,
        seed=seed,
        schema=schema,
    )


def _positions(engine: Engine) -> int:
    return min(engine.max_positions, engine.pool.size)


def _room(engine: Engine) -> int:
    """The tokens that the prompt of a step may take."""
    return _positions(engine) - PARAGRAPH_TOKENS - BOOKKEEPING_TOKENS - MARK_TOKENS


def _quarter(engine: Engine) -> int:
    return _room(engine) // 4
