"""One generation: an iterator over the pieces of text as they come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from runtime.errors import PositionsExhausted
from runtime.sampler import Choice, Sampler
from runtime.sampling import Sampling
from runtime.span import Span
from runtime.text_stream import TextStream
from runtime.work import Work

if TYPE_CHECKING:
    from runtime.context import Context

# How many tokens before the generated ones the decoder sees, to know whether a space belongs in front.
_DECODER_CONTEXT = 8

FinishReason = Literal["running", "stop", "length", "cancelled"]


class Generation:
    """Text streaming into a context. Iterate to run it (`for` or `async for`); let go of it, or `close()`, to end it early.

    Afterwards `text` is what was generated, `span` a handle on its tokens, `choices` what was drawn and how likely it was, and
    `finish_reason` why it ended: "stop" (end of text, a stop string, or the schema is complete), "length" (`max_tokens`, or the
    model's last position), "cancelled".
    """

    described = True

    def __init__(self, context: Context, sampling: Sampling) -> None:
        engine = context.engine
        self.context = context
        self.sampling = sampling
        self.finish_reason: FinishReason = "running"
        self.choices: list[Choice] = []
        """Every token that was sampled, in order, with its log-probability; forced ones are not among them."""
        self.number = engine.scheduler.number()
        self.grammar = engine.grammars.compile(sampling.schema) if sampling.schema is not None else None
        self.only = None
        self.sampler = Sampler(sampling, engine.vocabulary, context.row.ids)
        self._span = context.span(len(context), len(context))
        self._stream = TextStream(engine.tokenizer.backend_tokenizer, context.row.ids[-_DECODER_CONTEXT:], sampling.stop)
        self._pieces: list[str] = []  # what each token added to the text
        self._began = time.perf_counter()
        self._cancelled = threading.Event()
        self._advancing = threading.Lock()

    @property
    def start(self) -> int:
        """Where in the context the generated text begins."""
        return self._span.start

    @property
    def span(self) -> Span:
        """The generated tokens."""
        return self._span

    @property
    def text(self) -> str:
        """All text generated so far."""
        text = "".join(self._pieces)
        return text[: len(text) - self._stream.removed]

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            with self._advancing:
                return next(advance([self]))[1]
        except BaseException:
            self._end("cancelled")
            raise
        finally:
            if self.cancelled:
                self._end("cancelled")

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            piece = await loop.run_in_executor(self.context.engine.executor, next, self, None)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def run(self) -> str:
        """Generate to the end and return the text."""
        for _ in self:
            pass
        return self.text

    def close(self) -> None:
        """End here; what was generated stays."""
        self._end("cancelled")

    def cancel(self) -> None:
        """End before the next token: at once, unless another thread is about to bring one."""
        self._cancelled.set()
        if self._advancing.acquire(blocking=False):
            self._end("cancelled")
            self._advancing.release()

    # What follows is for the runtime's own modules.

    def prepare(self) -> tuple[str, Work | None]:
        """Take the tokens that are forced; their text, and the work that brings the next token (None at the end)."""
        if self.finish_reason == "running" and self.cancelled:
            self._end("cancelled")
        piece = ""
        if self.grammar is not None:
            while self.finish_reason == "running" and (forced := self.grammar.forced()):
                piece += self.take(forced)
            if self.grammar.finished:
                self._end("stop")
        if self.finish_reason != "running":
            return piece + self._stream.flush(), None
        return piece, Work(self.context, self, self.number)

    def receive(self, work: Work) -> str:
        """Take the token that a work brought; the text that it makes certain."""
        if work.error is not None:
            self._end("cancelled")
            raise work.error
        token = work.token
        if token is None or work.choice is None:
            self._end("cancelled")
            return ""
        if (token in self.context.engine.eos_ids and not self.sampling.ignore_eos) or token in self.sampling.stop_ids:
            self._end("stop")
            return ""
        if not self.choices:
            self.context.stats.first_token_seconds = time.perf_counter() - self._began
        self.choices.append(work.choice)
        if self.grammar is not None:
            self.grammar.accept(token)
        return self.take([token])

    def take(self, tokens: Sequence[int]) -> str:
        """Put tokens into the context that the grammar has accepted; the text that they make certain."""
        piece = ""
        with self.context.engine.lock:
            for token in tokens:
                piece += self._take(token)
                if self.finish_reason != "running":
                    break
        return piece

    def _take(self, token: int) -> str:
        try:
            self.context.push(token)
        except PositionsExhausted:
            self._end("length")
            return ""
        self._span.stop = len(self.context)
        self.sampler.accept(token)
        piece = self._stream.push(token)
        self._pieces.append(self._stream.last)
        if self._stream.stopped:
            self._trim(self._stream.removed)
            self._end("stop")
        elif len(self._pieces) >= self.sampling.max_tokens:
            self._end("length")
        return piece

    def _trim(self, count: int) -> None:
        """Take the last characters out of the context; a token that is part text, part stop string is encoded anew."""
        kept = len(self._pieces)
        while count > 0:
            kept -= 1
            count -= len(self._pieces[kept])
        rest = self._pieces[kept][:-count] if count < 0 else ""
        while kept and not self._pieces[kept - 1]:  # bytes of a character that the next token completes
            kept -= 1
        start = self._span.start
        cut = len(self.context) - len(self._pieces) + kept
        self.context.cut(cut, self.context.engine.encode(rest) if rest else [])
        self._span.start, self._span.stop, self._span.alive = min(start, cut), len(self.context), True

    def _end(self, reason: FinishReason) -> None:
        if self.finish_reason == "running":
            self.finish_reason = reason
            self.context.stats.generating_seconds += time.perf_counter() - self._began
            self.context.finish(self)
            self.context.engine.scheduler.finished(self)


def advance(generations: Sequence[Generation]) -> Iterator[tuple[Generation, str]]:
    """Run generations of one engine together; their pieces of text as they come."""
    works: dict[Work, Generation] = {}
    todo = list(generations)
    try:
        while todo or works:
            for generation in todo:
                piece, work = generation.prepare()
                if piece:
                    yield generation, piece
                if work is not None:
                    works[work] = generation
            todo = []
            if works:
                scheduler = next(iter(works)).context.engine.scheduler
                scheduler.wait(list(works))
                done = [work for work in works if work.done]
                todo = [works.pop(work) for work in done]
                pieces = [generation.receive(work) for work, generation in zip(done, todo, strict=True)]
                yield from ((generation, piece) for generation, piece in zip(todo, pieces, strict=True) if piece)
    finally:
        if works:
            next(iter(works)).context.engine.scheduler.withdraw(list(works))
