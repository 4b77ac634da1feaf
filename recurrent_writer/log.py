"""The event log of a story: one JSON object a line, only ever appended to, each line with a checksum. It is the truth."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recurrent_writer.errors import StoryDamaged
from recurrent_writer.files import sync_folder


@dataclass(frozen=True)
class Event:
    """Something that happened to a story. `id` counts from 1; `parent` is the event it follows, None for the first."""

    id: int
    parent: int | None
    time: str
    kind: str
    payload: dict[str, Any]

    def line(self) -> str:
        """The event as it stands in the log."""
        body = {"id": self.id, "parent": self.parent, "time": self.time, "kind": self.kind, "payload": self.payload}
        return json.dumps({**body, "check": _checksum(body)}, ensure_ascii=False, separators=(",", ":")) + "\n"


class EventLog:
    """The log in a file, read whole when it is opened. A last line without its end is left out, and counted in `torn_bytes`.

    Raises `StoryDamaged` for any other line that is not as it was written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.events: list[Event] = []
        self.torn_bytes = 0
        if file.exists():
            self._read()

    def append(self, kind: str, payload: dict[str, Any]) -> Event:
        """Add an event behind the last one; when this returns it is on the disk."""
        parent = self.events[-1].id if self.events else None
        event = Event((parent or 0) + 1, parent, datetime.now(UTC).isoformat(timespec="milliseconds"), kind, payload)
        new = not self.file.exists()
        with self.file.open("xb" if new else "r+b", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END) - self.torn_bytes
            stream.seek(end)
            stream.truncate()
            self.torn_bytes = 0
            try:
                rest = memoryview(event.line().encode())
                while rest:
                    rest = rest[stream.write(rest) :]
                os.fsync(stream.fileno())
            except BaseException:  # what was written of the line does not count: the next event takes its place
                self.torn_bytes = stream.seek(0, os.SEEK_END) - end
                raise
        if new:
            sync_folder(self.file.parent)
        self.events.append(event)
        return event

    def _read(self) -> None:
        *lines, torn = self.file.read_bytes().split(b"\n")
        self.torn_bytes = len(torn)
        for number, line in enumerate(lines, 1):
            if event := _parse(line):
                self.events.append(event)
            else:
                raise StoryDamaged(
                    f"Line {number} of {self.file} is not as it was written. Nothing was changed: "
                    "put back a copy of the file, or take that line out if you know what it was."
                )


def _parse(line: bytes) -> Event | None:
    """The event of a line; None if the line is not what an event wrote."""
    try:
        body = json.loads(line)
        check = body.pop("check")
        return Event(**body) if check == _checksum(body) else None
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
