"""The threads in which tools run: as many as there are calls at one time, used again, and waited for by nobody."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

_Inbox = SimpleQueue[Callable[[], None]]


class Workers:
    """Runs each job at once, in a thread that has nothing else to do. To start one takes twenty times as long as to use one again.

    Python cannot kill a thread: a job that hangs keeps its own (a daemon, which does not keep the program from ending).
    """

    def __init__(self) -> None:
        self._idle: list[_Inbox] = []

    def run(self, job: Callable[[], None]) -> None:
        """Begin a job, which raises nothing."""
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            Thread(target=self._serve, args=[inbox], name="tool", daemon=True).start()
        inbox.put(job)

    def _serve(self, inbox: _Inbox) -> None:
        while True:
            inbox.get()()
            self._idle.append(inbox)
