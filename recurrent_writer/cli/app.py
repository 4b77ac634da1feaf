"""The program's commands, put together; errors that a user can mend become one sentence and exit code 2."""

from __future__ import annotations

import sys

import typer

from recurrent_writer.cli import doctor, stories, write
from recurrent_writer.cli.console import complain
from recurrent_writer.errors import WriterError

app = typer.Typer(
    name="recurrent-writer",
    help="Fiction and reasoning without a length limit, on a model that runs on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("write")(write.write)
app.command("doctor")(doctor.doctor)
app.add_typer(stories.app, name="stories")


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    try:
        from runtime.errors import EngineError
    except ImportError as fault:  # another distribution has taken the name of one of our packages
        complain(str(fault))
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except (WriterError, EngineError) as fault:
        complain(str(fault))
        sys.exit(2)
    except KeyboardInterrupt:
        complain("Stopped. Everything accepted so far is on the disk.")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
