"""A model's chat template as the few pieces of text between turns, so that a conversation can grow without being rendered again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from runtime.errors import ModelBroken, first_line

_SAID = ["\x01system\x01", "\x01user\x01", "\x01reply\x01", "\x01again\x01"]
_TURNS = [{"role": role, "content": text} for role, text in zip(("system", "user", "assistant", "user"), _SAID, strict=True)]


@dataclass(frozen=True)
class ChatFormat:
    """`start` + system text + `user` + what the user says + `reply` + the model's text + `next_user` + ... + `reply` + ...

    `system` is False when the template leaves the system text out; then a conversation begins with `start` alone.
    """

    start: str
    system: bool
    user: str
    reply: str
    next_user: str

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerFast, system: bool = True) -> ChatFormat:
        """Read the pieces off the tokenizer's template; a model without one gets plain paragraphs.

        Without `system`, those of a conversation that has no system text.

        Raises:
            ModelBroken: the template cannot be rendered, or does not say what was said just once and in its order.
        """
        if not tokenizer.chat_template:
            return ChatFormat(str(tokenizer.bos_token or ""), system, "\n\n" if system else "", "\n\n", "\n\n")
        try:
            return _read(tokenizer, system)
        except Exception as fault:  # a template is a program of its own
            raise ModelBroken(
                f"The model's chat template cannot be used ({first_line(fault)}): mend it, or take it out to write without one."
            ) from fault


def _read(tokenizer: PreTrainedTokenizerFast, system: bool) -> ChatFormat:
    try:
        pieces = _pieces(tokenizer, _TURNS if system else _TURNS[1:])
    except TemplateError:  # some templates refuse the system role
        pieces = []
    if pieces[1::2] not in (_SAID, _SAID[1:]):  # others put its text behind the first turn
        pieces = _pieces(tokenizer, _TURNS[1:])
    if pieces[1::2] not in (_SAID, _SAID[1:]):
        raise ValueError("it does not show every turn once and in order")
    start, *user, reply, next_user, last = pieces[::2]
    # The generation prompt may differ from how past replies are shown (an opened thinking block, say): take it as it is.
    return ChatFormat(start, bool(user), "".join(user), last if last.strip() else reply, next_user)


def _pieces(tokenizer: PreTrainedTokenizerFast, turns: list[dict[str, str]]) -> list[str]:
    """The rendered turns, cut before and behind each thing that was said."""
    options: dict[str, Any] = {"enable_thinking": False}  # a template that knows no thinking ignores it
    text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options))
    return re.split(f"({'|'.join(_SAID)})", text)
