"""A story on disk: the log is the truth, everything else in its folder can be made again from it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock, Timeout

from recurrent_writer import manuscript
from recurrent_writer.bookkeeping import Bookkeeping
from recurrent_writer.embedding import NAME as EMBEDDER
from recurrent_writer.errors import InvalidStory, StoryDamaged, StoryExists, StoryLocked, StoryNotFound
from recurrent_writer.files import replace_file
from recurrent_writer.log import EventLog
from recurrent_writer.long_memory import LongMemory, Memory
from recurrent_writer.sentences import windows

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


@dataclass(frozen=True)
class Settings:
    """What a story is made from; fixed when it is created."""

    premise: str
    style: str
    seed: int
    model: str


@dataclass(frozen=True)
class Step:
    """One whole step of the recurrence, as it was accepted. `number` counts from 1."""

    number: int
    plan: str
    recalled: tuple[str, ...]
    paragraph: str
    bookkeeping: Bookkeeping
    short_memory: tuple[str, ...]
    """The memory after the step."""
    encoded_tokens: int
    generated_tokens: int
    resident_tokens: int
    seconds: float
    degraded: bool
    """True if the bookkeeping failed, and the memory stayed as it was."""

    @property
    def plans(self) -> tuple[str, ...]:
        """Three plans for the next step."""
        return self.bookkeeping.plans

    def memories(self) -> Iterator[Memory]:
        """What the step leaves in the long memory: the sentences it added, and its paragraph in pairs of sentences."""
        for index, item in enumerate(self.bookkeeping.add, 1):
            yield Memory(f"{self.number}.{index}", self.number, item.sentence)
        for index, text in enumerate(windows(self.paragraph), 1):
            yield Memory(f"{self.number}.w{index}", self.number, text)

    @staticmethod
    def from_payload(payload: dict[str, Any]) -> Step:
        fields = {**payload, "bookkeeping": Bookkeeping.from_dict(payload["bookkeeping"])}
        return Step(**{**fields, "recalled": tuple(payload["recalled"]), "short_memory": tuple(payload["short_memory"])})


@dataclass
class Story:
    """A story that is open: for reading, or (`create`, `open(write=True)`) for writing, by one process at a time."""

    folder: Path
    log: EventLog
    settings: Settings
    steps: list[Step]
    pending_plan: str | None = None
    """A plan that was chosen, and whose paragraph has not been accepted yet."""
    notes: list[str] = field(default_factory=list)
    """What was found and mended when the story was opened, in sentences for its reader."""
    _lock: FileLock | None = None
    _long_memory: LongMemory | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def short_memory(self) -> tuple[str, ...]:
        return self.steps[-1].short_memory if self.steps else ()

    @property
    def plans(self) -> tuple[str, ...]:
        return self.steps[-1].plans if self.steps else ()

    @staticmethod
    def check_new(library: Path, name: str, premise: str) -> None:
        """Raise `InvalidStory` or `StoryExists` if no story of this name and premise can be created."""
        if not _NAME.fullmatch(name):
            raise InvalidStory(f"'{name}' cannot be the name of a story: use letters, digits, '-' and '_' only.")
        if not premise.strip():
            raise InvalidStory("The premise is empty: say in a sentence or two what the story is about.")
        folder = library / name
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "events.jsonl").exists():
            raise StoryExists(f"{folder} holds something else than a story: give the new story another --name.")
        if EventLog(folder / "events.jsonl").events:
            raise StoryExists(
                f"There is a story '{name}' already: go on with it by 'recurrent-writer write {name} --paragraphs +12', "
                "or give the new one another --name."
            )

    @staticmethod
    def create(library: Path, name: str, settings: Settings) -> Story:
        """A new story. Raises what `check_new` raises."""
        Story.check_new(library, name, settings.premise)
        folder = library / name
        folder.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(folder)
        log = EventLog(folder / "events.jsonl")
        log.append("created", asdict(settings))
        story = Story(folder, log, settings, [], _lock=lock)
        story._project()
        return story

    @staticmethod
    def open(library: Path, name: str, *, write: bool = False) -> Story:
        """A story that exists. Raises `StoryNotFound`, `StoryDamaged`, `StoryLocked` (when it is to be written)."""
        folder = library / name
        if not _NAME.fullmatch(name) or not (folder / "events.jsonl").exists():
            raise StoryNotFound(
                f"There is no story '{name}' in {library}: 'recurrent-writer stories list' shows those there are, "
                "'recurrent-writer write --premise TEXT' begins one."
            )
        lock = _take_lock(folder) if write else None
        log = EventLog(folder / "events.jsonl")
        if not log.events:
            raise StoryNotFound(f"The story '{name}' was cut off before it began: begin it again with --name {name}.")
        last = log.events[-1]
        try:
            settings = Settings(**log.events[0].payload)
            steps = [Step.from_payload(event.payload) for event in log.events if event.kind == "step"]
            pending_plan = last.payload["plan"] if last.kind == "plan" else None
        except (KeyError, TypeError, ValueError) as fault:
            raise StoryDamaged(
                f"{log.file} was written by another version of recurrent-writer: open the story with that version."
            ) from fault
        story = Story(folder, log, settings, steps, pending_plan, _lock=lock)
        if log.torn_bytes:
            story.notes.append(f"The last line of {log.file.name} was torn ({log.torn_bytes} bytes) and is left out.")
        if write:
            story.notes += [
                f"An unfinished paragraph is kept in drafts/{draft.name}; it is written anew."
                for draft in sorted((folder / "drafts").glob(f"{len(steps) + 1:04}.*.part"))
            ]
            story._project(every_chapter=True)
        return story

    def close(self) -> None:
        """Let others write the story."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def choose(self, plan: str) -> None:
        """Record the plan for the next paragraph, before anything is written."""
        if plan != self.pending_plan:
            self.log.append("plan", {"plan": plan})
            self.pending_plan = plan

    def accept(self, step: Step) -> None:
        """Record a whole step; when this returns it is on the disk and can be read in the manuscript."""
        assert step.number == len(self.steps) + 1
        self.log.append("step", asdict(step))
        self.steps.append(step)
        self.pending_plan = None
        if self._long_memory is not None:
            self._long_memory.add(list(step.memories()))
        self._project()

    def draft(self) -> Draft:
        """A file for the paragraph that is being written."""
        return Draft(self.folder / "drafts", len(self.steps) + 1)

    def recall(self, query: str, count: int, before_step: int) -> list[Memory]:
        """What the long memory holds that is nearest to `query`, from steps before `before_step`; nothing that the short
        memory holds as well."""
        if not self.steps or before_step <= 1:
            return []
        if self._long_memory is None:
            folder = self.folder / "index"
            was_there = folder.exists()
            self._long_memory = LongMemory(folder, [memory for step in self.steps for memory in step.memories()])
            if was_there and self._long_memory.rebuilt:
                self.notes.append("The index of the long memory did not fit the story, and was made anew from it.")
        return self._long_memory.recall(query, count, before_step, self.short_memory)

    def _project(self, *, every_chapter: bool = False) -> None:
        """Bring the readable files up to the log."""
        self.notes += manuscript.project(self.folder, self.steps, every_chapter=every_chapter)
        document = tomlkit.document()
        document.update(
            {
                "format": FORMAT,
                "title": manuscript.title(self.name),
                "language": "en",
                "model": self.settings.model,
                "embedder": EMBEDDER,
                "head": self.log.events[-1].id,
            }
        )
        replace_file(self.folder / "story.toml", tomlkit.dumps(document))


class Draft:
    """The text of a paragraph on its way, on disk as it streams. It goes when the paragraph is accepted, or was never begun."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        taken = {file.name for file in folder.iterdir()}
        attempt = next(n for n in range(1, len(taken) + 2) if f"{step:04}.{n}.part" not in taken)
        self.file = folder / f"{step:04}.{attempt}.part"
        self._stream = self.file.open("x", encoding="utf-8")

    def write(self, piece: str) -> None:
        self._stream.write(piece)
        self._stream.flush()

    def close(self, *, discard: bool) -> None:
        self._stream.close()
        if discard or not self.file.stat().st_size:
            self.file.unlink(missing_ok=True)


def _take_lock(folder: Path) -> FileLock:
    file = folder / ".lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as fault:
        try:
            holder = f"process {json.loads((folder / '.lock.json').read_text('utf-8'))['pid']}"
        except (OSError, ValueError, KeyError):
            holder = "another process"
        raise StoryLocked(f"The story '{folder.name}' is being written by {holder}: wait for it or stop it first.") from fault
    (folder / ".lock.json").write_text(json.dumps({"pid": os.getpid()}), "utf-8")
    return lock
