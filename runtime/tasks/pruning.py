"""Which finished lists of subtasks leave the context, and when (TIM, section 2.1: the pruning buffer)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal, get_args

from runtime.errors import InvalidPruning
from runtime.tasks.events import Concluded, Event, ListClosed, ListPruned, NodeClosed, Path

Rule = Literal["conclusion", "bracket"]


class PruningStack:
    """Finished lists wait here; when there are more than `keep`, the oldest is pruned.

    A list comes onto the stack when its parent has concluded (`rule="conclusion"`: until then the parent needs it), or at its own
    bracket (`rule="bracket"`, the paper's). `keep` is 0, 1, 2 or more, or None, which prunes nothing. A list inside another ends
    before it, so it comes and goes before it: what is pruned was never pruned before as part of something else.

    Raises:
        InvalidPruning: there is no such rule, or `keep` is negative.
    """

    def __init__(self, keep: int | None = 0, rule: Rule = "conclusion") -> None:
        if keep is not None and keep < 0:
            raise InvalidPruning(f"keep={keep}: keep 0 or more finished lists, or None to prune nothing.")
        if rule not in get_args(Rule):
            raise InvalidPruning(f"There is no pruning rule '{rule}': use 'conclusion' or 'bracket'.")
        self.keep, self.rule = keep, rule
        self._needed: dict[Path, ListClosed] = {}
        """Finished lists whose parent has not concluded."""
        self._stack: deque[ListClosed] = deque()

    def follow(self, events: Iterable[Event]) -> list[Event]:
        """The reader's events, and behind each the `ListPruned` that it causes."""
        followed: list[Event] = []
        for event in events:
            followed.append(event)
            if (finished := self._finished(event)) is not None:
                self._stack.append(finished)
            if self.keep is not None and len(self._stack) > self.keep:
                oldest = self._stack.popleft()
                followed.append(ListPruned(oldest.node, oldest.inside))
        return followed

    def _finished(self, event: Event) -> ListClosed | None:
        """The list that this event lets go."""
        match event:
            case ListClosed() if self.keep is not None:
                if self.rule == "bracket":
                    return event
                self._needed[event.node] = event
            case Concluded():
                return self._needed.pop(event.node, None)
            case NodeClosed():
                self._needed.pop(event.node, None)
        return None
