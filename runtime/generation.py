"""One generation: an iterator over the pieces of text as they come."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal

import torch

from runtime.errors import PositionsExhausted
from runtime.sampling import Sampling, choose
from runtime.span import Span
from runtime.text_stream import TextStream

if TYPE_CHECKING:
    from runtime.context import Context

# How many tokens before the generated ones the decoder sees, to know whether a space belongs in front.
_DECODER_CONTEXT = 8

FinishReason = Literal["running", "stop", "length", "cancelled"]


class Generation:
    """Text streaming into a context. Iterate to run it; let go of it, or `close()`, to end it early.

    Afterwards `text` is what was generated, `span` a handle on its tokens, and `finish_reason` why it ended: "stop" (end
    of text, a stop string, or the schema is complete), "length" (`max_tokens`, or the model's last position), "cancelled".
    """

    def __init__(self, context: Context, sampling: Sampling) -> None:
        self.context = context
        self.sampling = sampling
        self.finish_reason: FinishReason = "running"
        self._span = context.span(len(context), len(context))
        engine = context.engine
        self._grammar = engine.grammar(sampling.schema) if sampling.schema is not None else None
        self._stream = TextStream(engine.tokenizer.backend_tokenizer, context.token_ids[-_DECODER_CONTEXT:], sampling.stop)
        seed = random.randrange(2**63) if sampling.seed is None else sampling.seed
        self._generator = torch.Generator().manual_seed(seed)
        self._cancelled = threading.Event()
        self._advancing = threading.Lock()
        # The pieces know their generation weakly: without a cycle, it ends as soon as the loop over it is left.
        self._pieces = type(self)._run(weakref.proxy(self))

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
        return self._stream.text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            with self._advancing:
                return next(self._pieces)
        except BaseException:
            self._end("cancelled")
            raise
        finally:
            if self._cancelled.is_set():
                self._end("cancelled")

    def run(self) -> str:
        """Generate to the end and return the text."""
        for _ in self:
            pass
        return self.text

    def close(self) -> None:
        """End here; what was generated stays."""
        self._pieces.close()
        self._end("cancelled")

    def cancel(self) -> None:
        """End before the next token: at once, unless another thread is about to bring one."""
        self._cancelled.set()
        if self._advancing.acquire(blocking=False):
            self._end("cancelled")
            self._advancing.release()

    def _end(self, reason: FinishReason) -> None:
        if self.finish_reason == "running":
            self.finish_reason = reason
            self.context.finish(self)

    def _run(self) -> Generator[str]:
        while self.finish_reason == "running":
            for token in self._next_tokens():
                if piece := self._take(token):
                    yield piece
                if self.finish_reason != "running":
                    break
        if rest := self._stream.flush():
            yield rest

    def _take(self, token: int) -> str:
        """Put a token into the context; the text that it makes certain."""
        try:
            self.context.push([token])
        except PositionsExhausted:
            self._end("length")
            return ""
        self._span.stop = len(self.context)
        piece = self._stream.push(token)
        if self._stream.stopped:
            self._trim()
            self._end("stop")
        elif len(self._span) >= self.sampling.max_tokens:
            self._end("length")
        return piece

    def _next_tokens(self) -> list[int]:
        """The forced tokens, or one sampled token, or none when the text is at its end."""
        if self._cancelled.is_set():
            self._end("cancelled")
            return []
        if self._grammar is not None:
            if forced := self._grammar.forced():
                return forced
            if self._grammar.finished:
                self._end("stop")
                return []
        logits = self.context.logits()
        if self._grammar is not None:
            logits = self._grammar.mask(logits)
        token = choose(logits, self.sampling, self._generator)
        if token in self.context.engine.eos_ids and not self.sampling.ignore_eos:
            self._end("stop")
            return []
        if self._grammar is not None:
            self._grammar.accept(token)
        return [token]

    def _trim(self) -> None:
        """Take the stop string out of the context; a token that is part text, part stop is encoded anew."""
        engine, text, start = self.context.engine, self.text, self._span.start
        before = self.context.token_ids[max(0, start - _DECODER_CONTEXT) : start]
        skip = len(engine.decode(before))
        ids = self._span.token_ids
        kept = len(ids)
        while not text.startswith(decoded := engine.decode([*before, *ids[:kept]])[skip:]):
            kept -= 1
        rest = text[len(decoded) :]
        self.context.cut(start + kept, engine.encode(rest) if rest else [])
        self._span.start, self._span.stop, self._span.alive = start, len(self.context), True
