"""The live context: tokens that a program appends, replaces and drops while a model runs over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from weakref import ReferenceType, WeakSet, finalize, ref

from torch import Tensor

from runtime.errors import ContextBusy, EmptyContext, PositionsExhausted, SpanGone, UnknownToken, UnsupportedMode
from runtime.generation import Generation
from runtime.sampling import Sampling
from runtime.slots import SlotPool
from runtime.span import Span

if TYPE_CHECKING:
    from runtime.engine import Engine

Mode = Literal["exact"]


@dataclass
class ContextStats:
    """What a context has cost so far, in tokens."""

    encoded_tokens: int = 0
    """Tokens that went through the model, again or for the first time; those it generated included."""
    generated_tokens: int = 0
    """Tokens that were sampled, or forced by a schema."""
    resident_tokens: int = 0
    """Tokens whose keys and values are held now."""
    peak_tokens: int = 0
    """The most that were ever held at once."""


class Context:
    """An ordered row of tokens, and of the slots that hold the keys and values of as many of them as are encoded.

    An edit only changes the row: slots behind it are let go, and what is missing is encoded in one extend when logits
    are next wanted. So the keys and values are always those of a fresh run on `token_ids` (design: mode `exact`).
    """

    def __init__(self, engine: Engine, mode: Mode = "exact") -> None:
        check_mode(mode)
        self.engine = engine
        self.mode: Mode = mode
        self.token_ids: list[int] = []
        self.slots: list[int] = []
        self.stats = ContextStats()
        self._spans: WeakSet[Span] = WeakSet()
        self._logits: Tensor | None = None
        # Weak: whoever iterates over a generation keeps it running.
        self._generation: ReferenceType[Generation] | None = None
        # Also when nobody closes the context: its slots come back with its memory.
        self._release = finalize(self, _release_all, engine.pool, self.slots)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def text(self) -> str:
        """The whole context as text, special tokens included."""
        return self.engine.decode(self.token_ids, special=True)

    @property
    def positions(self) -> list[int]:
        """The position of each token; dense in mode `exact`."""
        return list(range(len(self.token_ids)))

    def span(self, start: int, stop: int) -> Span:
        """A handle on tokens `start` to `stop` (exclusive)."""
        if not 0 <= start <= stop <= len(self.token_ids):
            raise SpanGone(f"Tokens {start} to {stop} are not in a context of {len(self.token_ids)} tokens.")
        span = Span(self, start, stop)
        self._spans.add(span)
        return span

    def append(self, content: str | Sequence[int]) -> Span:
        """Put text or token ids at the end. The first text gets the special tokens that the tokenizer adds by itself.

        Raises:
            PositionsExhausted, UnknownToken: and nothing has changed.
        """
        self._editable(at_end=True)
        start = len(self.token_ids)
        self._splice(start, start, self._encode(content, first=start == 0))
        return self.span(start, len(self.token_ids))

    def replace(self, span: Span, content: str | Sequence[int]) -> Span:
        """Put other text in a span's place. What both begin with keeps its keys and values."""
        start, stop = self._own(span)
        ids = self._encode(content, first=start == 0)
        self._splice(start, stop, ids)
        span.alive = False
        return self.span(start, start + len(ids))

    def drop(self, span: Span, mode: Mode | None = None) -> None:
        """Take a span out of the context; its slots are free at once."""
        check_mode(mode or self.mode)
        start, stop = self._own(span)
        self._splice(start, stop, [])
        span.alive = False

    def fork(self) -> Context:
        """A second context with the same tokens, sharing every slot."""
        self._open()
        twin = self.engine.context(mode=self.mode)
        twin.token_ids, twin._logits = self.token_ids.copy(), self._logits
        self.engine.pool.share(self.slots)
        twin.slots.extend(self.slots)
        twin._count()
        return twin

    def logits(self) -> Tensor:
        """Logits of the next token, float32 `[vocab]` on the CPU. Encodes what is not encoded yet."""
        self._open()
        if not self.token_ids:
            raise EmptyContext("The context is empty: append text or token ids first.")
        if self._logits is None:
            self._extend()
            assert self._logits is not None
        return self._logits

    def generate(self, sampling: Sampling | None = None) -> Generation:
        """Stream text at the end of the context: iterate over the result. The tokens stay, the end-of-text token does not."""
        self._editable(at_end=True)
        if not self.token_ids:
            raise EmptyContext("The context is empty: append text or token ids first.")
        generation = Generation(self, sampling or Sampling())
        self._generation = ref(generation)
        return generation

    def cancel(self) -> None:
        """End the running generation before its next token; may be called from another thread."""
        if generation := self._running():
            generation.cancel()

    def close(self) -> None:
        """Let every slot go. The context cannot be used afterwards."""
        self._release()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What follows is for the runtime's own modules.

    def push(self, ids: Sequence[int]) -> None:
        """Append generated tokens."""
        self._splice(len(self.token_ids), len(self.token_ids), ids)
        self.stats.generated_tokens += len(ids)

    def cut(self, start: int, ids: Sequence[int]) -> None:
        """Put `ids` in the place of everything from token `start` on."""
        self._splice(start, len(self.token_ids), ids)

    def finish(self, generation: Generation) -> None:
        if self._running() is generation:
            self._generation = None

    def _running(self) -> Generation | None:
        return self._generation() if self._generation is not None else None

    def _encode(self, content: str | Sequence[int], first: bool) -> list[int]:
        ids = self.engine.encode(content, first=first) if isinstance(content, str) else list(content)
        vocabulary = self.engine.vocab_size
        for token in ids:
            if not 0 <= token < vocabulary:
                raise UnknownToken(f"The model has no token {token}: use token ids from 0 to {vocabulary - 1}.")
        return ids

    def _splice(self, start: int, stop: int, ids: Sequence[int]) -> None:
        """Replace tokens `start` to `stop` by `ids`, keep the encoded prefix that is still right, move the spans."""
        limit = self.engine.max_positions
        if (length := len(self.token_ids) - (stop - start) + len(ids)) > limit:
            raise PositionsExhausted(
                f"The context would have {length} tokens, and the model knows {limit} positions: drop spans first."
            )
        same = 0
        while same < min(len(ids), stop - start) and ids[same] == self.token_ids[start + same]:
            same += 1
        changed = start + same
        if changed == stop and same == len(ids):
            changed = len(self.token_ids)  # nothing has changed at all
        self.token_ids[start:stop] = ids
        if changed < len(self.slots):
            self.engine.pool.release(self.slots[changed:])
            del self.slots[changed:]
        if changed < len(self.token_ids) or len(self.slots) < len(self.token_ids) or stop > changed:
            self._logits = None
        shift = len(ids) - (stop - start)
        for span in self._spans:
            if not span.alive or span.stop <= start:
                continue
            if span.start >= stop:  # before it dies: an empty span at the edge stays there
                span.start, span.stop = span.start + shift, span.stop + shift
            elif start <= span.start and span.stop <= stop:
                span.alive = False
            elif span.start <= start and span.stop >= stop:
                span.stop += shift
            elif span.start < start:
                span.stop = start
            else:
                span.start, span.stop = start + len(ids), span.stop + shift
        self._count()

    def _extend(self) -> None:
        """Encode what has no slot yet; the last token again if only its logits are missing."""
        if len(self.slots) == len(self.token_ids):
            self.engine.pool.release([self.slots.pop()])
        new = self.token_ids[len(self.slots) :]
        self._logits = self.engine.extend(self.slots, new)
        self.stats.encoded_tokens += len(new)
        self._count()

    def _count(self) -> None:
        self.stats.resident_tokens = len(self.slots)
        self.stats.peak_tokens = max(self.stats.peak_tokens, len(self.slots))

    def _own(self, span: Span) -> tuple[int, int]:
        self._editable(at_end=False)
        if span.context is not self:
            raise SpanGone("The span belongs to another context.")
        if not span.alive:
            raise SpanGone("The span was dropped or replaced before; use the one that the edit returned.")
        generation = self._running()
        if generation is not None and span.stop > generation.start:
            raise ContextBusy("The span holds text that is being generated: finish or cancel the generation first.")
        return span.start, span.stop

    def _editable(self, at_end: bool) -> None:
        self._open()
        if at_end and self._running() is not None:
            raise ContextBusy("A generation is running at the end of this context: finish or close it first.")

    def _open(self) -> None:
        if not self._release.alive:
            raise ContextBusy("The context was closed: open another with engine.context().")


def _release_all(pool: SlotPool, slots: list[int]) -> None:
    pool.release(slots)
    slots.clear()


def check_mode(mode: str) -> None:
    """Raise `UnsupportedMode` for anything but a mode that this runtime has."""
    if mode != "exact":
        raise UnsupportedMode(f"There is no drop mode '{mode}': use 'exact'.")
