"""`recurrent-writer stories`: which there are, what they say, and taking them elsewhere."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from recurrent_writer import manuscript
from recurrent_writer.cli.console import Screen, file_fault, remark, visible
from recurrent_writer.errors import WriterError
from recurrent_writer.library import library_folder, story_names
from recurrent_writer.story import Story

app = typer.Typer(help="List, show and export stories.", no_args_is_help=True)

Library = Annotated[Path | None, typer.Option("--stories", help="The folder that holds the stories.")]


class Format(StrEnum):
    """What a story can be exported as."""

    md = "md"
    txt = "txt"


@app.command("list")
def list_(stories: Library = None) -> None:
    """The stories of the library, with their length and the beginning of their premise."""
    library = library_folder(stories)
    names = story_names(library)
    if not names:
        remark(f"There is no story in {library} yet: begin one with 'recurrent-writer write --premise TEXT'.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "paragraphs", "last written", "premise"):
        table.add_column(heading, justify="right" if heading == "paragraphs" else "left", no_wrap=heading != "premise")
    for name in names:
        shown_name = Text(visible(name))
        try:
            story = Story.open(library, name)
        except (WriterError, OSError) as fault:
            why = file_fault(fault) if isinstance(fault, OSError) else str(fault)
            table.add_row(shown_name, "?", "", Text(visible(why)))
            continue
        written = story.log.events[-1].time[:16].replace("T", " ")
        premise = story.settings.premise
        shown = premise if len(premise) <= 70 else premise[:69] + "\u2026"
        table.add_row(shown_name, str(len(story.steps)), written, Text(visible(shown)))
    Screen(highlight=False).print(table)


@app.command()
def show(name: str, stories: Library = None) -> None:
    """Print a story."""
    story = _open(stories, name)
    sys.stdout.write(visible(manuscript.as_text(story.name, story.steps)))


@app.command()
def export(
    name: str,
    format_: Annotated[Format, typer.Option("--format", help="Markdown or plain text.")] = Format.md,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; stdout if left out.")] = None,
    stories: Library = None,
) -> None:
    """Write a story out as one text, exactly as it is; a terminal is shown control characters as characters."""
    story = _open(stories, name)
    if format_ is Format.md:
        text = manuscript.as_markdown(story.name, story.settings, story.steps)
    else:
        text = manuscript.as_text(story.name, story.steps)
    if output is None:
        sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as fault:
        raise WriterError(f"{output} cannot be written: {fault.strerror}. Name another file with --output.") from fault
    remark(f"{len(story.steps)} paragraphs written to {output}.")


def _open(stories: Path | None, name: str) -> Story:
    """A story to read; what was found wrong with it is said."""
    story = Story.open(library_folder(stories), name)
    for note in story.notes:
        remark(note)
    return story
