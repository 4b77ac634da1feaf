"""Measures what a model of ours can do: `python -m training.evaluate`. Prints a table; `--json` keeps it, `--markdown` for the report."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from runtime import Engine
from training.evaluation import facts, free_text, prose, repetition, stories, trees
from training.evaluation.row import Row, Track

SECTIONS = ("stories", "new-words", "memory", "trees", "walks", "long-walks", "free", "repetition", "prose")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="a folder; the bundled model if left out")
    parser.add_argument("--worlds", type=int, default=500, help="worlds for 'stories' and for 'new-words'")
    parser.add_argument(
        "--cases",
        type=int,
        default=100,
        help="cases for each row of 'memory', 'trees' and the walks of 10 calls; of the longer walks a 4th, a 10th, a 40th",
    )
    parser.add_argument("--paragraphs", type=int, default=300, help="length of each story of 'repetition'")
    parser.add_argument("--data", type=Path, default=None, help="training data, to look for copied text")
    parser.add_argument("--books", type=Path, default=None, help="folder of *.jsonl.xz, for the section 'prose'")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to measure; if left out, all that can be")
    parser.add_argument(
        "--json",
        type=Path,
        default=None,
        help="keep the rows in this file; a run that was killed goes on with the sections that it lacks",
    )
    parser.add_argument("--show", type=Path, nargs="+", help="measure nothing; show what --json kept in these files")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args(arguments)
    options.only = options.only or [section for section in SECTIONS if section != "prose" or options.books]
    if "prose" in options.only and not options.books:
        parser.error("the section 'prose' needs --books FOLDER")
    if missing := [str(file) for file in options.show or () if not file.is_file()]:
        parser.error(f"{missing[0]} is not there: name files that --json wrote")
    kept = [row for file in options.show or () for row in _read(file)["rows"]]
    rows = kept or _measure(options)
    if options.markdown:
        print(as_markdown(rows))
    else:
        Console().print(as_table(rows))
    return 0


def _measure(options: argparse.Namespace) -> list[Row]:
    """The wanted sections; what `--json` holds of them already is not measured again."""
    began = time.monotonic()
    with Engine.load(options.model) as engine:
        weights = hashlib.sha256((engine.model_path / "model.safetensors").read_bytes()).hexdigest()[:16]
        setup = {"weights": weights, **{name: getattr(options, name) for name in ("worlds", "cases", "paragraphs")}}
        rows: list[Row] = []
        sections: list[str] = []
        if options.json and options.json.exists():
            kept = _read(options.json)
            if other := [name for name, value in setup.items() if kept[name] != value]:
                raise SystemExit(f"{options.json} was measured with other {' and '.join(other)}: name another file.")
            rows, sections = kept["rows"], kept["sections"]
        for section, found in _sections(engine, options, leave_out=sections):
            rows += found
            sections.append(section)
            if options.json:
                kept = {**setup, "sections": sections, "rows": [asdict(row) for row in rows]}
                options.json.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return rows


def _read(file: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return {**kept, "rows": [Row(**row) for row in kept["rows"]]}


def _sections(engine: Engine, options: argparse.Namespace, leave_out: Collection[str]) -> Iterator[tuple[str, list[Row]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def track(what: str, total: int) -> Callable[[], None]:
            task = progress.add_task(what, total=total)
            return lambda: progress.advance(task)

        for section in SECTIONS:
            if section in options.only and section not in leave_out:
                yield section, list(_section(section, engine, options, track))


def _section(section: str, engine: Engine, options: argparse.Namespace, track: Track) -> Iterator[Row]:
    match section:
        case "stories":
            yield from stories.rows(engine, options.worlds, "train", track)
        case "new-words":
            yield from stories.rows(engine, options.worlds, "held_out", track)
        case "memory":
            yield from facts.rows(engine, options.cases, track)
        case "trees":
            yield from trees.rows(engine, options.cases, track)
        case "walks":
            yield from trees.walk_rows(engine, trees.WALK_CALLS, options.cases, track)
            yield from trees.unpruned_rows(engine, track)
        case "long-walks":
            yield from trees.walk_rows(engine, trees.LONG_WALK_CALLS, options.cases, track)
        case "free":
            yield from free_text.rows(engine, track)
        case "repetition":
            yield from repetition.rows(engine, options.paragraphs, options.data, track)
        case _:
            yield from prose.rows(engine, options.books, track)


def as_table(rows: list[Row]) -> Table:
    """The rows for a terminal."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "reached", "aim", "cases"):
        table.add_column(heading, justify="left" if not heading else "right")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(f"  {row.name}", _value(row), _aim(row), str(row.count), style=None if row.met else "yellow")
    return table


def as_markdown(rows: list[Row]) -> str:
    """The rows for the report."""
    lines = ["| | reached | aim | cases |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row.section}: {row.name} | {_value(row)}{'' if row.met else ' (short)'} | {_aim(row)} | {row.count} |"
        for row in rows
    ]
    return "\n".join(lines)


def _value(row: Row) -> str:
    if row.unit == "%":
        return f"{row.value:.1f} %"
    return f"{row.value:.2f} {row.unit}" if row.value < 10 else f"{row.value:.0f} {row.unit}"


def _aim(row: Row) -> str:
    if row.aim is None:
        return ""
    return f"at least {row.aim:.0f} %" if row.unit == "%" else f"at most {row.aim:.0f} {row.unit}"


if __name__ == "__main__":
    sys.exit(main())
