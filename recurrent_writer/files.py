"""Writing files so that a reader, or a crash, sees the old text or the new, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(file: Path, text: str | bytes) -> None:
    """Put `text` (in UTF-8, or bytes as they are) in the place of the file: temporary file, fsync, rename, fsync of the folder."""
    content = text.encode() if isinstance(text, str) else text
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder last (on systems where a folder can be opened)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
