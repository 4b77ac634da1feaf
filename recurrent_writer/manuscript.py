"""What a person reads of a story: Markdown made from the log, never the other way round yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recurrent_writer.files import replace_file

if TYPE_CHECKING:
    from recurrent_writer.story import Settings, Step

CHAPTER_STEPS = 20


def title(name: str) -> str:
    """A title from the name of a story's folder."""
    return name.replace("-", " ").replace("_", " ").capitalize()


def chapter_text(number: int, steps: Sequence[Step]) -> str:
    """One chapter as Markdown."""
    return f"# Chapter {number}\n\n" + "".join(f"{step.paragraph}\n\n" for step in steps)


def chapters(steps: Sequence[Step]) -> list[tuple[int, Sequence[Step]]]:
    """The steps by chapter, with the chapter's number."""
    return [(at // CHAPTER_STEPS + 1, steps[at : at + CHAPTER_STEPS]) for at in range(0, len(steps), CHAPTER_STEPS)]


def as_markdown(name: str, settings: Settings, steps: Sequence[Step]) -> str:
    """The whole story as one Markdown text."""
    body = "".join(chapter_text(number, part).replace("# ", "## ", 1) for number, part in chapters(steps))
    return f"# {title(name)}\n\n*{' '.join(settings.premise.split())}*\n\n{body}"


def as_text(name: str, steps: Sequence[Step]) -> str:
    """The whole story as plain text."""
    return f"{title(name)}\n\n" + "".join(f"{step.paragraph}\n\n" for step in steps)


def memory_text(steps: Sequence[Step]) -> str:
    """The short memory after the steps, as Markdown."""
    sentences = steps[-1].short_memory if steps else ()
    return "# Short memory\n\n" + "".join(f"- {sentence}\n" for sentence in sentences)


def plans_text(steps: Sequence[Step]) -> str:
    """The plans after the steps, as Markdown."""
    plans = steps[-1].plans if steps else ()
    return "# Plans for the next paragraph\n\n" + "".join(f"{number}. {plan}\n" for number, plan in enumerate(plans, 1))


def project(folder: Path, steps: Sequence[Step], *, every_chapter: bool) -> list[str]:
    """Bring the readable files up to the newest step: its chapter, or every chapter; the short memory; the plans.

    A file that was edited by hand is kept beside the new one, and said in the sentences returned.
    """
    notes: list[str] = []
    for number, part in chapters(steps) if every_chapter else chapters(steps)[-1:]:
        text = chapter_text(number, part)
        before = chapter_text(number, part[:-1]) if part[-1] is steps[-1] else text
        notes += _write(folder / "manuscript" / f"{number:04}.md", text, before)
    notes += _write(folder / "memory" / "short.md", memory_text(steps), memory_text(steps[:-1]))
    notes += _write(folder / "plans.md", plans_text(steps), plans_text(steps[:-1]))
    return notes


def _write(file: Path, text: str, before: str) -> list[str]:
    """Write a file that was `before`. Bytes are compared and kept: an editor may have saved them in any encoding."""
    found = file.read_bytes() if file.exists() else None
    if found == text.encode():
        return []
    notes = []
    if found is not None and found != before.encode():
        number = 1
        while (kept := file.with_name(f"{file.stem}.edited-{number}.md")).exists():
            number += 1
        replace_file(kept, found)
        notes.append(f"{file.name} was changed by hand; your text is kept as {kept.name}.")
    replace_file(file, text)
    return notes
