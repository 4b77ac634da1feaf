"""A model's chat template as the few pieces of text between turns, so that a conversation can grow without being rendered again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

_SYSTEM, _USER, _REPLY, _AGAIN = "\x01system\x01", "\x01user\x01", "\x01reply\x01", "\x01again\x01"


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
    def of(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
        """Read the pieces off the tokenizer's template; a model without one gets plain paragraphs."""
        if not tokenizer.chat_template:
            return ChatFormat(str(tokenizer.bos_token or ""), True, "\n\n", "\n\n", "\n\n")
        user = {"role": "user", "content": _USER}
        more = [{"role": "assistant", "content": _REPLY}, {"role": "user", "content": _AGAIN}]
        try:
            text = _render(tokenizer, [{"role": "system", "content": _SYSTEM}, user, *more])
        except TemplateError:  # some templates refuse the system role
            text = _render(tokenizer, [user, *more])
        start, rest = text.split(_USER)
        reply, rest = rest.split(_REPLY)
        next_user, last = rest.split(_AGAIN)
        head, found, after = start.partition(_SYSTEM)
        # The generation prompt may differ from how past replies are shown (an opened thinking block, say): take it as it is.
        return ChatFormat(head, bool(found), after, last if last.strip() else reply, next_user)


def _render(tokenizer: PreTrainedTokenizerFast, turns: list[dict[str, str]]) -> str:
    options: dict[str, Any] = {"enable_thinking": False}  # a template that knows no thinking ignores it
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options))
