"""Where stories are kept, and which there are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from recurrent_writer.errors import WriterError

VARIABLE = "RECURRENT_WRITER_STORIES"


def library_folder(chosen: Path | None = None) -> Path:
    """The folder of all stories: the one chosen, else that of the environment variable, else `stories/` of the checkout
    that the program runs from, else the user's data folder. Raises `WriterError` if the one chosen is a file."""
    if variable := chosen or os.environ.get(VARIABLE):
        folder = Path(variable).expanduser()
        if folder.is_file():
            raise WriterError(f"{folder} is a file: name a folder with --stories.")
        return folder
    checkout = Path(__file__).parents[1]
    if (checkout / "stories" / "starters").is_dir():
        return checkout / "stories"
    return Path(platformdirs.user_data_dir("recurrent-writer", appauthor=False)) / "stories"


def story_names(library: Path) -> list[str]:
    """The names of the stories in a library, sorted."""
    return sorted(log.parent.name for log in library.glob("*/events.jsonl"))


def free_name(library: Path, premise: str) -> str:
    """A name for a new story that nobody has yet, from the words of its premise."""
    words = re.findall(r"[a-z0-9]+", premise.lower())[:5]
    stem = "-".join(words)[:60] or "story"
    name, number = stem, 2
    while (library / name).exists():
        name, number = f"{stem}-{number}", number + 1
    return name
