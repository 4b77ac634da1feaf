"""The program's commands, put together; what goes wrong in them becomes one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from recurrent_writer.cli import doctor, reason, stories, write
from recurrent_writer.cli.console import complain, file_fault
from recurrent_writer.errors import WriterError


class _Program(TyperGroup):
    """The group of all commands. Faults end here: of Ctrl-C and closed pipes Typer makes exit codes without a word."""

    def invoke(self, ctx: Any) -> Any:
        with _one_sentence():
            return super().invoke(ctx)


app = typer.Typer(
    name="recurrent-writer",
    cls=_Program,
    help="Fiction and reasoning without a length limit, on a model that runs on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("write")(write.write)
app.command("reason")(reason.reason)
app.command("replay")(reason.replay)
app.command("doctor")(doctor.doctor)
app.add_typer(stories.app, name="stories")


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    # Threads of torch that wait must not spin: on a machine with other work a step would take several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    if sys.stdout is None:
        _leave(2, "The output is closed: send it to a file, or to /dev/null.")
    with _one_sentence():
        app()


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Leave the process with one sentence and an exit code if something goes wrong inside."""
    try:
        # Raises ImportError where another distribution has taken the name of one of our packages.
        from runtime.errors import EngineError

        yield
        sys.stdout.flush()
    except ModuleNotFoundError as fault:
        _leave(2, f"{fault}: run make story again, or pip install .")
    except ImportError as fault:
        _leave(2, str(fault))
    except (WriterError, EngineError) as fault:
        _leave(2, str(fault))
    except BrokenPipeError:
        _leave(141)
    except OSError as fault:
        _leave(2, file_fault(fault))
    except UnicodeError as fault:
        _leave(2, f"A text or the name of a file is not UTF-8 ({fault}): give it in UTF-8.")
    except KeyboardInterrupt:
        _leave(130, "Stopped. Everything accepted so far is on the disk.")


def _leave(code: int, sentence: str = "") -> NoReturn:
    if sentence:
        with suppress(OSError):
            complain(sentence)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:  # the interpreter would try again at its end, and say so
            with suppress(OSError):
                stream.close()
    sys.exit(code)
