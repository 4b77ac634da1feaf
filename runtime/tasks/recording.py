"""A run on disk: a line of JSON about the run, then one for each of its steps; and the same run again, without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from runtime.errors import BrokenRecording, RecordingFailed, first_line
from runtime.tasks.events import Event
from runtime.tasks.pruning import PruningStack, Rule
from runtime.tasks.reader import TaskReader
from runtime.tools import ToolResult

VERSION = 1


@dataclass(frozen=True)
class Header:
    """What a run was."""

    question: str
    model: str
    keep: int | None = 0
    rule: Rule = "conclusion"
    tools: tuple[dict[str, Any], ...] = ()
    """As the model was told of them; JSON."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the run was sampled, and whatever else may be worth knowing; JSON."""
    started: str = ""
    """When, in ISO 8601."""
    version: int = VERSION


@dataclass(frozen=True)
class Step:
    """Some tokens that were emitted at once, and what came of them."""

    source: Literal["sampled", "forced", "given"]
    """Who chose the tokens: the model, the grammar, or a tool."""
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    """For each token, the text that it made certain, as the reader got it."""
    events: tuple[Event, ...]
    """What the reader and the pruning stack said."""
    emitted: int
    """Tokens emitted so far."""
    resident: int
    """Tokens in the context now, the prompt's included."""
    seconds: float
    """Since the run began."""
    result: ToolResult | None = None
    """What the tool said, if the tokens are its."""


@dataclass(frozen=True)
class Recording:
    """A run that was read back."""

    header: Header
    steps: tuple[Step, ...]
    torn: bool = False
    """True if the last line was not whole, as after a crash, and was left out."""


class Recorder:
    """Writes a recording, step by step. A crash of the program loses at most the step that was being written.

    Raises:
        RecordingFailed: the file exists, or cannot be written.
    """

    def __init__(self, path: str | Path, header: Header) -> None:
        try:
            # A lone surrogate becomes the escape that JSON has for it.
            self._file = Path(path).open("x", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        except FileExistsError as fault:
            raise RecordingFailed(f"There is a file '{path}' already: record the run under another name.") from fault
        except OSError as fault:
            raise RecordingFailed(f"The run cannot be recorded in '{path}': {fault.strerror}.") from fault
        self._write(asdict(header))

    def step(self, step: Step) -> None:
        """Write one step."""
        events = [{"event": type(event).__name__, **asdict(event)} for event in step.events]
        self._write({**asdict(step), "events": events})

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as fault:
            raise RecordingFailed(f"The recording '{self._file.name}' cannot be continued: {fault.strerror}.") from fault


def read_recording(path: str | Path) -> Recording:
    """Read a recording, of a run that crashed as well.

    Raises:
        BrokenRecording: the file cannot be read, is no recording, is of another version, or is damaged before its last line.
    """
    try:
        first, *lines = [line for line in Path(path).read_bytes().split(b"\n") if line] or [b""]
    except OSError as fault:
        raise BrokenRecording(f"The recording '{path}' cannot be read: {fault.strerror}.") from fault
    header = _read_header(first, path)
    steps: list[Step] = []
    for number, line in enumerate(lines, start=2):
        try:
            steps.append(_read_step(json.loads(line)))
        except (ValueError, KeyError, TypeError) as fault:
            if number <= len(lines):
                raise BrokenRecording(f"Line {number} of the recording '{path}' is damaged: {first_line(fault)}") from fault
            return Recording(header, tuple(steps), torn=True)
    return Recording(header, tuple(steps))


def replay(recording: Recording) -> Iterator[tuple[Step, list[Event]]]:
    """Run reader and pruning over the recorded text again: each step, with the events that it has now.

    Raises:
        MalformedTree: the text is not that of a run.
    """
    reader, pruning = TaskReader(), PruningStack(recording.header.keep, recording.header.rule)
    token = 0
    for step in recording.steps:
        events: list[Event] = []
        for text in step.texts:
            events += pruning.follow(reader.feed(text, token))
            token += 1
        yield step, events


_HEADER = TypeAdapter(Header)
_STEP = TypeAdapter(Step)
_EVENTS = {event.__name__: TypeAdapter[Event](event) for event in get_args(Event)}


def _read_header(line: bytes, path: str | Path) -> Header:
    try:
        record = json.loads(line)
        found = record["version"]
        if found == VERSION:
            return _HEADER.validate_python(record)
    except (ValueError, KeyError, TypeError) as fault:
        raise BrokenRecording(f"The file '{path}' is no recording of a run: its first line says nothing of one.") from fault
    raise BrokenRecording(f"The recording '{path}' is of version {found}, and this program reads version {VERSION}.")


def _read_step(record: dict[str, Any]) -> Step:
    events = [_EVENTS[event["event"]].validate_python(event) for event in record["events"]]
    return _STEP.validate_python({**record, "events": events})
