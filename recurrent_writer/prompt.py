"""What the model reads: the words of every block, in the order stable text first, changing text last.

    [instructions, premise, style] [recent paragraphs] [recalled] [short memory] [plan] -> paragraph -> [request] -> bookkeeping

The bundled model was trained on exactly these blocks, without the instructions (its chat template leaves them out).
"""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_STYLE = "plain tale, third person, past tense"
OPENING_PLAN = "Begin the story: show who it is about, where they are, and what they want."

CONTINUE_PLAN = "Go on with the story from where the last paragraph ends."

INSTRUCTIONS = """\
You are a novelist who writes a long story one paragraph at a time. What you know of it is in front of you: the premise and the \
style, the latest paragraphs, some things recalled from much earlier, a short memory of numbered sentences, and a plan.

When you are given a plan, write the next paragraph of the story and nothing else: five to twelve sentences of prose that carry \
out the plan, follow from the latest paragraphs, and contradict nothing in the memory. Only a new chapter of a long book: do not \
hurry, and do not end the story. No headings, no comments.

When you are asked to update the memory, answer with one JSON object:
{"drop":[{"number":2,"why":"..."}],"add":[{"sentence":"...","why":"..."}],"plans":["...","...","..."]}
drop: the numbers of memory sentences that are no longer true or no longer needed, each with a short reason. add: what the new \
paragraph brought that later ones must know, as short sentences with names instead of pronouns, each with a reason. The memory \
never holds more than twenty sentences. plans: three different plans for the next paragraph, one to three sentences each, that \
say who does what, where, and with what. Write in the language of the story."""

UPDATE_REQUEST = "Update the memory and give three plans."


def premise_block(premise: str, style: str) -> str:
    """The stable beginning of what the user says."""
    return f"Premise: {premise}\nStyle: {style}\n\nStory so far:\n"


def paragraph_block(paragraph: str) -> str:
    """One of the latest paragraphs."""
    return f"{paragraph}\n\n"


def memory_block(recalled: Sequence[str], memory: Sequence[str], plan: str) -> str:
    """Everything that changes at every step: recalled items, short memory, plan."""
    recalled_lines = "".join(f"- {item}\n" for item in recalled) or "(nothing)\n"
    memory_lines = "".join(f"{number}. {sentence}\n" for number, sentence in enumerate(memory, 1)) or "(empty)\n"
    return f"Recalled:\n{recalled_lines}\nMemory:\n{memory_lines}\nPlan: {plan}"


def repair_request(reply: str, problem: str) -> str:
    """Asks for a bookkeeping reply once more, showing nothing but the bad one."""
    return f"This answer cannot be used. {problem}\nGive the whole JSON object again, mended.\n\n{reply}"
