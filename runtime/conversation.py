"""Turns of a conversation, appended to a context as the model's chat template writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.chat import ChatFormat
from runtime.errors import ContextBusy
from runtime.generation import Generation
from runtime.mode import Fallback, Mode
from runtime.sampling import Sampling
from runtime.span import Span

if TYPE_CHECKING:
    from runtime.engine import Engine


class Conversation:
    """A live context that holds a conversation. A turn is appended; what was said before is never rendered, or encoded, again.

    Names of special tokens in what anybody says are plain characters. A template that has no place for a system text leaves it out,
    as it does when it renders a whole conversation.
    """

    def __init__(
        self, engine: Engine, system: str = "", mode: Mode = "exact", fallback: Fallback = "exact", priority: int = 0
    ) -> None:
        self.context = engine.context(mode=mode, fallback=fallback, priority=priority)
        self._chat = engine.chat if system else ChatFormat.of(engine.tokenizer, system=False)
        self._turn = "user"
        if self._chat.system:
            self._put(self._chat.start, mark=True)
            self._put(system)
            self._opening = self._chat.user
        else:
            self._opening = self._chat.start + self._chat.user

    def say(self, text: str) -> Span:
        """The user's turn; a handle on what was said, which may be replaced or dropped like any other.

        Raises:
            ContextBusy: it is the model's turn.
        """
        self._expect("user")
        self._put(self._opening, mark=True)
        span = self._put(text)
        self._put(self._chat.reply, mark=True)
        self._opening, self._turn = self._chat.next_user, "reply"
        return span

    def reply(self, sampling: Sampling | None = None) -> Generation:
        """The model's turn: iterate over the result.

        Raises:
            ContextBusy: nobody has said anything that is to be answered.
        """
        self._expect("reply")
        self._turn = "user"
        return self.context.generate(sampling)

    def close(self) -> None:
        """Let every slot go."""
        self.context.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _expect(self, turn: str) -> None:
        if self._turn != turn:
            whose = "the model's turn: ask for a reply()" if turn == "user" else "the user's turn: say() something"
            raise ContextBusy(f"It is {whose} first.")

    def _put(self, text: str, mark: bool = False) -> Span:
        engine, context = self.context.engine, self.context
        return context.append(engine.encode(text, first=not context.row.ids and mark, special=mark))
