"""What the model reads: the words of every block, in the order stable text first, changing text last.

    [instructions, premise, style] [recent paragraphs] [recalled] [short memory] [plan] -> paragraph -> [request] -> bookkeeping

The bundled model was trained on exactly these blocks, without the instructions (its chat template leaves them out).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime import Engine
    from runtime.chat import ChatFormat

DEFAULT_STYLE = "plain tale, third person, past tense"
OPENING_PLAN = "Begin the story: show who it is about, where they are, and what they want."

CONTINUE_PLAN = "Go on with the story from where the last paragraph ends."

INSTRUCTIONS = """\
You are a novelist who writes a long story one paragraph at a time. What you know of it is in front of you: the premise and the \
style, the latest paragraphs, some things recalled from much earlier, a short memory of numbered sentences, and a plan.

When you are given a plan, write the next paragraph of the story and nothing else: five to twelve sentences of prose that carry \
out the plan, follow from the latest paragraphs, and contradict nothing in the memory. It is one of very many: do not hurry, and do \
not end the story. No headings, no comments.

When you are asked to update the memory, answer with one JSON object:
{"drop":[{"number":2,"why":"..."}],"add":[{"sentence":"...","why":"..."}],"plans":["...","...","..."]}
drop: the numbers of memory sentences that are no longer true or no longer needed, each with a short reason. add: what the new \
paragraph brought that later ones must know, as short sentences with names instead of pronouns, each with a reason. The memory \
never holds more than twenty sentences. plans: three different plans for the next paragraph, one to three sentences each, that \
say who does what, where, and with what. Write in the language of the story."""

UPDATE_REQUEST = "Update the memory and give three plans."


@dataclass(frozen=True)
class Segment:
    """A piece of the conversation. In a `mark` of the chat template the names of special tokens mean those tokens; in what
    anybody says they are plain characters."""

    text: str
    mark: bool = False


def opening(chat: ChatFormat, premise: str, style: str) -> list[Segment]:
    """The stable beginning of the conversation."""
    said = Segment(f"Premise: {premise}\nStyle: {style}\n\nStory so far:\n")
    if not chat.system:
        return [Segment(chat.start + chat.user, mark=True), said]
    return [Segment(chat.start, mark=True), Segment(INSTRUCTIONS), Segment(chat.user, mark=True), said]


def recent(paragraph: str) -> list[Segment]:
    """One of the latest paragraphs."""
    return [Segment(f"{paragraph}\n\n")]


def task(chat: ChatFormat, recalled: Sequence[str], memory: Sequence[str], plan: str) -> list[Segment]:
    """Everything that changes at every step: recalled items, short memory, plan. The paragraph follows."""
    recalled_lines = "".join(f"- {item}\n" for item in recalled) or "(nothing)\n"
    memory_lines = "".join(f"{number}. {sentence}\n" for number, sentence in enumerate(memory, 1)) or "(empty)\n"
    said = f"Recalled:\n{recalled_lines}\nMemory:\n{memory_lines}\nPlan: {plan}"
    return [Segment(said), Segment(chat.reply, mark=True)]


def update(chat: ChatFormat) -> list[Segment]:
    """Asks for the bookkeeping, which follows."""
    return [Segment(chat.next_user, mark=True), Segment(UPDATE_REQUEST), Segment(chat.reply, mark=True)]


def repair(chat: ChatFormat, reply: str, problem: str) -> list[Segment]:
    """A conversation of its own that asks for the bookkeeping once more, showing nothing but the bad reply."""
    said = Segment(f"This answer cannot be used. {problem}\nGive the whole JSON object again, mended.\n\n{reply}")
    if not chat.system:
        return [Segment(chat.start + chat.user, mark=True), said, Segment(chat.reply, mark=True)]
    system = [Segment(chat.start, mark=True), Segment(INSTRUCTIONS)]
    return [*system, Segment(chat.user, mark=True), said, Segment(chat.reply, mark=True)]


def encode(engine: Engine, segments: Sequence[Segment]) -> list[int]:
    """The token ids of a piece of conversation, segment by segment."""
    return [token for segment in segments for token in engine.encode(segment.text, special=segment.mark)]
