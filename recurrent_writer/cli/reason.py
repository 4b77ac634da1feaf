"""`recurrent-writer reason` and `replay`: answer a question by a tree of tasks, and look at one again."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live

from recurrent_writer.cli.console import remark, stderr, visible
from recurrent_writer.cli.engine import load_engine
from recurrent_writer.errors import InvalidQuestion

if TYPE_CHECKING:
    from runtime import Run

_REDRAWS = 8  # a second


class Show(StrEnum):
    """What is printed."""

    answer = "answer"
    tree = "tree"
    json = "json"


class Keep(StrEnum):
    """How many finished lists of subtasks stay."""

    none = "0"
    one = "1"
    two = "2"
    all = "all"


class ModeName(StrEnum):
    """What dropping a list does to the tokens behind it."""

    exact = "exact"
    gap = "gap"
    rotate = "rotate"


_Show = Annotated[Show, typer.Option(help="The answer alone, the tree as it grows (on stderr) and the answer, or all as JSON.")]


def reason(
    question: Annotated[str, typer.Argument(help="What shall be answered.")],
    tools: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="calc|FILE.py[:NAME]", help="A calculator, or typed functions of a Python file."),
    ] = None,
    servers: Annotated[
        list[str] | None, typer.Option("--mcp", metavar="COMMAND|URL", help="An MCP server, all of whose tools are offered.")
    ] = None,
    show: _Show = Show.answer,
    keep: Annotated[Keep, typer.Option(help="How many finished lists of subtasks stay in the context.")] = Keep.none,
    mode: Annotated[ModeName, typer.Option(help="What dropping a list does to the tokens behind it.")] = ModeName.exact,
    record: Annotated[Path | None, typer.Option(help="Write the run to this file, for `replay`.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Give up after so many tokens.")] = 20_000,
    seed: Annotated[int | None, typer.Option(min=0, help="Draw tokens at random, with this seed; greedy if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="A folder or a Hugging Face id; the bundled model if left out.")] = None,
) -> None:
    """Answer a question by a tree of tasks, with tools; the answer goes to stdout."""
    if not question.strip():
        raise InvalidQuestion("The question is empty: say what shall be answered.")
    functions = [function for name in tools or () for function in _functions(name)]
    from runtime import McpServer, Sampling

    sampling = Sampling(max_tokens=max_tokens, temperature=0 if seed is None else 1.0, seed=seed)
    with ExitStack() as stack:
        offered: list[Any] = [*functions]
        for server in servers or ():
            offered += stack.enter_context(_server(McpServer, server)).tools
        engine = stack.enter_context(load_engine(model))
        run = engine.reason(
            question,
            offered,
            keep=None if keep is Keep.all else int(keep),
            mode=mode.value,
            sampling=sampling,
            record=record,
        )
        if show is Show.tree:
            _watch(run)
        run.run()
    _print(run, show)


def replay(
    recording: Annotated[Path, typer.Argument(help="A file that `reason --record` wrote.")], show: _Show = Show.tree
) -> None:
    """Show a recorded run again; no model is needed."""
    from runtime.tasks.drawing import draw
    from runtime.tasks.recording import read_recording
    from runtime.tasks.recording import replay as run_again
    from runtime.tasks.tree import Tree

    found = read_recording(recording)
    if found.torn:
        remark(f"The last line of {recording} is not whole, and was left out.")
    tree = Tree()
    for _, events in run_again(found):
        for event in events:
            tree.apply(event)
    if show is Show.tree and found.steps:
        last = found.steps[-1]
        stderr.print(draw(tree, emitted=last.emitted, resident=last.resident, seconds=last.seconds))
    _print_tree(tree, show)


def _watch(run: Run) -> None:
    """The living tree, with what it costs."""
    from runtime.tasks.drawing import draw

    def picture(height: int | None) -> Any:
        stats = run.stats
        return draw(
            run.tree, emitted=stats.emitted_tokens, resident=stats.resident_tokens, seconds=stats.seconds, height=height
        )

    if not stderr.is_terminal:
        run.run()
        stderr.print(picture(None))
        return
    with Live(console=stderr, get_renderable=lambda: picture(stderr.height - 1), refresh_per_second=_REDRAWS, transient=True):
        run.run()
    stderr.print(picture(None))


def _print(run: Run, show: Show) -> None:
    if not run.tree.answered:
        raise InvalidQuestion(
            f"There is no answer after {run.stats.emitted_tokens:,} tokens: allow more with --max-tokens, or ask for less."
        )
    _print_tree(run.tree, show)


def _print_tree(tree: Any, show: Show) -> None:
    if show is Show.json:
        text = json.dumps(tree.to_json(), ensure_ascii=False)
    else:
        text = tree.answer if isinstance(tree.answer, str) else json.dumps(tree.answer, ensure_ascii=False)
    print(visible(text))


def _functions(name: str) -> Iterator[Callable[..., Any]]:
    """The tools that an option names."""
    if name == "calc":
        from runtime.tools.calculator import calc

        yield calc
        return
    path, _, wanted = name.partition(".py:")
    file = Path(f"{path}.py" if wanted else name)
    if file.suffix != ".py" or not file.is_file():
        raise InvalidQuestion(f"--tool {name}: say calc, or name a Python file such as tools.py or tools.py:lookup.")
    module = _module(file)
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    own = {
        key: value for key, value in public.items() if callable(value) and getattr(value, "__module__", "") == module.__name__
    }
    if wanted and wanted not in own:
        raise InvalidQuestion(f"--tool {name}: there is no function '{wanted}' in {file}; it has {', '.join(own) or 'none'}.")
    if not own:
        raise InvalidQuestion(f"--tool {name}: there is no function in {file}.")
    yield from [own[wanted]] if wanted else own.values()


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"tools_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        raise InvalidQuestion(f"{file} cannot be loaded ({type(fault).__name__}: {fault}): mend it first.") from fault
    return module


def _server(make: Any, text: str) -> Any:
    if text.startswith(("http://", "https://")):
        return make(url=text)
    try:
        command, *args = shlex.split(text)
    except ValueError as fault:
        raise InvalidQuestion(f"--mcp {text}: that is no command ({fault}): quote it as in a shell.") from fault
    return make(command, args)
