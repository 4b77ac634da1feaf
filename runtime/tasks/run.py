"""A task tree while a model writes it: tokens go to the reader, tools answer, finished lists leave the context."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.arrays import Bools
from runtime.errors import PositionsExhausted
from runtime.generation import FinishReason
from runtime.mode import Mode
from runtime.sampler import Sampler
from runtime.sampling import Sampling
from runtime.tasks.events import Event, ListPruned, ToolRequested
from runtime.tasks.instructions import instructions
from runtime.tasks.pruning import PruningStack, Rule
from runtime.tasks.reader import TaskReader
from runtime.tasks.recording import Header, Recorder, Step
from runtime.tasks.resident import ResidentText
from runtime.tasks.schema import task_schema
from runtime.tasks.tree import Tree
from runtime.text_stream import TextStream
from runtime.tools import Tool, ToolCall, ToolResult, tools_of
from runtime.work import Work

if TYPE_CHECKING:
    from runtime.context import Context
    from runtime.engine import Engine

DEFAULT_SAMPLING = Sampling(max_tokens=100_000, temperature=0)


@dataclass
class RunStats:
    """What a run has cost so far."""

    emitted_tokens: int = 0
    """Tokens written, by the model, the grammar or a tool; those that were dropped since too."""
    pruned_tokens: int = 0
    encoded_tokens: int = 0
    """Tokens that went through the model, the prompt's and those that were encoded again included."""
    resident_tokens: int = 0
    peak_tokens: int = 0
    """The most that the context ever held, the prompt included."""
    tool_calls: int = 0
    tool_seconds: float = 0.0
    first_token_seconds: float | None = None
    seconds: float = 0.0

    @property
    def pruned_share(self) -> float:
        """The share of the emitted tokens that has left the context."""
        return self.pruned_tokens / self.emitted_tokens if self.emitted_tokens else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.emitted_tokens / self.seconds if self.seconds else 0.0


class Run:
    """A task tree in the making, from `Engine.reason`. Iterate for its events; `answer` runs it to its end.

    A run holds a context of its own until it ends. Afterwards `finish_reason` says why it ended: "stop" (the answer is complete),
    "length" (`max_tokens`, or the model's last position), "cancelled".
    """

    described = False

    def __init__(
        self,
        engine: Engine,
        question: str,
        tools: Iterable[Tool | Callable[..., Any]],
        *,
        keep: int | None,
        rule: Rule,
        mode: Mode,
        tasks: Sequence[type] | None,
        answer: Any,
        sampling: Sampling | None,
        record: str | os.PathLike[str] | None,
    ) -> None:
        self.engine = engine
        self.sampling = sampling or DEFAULT_SAMPLING
        self.mode: Mode = mode
        self.tree = Tree()
        self.stats = RunStats()
        self.finish_reason: FinishReason = "running"
        self.only: Bools | None = None
        self.number = engine.scheduler.number()
        self._tools = {tool.name: tool for tool in tools_of(tools)}
        offered = list(self._tools.values())
        self._pruning = PruningStack(keep, rule)
        self.grammar = engine.grammars.compile(task_schema(offered, tasks, answer))
        prompt = _prompt(engine, question, offered)
        self._recorder = Recorder(os.fspath(record), self._header(question, offered)) if record is not None else None
        self.context: Context = engine.context(prompt, mode=mode)
        self.sampler = Sampler(self.sampling, engine.vocabulary, prompt)
        self.context.begin(self)
        self.start = len(prompt)
        self._reader = TaskReader()
        self._resident = ResidentText(lambda text: engine.encode(text, special=False))
        self._stream = self._fresh_stream()
        self._requested: ToolRequested | None = None
        self._result: ToolCall | None = None
        self._events: list[Event] = []
        self._cancelled = threading.Event()
        self._driven = False
        self._began = time.perf_counter()

    @property
    def answer(self) -> Any:
        """The answer; None if the run ended without one. Runs to the end first, unless somebody is iterating."""
        if self.finish_reason == "running" and not self._driven:
            self.run()
        return self.tree.answer if self.tree.answered else None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def __iter__(self) -> Iterator[Event]:
        for _, event in drive([self]):
            yield event

    def run(self) -> Run:
        """Run to the end."""
        for _ in self:
            pass
        return self

    def cancel(self) -> None:
        """End before the next token; may be called from another thread. A tool that is at work is not waited for."""
        self._cancelled.set()
        if not self._driven:
            self.end("cancelled")

    # What follows is for the runtime's own modules.

    def prepare(self) -> Work | ToolCall | None:
        """Take what needs no model; then what to wait for: the next token, a tool, or nothing at the end."""
        while self.finish_reason == "running":
            if self.cancelled:
                self.end("cancelled")
            elif self._requested is not None:
                if self._result is None:
                    self._result = ToolCall(self._tools[self._requested.tool_name], self._requested.parameters)
                if not self._result.done():
                    return self._result
                self._answer(self._result.result())
            elif forced := self.grammar.forced():
                self._take(forced, "forced")
            elif self.grammar.finished:
                self.end("stop")
            else:
                return Work(self.context, self, self.number)
        return None

    def receive(self, work: Work) -> None:
        """Take the token that a work brought."""
        if work.error is not None:
            self.end("cancelled")
            raise work.error
        if work.token is None:
            self.end("cancelled")
        elif work.token in self.engine.eos_ids:
            self.end("stop")
        else:
            self._draw(work.token)

    def events(self) -> list[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def end(self, reason: FinishReason) -> None:
        """Let the context go."""
        if self.finish_reason == "running":
            self.finish_reason = reason
            self._count()
            self.context.finish(self)
            self.context.close()
            self.engine.scheduler.finished(self)
            if self._recorder is not None:
                self._recorder.close()

    def hold(self, driven: bool) -> None:
        self._driven = driven

    def _draw(self, token: int) -> None:
        self.only = None
        self.grammar.accept(token)
        if self.stats.first_token_seconds is None:
            self.stats.first_token_seconds = time.perf_counter() - self._began
        self._take([token], "sampled")

    def _answer(self, result: ToolResult) -> None:
        """Write a tool's result where it was asked for."""
        self._requested = self._result = None
        self.stats.tool_calls += 1
        self.stats.tool_seconds += result.seconds
        self.engine.stats.tool_seconds += result.seconds
        ids = self.engine.encode(result.text, special=False)
        self.grammar.accept(*ids)
        if isinstance(result.value, int | float) and not isinstance(result.value, bool):
            self.only = self._closing  # nothing but the next character says that a number has ended
        self._take(ids, "given", result)

    @property
    def _closing(self) -> Bools:
        """The tokens that begin with a closing brace."""
        allowed = np.zeros(self.engine.vocab_size, np.bool_)
        allowed[self.engine.vocabulary.starting_with(b"}")] = True
        return allowed

    def _take(
        self, ids: Sequence[int], source: Literal["sampled", "forced", "given"], result: ToolResult | None = None
    ) -> None:
        """Write tokens that the grammar has accepted, until one asks for a tool."""
        texts: list[str] = []
        events: list[Event] = []
        full = False
        for at, token in enumerate(ids):
            try:
                with self.engine.lock:
                    self.context.push(token)
            except PositionsExhausted:
                full = True
                break
            self.sampler.accept(token)
            text = self._stream.push(token)
            found = self._pruning.follow(self._reader.feed(text, self.stats.emitted_tokens))
            if found and isinstance(requested := found[-1], ToolRequested):
                text = self._stop_at(requested, text, ids[at + 1 :])
            self._resident.append(text)
            texts.append(text)
            self.stats.emitted_tokens += 1
            for event in found:
                self.tree.apply(event)
                if isinstance(event, ListPruned):
                    self._prune(event)
            events += found
            if self._requested is not None:
                break
            if full := self.stats.emitted_tokens >= self.sampling.max_tokens:
                break
        self._events += events
        self._count()
        if self._recorder is not None:
            taken = tuple(ids[: len(texts)])
            stats = self.stats
            self._recorder.step(
                Step(
                    source,
                    taken,
                    tuple(texts),
                    tuple(events),
                    stats.emitted_tokens,
                    stats.resident_tokens,
                    stats.seconds,
                    result,
                )
            )
        if full:  # only now: it ends the recording too
            self.end("length")

    def _stop_at(self, requested: ToolRequested, text: str, behind: Sequence[int]) -> str:
        """Nothing may stand behind the colon where a tool's result goes: take away what does. The text that is left."""
        self._requested = requested
        if behind:
            self.grammar.rollback(len(behind))
        if not requested.rest:
            return text
        kept = text[: -len(requested.rest)]
        ids = self.engine.encode(kept, special=False)
        self.grammar.rollback(1)
        self.grammar.accept(*ids)
        with self.engine.lock:
            self.context.cut(len(self.context) - 1, ids)
        self._stream = self._fresh_stream()
        for _ in ids[1:]:
            self._resident.append("")
        self.stats.emitted_tokens += len(ids) - 1
        return kept

    def _prune(self, event: ListPruned) -> None:
        edit = self._resident.cut(event.inside)
        self.context.prune(self.start + edit.start, self.start + edit.stop, self.mode, edit.token_ids)
        self.stats.pruned_tokens += edit.stop - edit.start - len(edit.token_ids)

    def _count(self) -> None:
        held = self.context.stats
        self.stats.encoded_tokens = held.encoded_tokens
        self.stats.resident_tokens = len(self.context)
        self.stats.peak_tokens = max(self.stats.peak_tokens, len(self.context))
        self.stats.seconds = time.perf_counter() - self._began

    def _fresh_stream(self) -> TextStream:
        return TextStream(self.engine.tokenizer.backend_tokenizer, [], ())

    def _header(self, question: str, tools: Sequence[Tool]) -> Header:
        about = tuple(
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in tools
        )
        settings = {name: value for name, value in asdict(self.sampling).items() if name != "schema"}
        return Header(
            question,
            str(self.engine.model_path),
            self._pruning.keep,
            self._pruning.rule,
            about,
            {"mode": self.mode, "sampling": settings},
            datetime.now(UTC).isoformat(timespec="seconds"),
        )


def drive(runs: Sequence[Run]) -> Iterator[tuple[Run, Event]]:
    """Run task trees of one engine together: while one waits for its tool, the others are written. Their events, as they come."""
    works: dict[Work, Run] = {}
    calls: dict[ToolCall, Run] = {}
    todo = list(runs)
    for run in runs:
        run.hold(True)
    try:
        while todo or works or calls:
            for run in todo:
                wanted = run.prepare()
                if isinstance(wanted, Work):
                    works[wanted] = run
                elif wanted is not None:
                    calls[wanted] = run
                for event in run.events():
                    yield run, event
            if works:
                next(iter(works)).context.engine.scheduler.wait(list(works))
            elif calls:
                patience = min(_CANCEL_SECONDS, *(call.seconds_left for call in calls))
                wait([call.future for call in calls], timeout=patience, return_when=FIRST_COMPLETED)
            todo = [calls.pop(call) for call in list(calls) if call.done() or calls[call].cancelled]
            for work in [work for work in works if work.done]:
                run = works.pop(work)
                run.receive(work)
                todo.append(run)
    finally:
        for run in runs:
            run.hold(False)
        if works:
            next(iter(works)).context.engine.scheduler.withdraw(list(works))


_CANCEL_SECONDS = 0.1  # how long a cancellation may have to wait while nothing but tools is at work


def _prompt(engine: Engine, question: str, tools: Sequence[Tool]) -> list[int]:
    """The conversation up to the reply. A model whose template knows no system text (the bundled one) was trained on the format."""
    chat = engine.chat
    said = f"Tools: {', '.join(tool.name for tool in tools)}\nQuestion: {question}" if tools else f"Question: {question}"
    opening = (
        [(chat.start, True), (instructions(tools), False), (chat.user, True)]
        if chat.system
        else [(chat.start + chat.user, True)]
    )
    ids: list[int] = []
    for text, special in [*opening, (said, False), (chat.reply, True)]:
        ids += engine.encode(text, first=not ids and special, special=special)
    return ids
