"""Structured output against the public JSON Schema suite (draft 2020-12), and what it costs.

`python -m benchmarks.json_schema` writes every valid instance of every schema that is accepted, token by token under the mask of
the bundled model, and tries every invalid one. The suite is no part of the repository: `--suite`, the variable
`JSON_SCHEMA_SUITE`, or `../shared/data/suites/json-schema-draft2020-12.tar.xz` says where it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from runtime.errors import UnsupportedSchema
from runtime.grammars.grammar import Grammar, GrammarCompiler
from runtime.grammars.json_schema import JsonSchema

ROOT = Path(__file__).parents[1]
NAME = "json-schema-draft2020-12.tar.xz"
MODEL = ROOT / "runtime" / "ember"

# File and test of valid instances that are known to be refused, as regular expressions, and why they are.
REASONS = [
    (r"(const|enum|type)", r"float|\.0\]? is valid", "a whole number is written without a decimal point"),
    (r"optional/float-overflow", r"", "a number with bounds or a step is written without an exponent"),
    (r"format", r"only an annotation", "a format is enforced here, not only noted"),
    (r"optional/format/(date-time|time)", r"leap second", "leap seconds are not written"),
    (r"optional/format/email", r"quoted string|IPv6", "a mailbox is written without quotes, a domain without IPv6"),
    (
        r"optional/ecmascript-regex",
        r"Line tabulation|control",
        "only control characters with an escape of one letter are written",
    ),
]

# What `measure` writes under: tasks that hold tasks, as a reasoning model does.
_TEXT = {"type": "string"}
_CALL = {"tool_name": {"const": "lookup"}, "parameters": {"type": "object", "additionalProperties": _TEXT}, "tool_result": {}}
_TASKS = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/task"}}
TASK_TREE = {
    "type": "object",
    "properties": {"reasoning": _TASKS, "answer": _TEXT},
    "required": ["reasoning", "answer"],
    "additionalProperties": False,
    "$defs": {
        "task": {
            "type": "object",
            "properties": {
                "thought": _TEXT,
                "tooluse": {"type": "object", "properties": _CALL, "required": list(_CALL), "additionalProperties": False},
                "subtasks": _TASKS,
                "conclusion": _TEXT,
            },
            "required": ["thought", "conclusion"],
            "additionalProperties": False,
        }
    },
}


@dataclass(frozen=True)
class Wrong:
    """An instance that did not go as the suite says. Without a reason it is a fault."""

    file: str
    schema: str
    test: str
    fault: str
    reason: str | None


@dataclass
class Row:
    """What came of one file of the suite."""

    file: str
    schemas: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """How many schemas were refused, by keyword."""
    valid: int = 0
    valid_accepted: int = 0
    invalid: int = 0
    invalid_refused: int = 0
    wrong: list[Wrong] = field(default_factory=list)


@dataclass(frozen=True)
class Cost:
    """Microseconds. The least is what it takes on a machine that does nothing else."""

    median: float
    least: float

    @classmethod
    def of(cls, seconds: list[float]) -> Cost:
        return cls(round(median(seconds) * 1e6, 1), round(min(seconds) * 1e6, 1))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.json_schema", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", type=Path, help="the suite's archive")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    suite = options.suite or find_suite()
    if suite is None:
        parser.error(f"there is no {NAME}: say where by --suite, or by JSON_SCHEMA_SUITE")
    tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
    compiler = GrammarCompiler(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    rows = run_suite(suite, compiler, tokenizer)
    costs = measure(compiler, tokenizer)
    show(rows, costs)
    if options.json:
        figures = {
            "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}",
            "microseconds": {name: vars(cost) for name, cost in costs.items()},
            "exceptions": [vars(wrong) for wrong in total(rows).wrong],
            "files": [{**vars(row), "wrong": len(row.wrong)} for row in (total(rows), *rows)],
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(wrong.reason is None for row in rows for wrong in row.wrong))


def find_suite() -> Path | None:
    """Where the archive lies on this machine."""
    places = [os.environ.get("JSON_SCHEMA_SUITE"), ROOT.parent / "shared" / "data" / "suites" / NAME]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def run_suite(suite: Path, compiler: GrammarCompiler, tokenizer: Any) -> list[Row]:
    rows = []
    for file, groups in read_suite(suite):
        row = Row(file)
        for group in groups:
            row.schemas += 1
            # A schema that is true or false is put into one that is a mapping.
            schema = group["schema"] if isinstance(group["schema"], dict) else {"allOf": [group["schema"]]}
            try:
                grammar = compiler.compile(schema)
            except UnsupportedSchema as refusal:
                named = re.search(r"'(\S+)' at", str(refusal))
                row.refused[named[1] if named else str(refusal)] += 1
                continue
            row.accepted += 1
            for test in group["tests"]:
                _run_test(row, group["description"], test, grammar, JsonSchema.read(schema).root, compiler, tokenizer)
        rows.append(row)
    return rows


def read_suite(suite: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The files by name, and the groups of tests in each."""
    with tarfile.open(suite) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".json"):
                yield member.name.partition("draft2020-12/")[2].removesuffix(".json"), json.load(file)


def _run_test(
    row: Row,
    schema: str,
    test: dict[str, Any],
    grammar: Grammar,
    root: dict[str, Any],
    compiler: GrammarCompiler,
    tokenizer: Any,
) -> None:
    ordered = in_order(test["data"], root)
    if test["valid"]:
        row.valid += 1
        good = writes(grammar.fork(), _encode(tokenizer, ordered), compiler)
        row.valid_accepted += good
    else:
        row.invalid += 1
        spellings = [_encode(tokenizer, value, plain) for value in (ordered, test["data"]) for plain in (False, True)]
        good = not any(writes(grammar.fork(), ids, compiler) for ids in spellings)
        row.invalid_refused += good
    if not good:
        fault = "valid, but refused" if test["valid"] else "invalid, but accepted"
        reasons = (why for file, name, why in REASONS if re.fullmatch(file, row.file) and re.search(name, test["description"]))
        row.wrong.append(Wrong(row.file, schema, test["description"], fault, next(reasons, None) if test["valid"] else None))


def _encode(tokenizer: Any, value: Any, plain: bool = False) -> list[int]:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=plain)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def writes(grammar: Grammar, ids: list[int], compiler: GrammarCompiler) -> bool:
    """Whether a model could write these tokens under the grammar's masks, and end there."""
    for token in ids:
        if not compiler.masks([grammar])[0, token]:
            return False
        grammar.accept(token)
    return grammar.can_end


def in_order(value: Any, root: dict[str, Any]) -> Any:
    """The same value with its keys in the order in which a schema (as `JsonSchema.read` gives it) names them, others behind."""
    return _ordered(value, [root], root.get("$defs", {}))


def _ordered(value: Any, schemas: list[Any], definitions: dict[str, Any]) -> Any:
    parts = list(_parts(schemas, definitions, frozenset()))
    if isinstance(value, list):
        return [_ordered(item, [_item(part, index) for part in parts], definitions) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    names = [name for part in parts for name, asked in part.get("properties", {}).items() if asked is not False]
    names += [
        name for part in parts for only in part.get("enum", [part.get("const")]) if isinstance(only, dict) for name in only
    ]
    names += [name for part in parts for name in part.get("required", ())]
    return {
        name: _ordered(value[name], [_property(part, name) for part in parts], definitions)
        for name in sorted(value, key=lambda name: names.index(name) if name in names else len(names))
    }


def _parts(schemas: list[Any], definitions: dict[str, Any], seen: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Every subschema that speaks of the same value, as they come."""
    for schema in schemas:
        told = isinstance(schema, bool)
        for keyword, asked in () if isinstance(schema, bool) else schema.items():
            if keyword == "$ref" and asked not in seen:
                yield from _parts([definitions[asked.rpartition("/")[2]]], definitions, seen | {asked})
            elif keyword in ("allOf", "anyOf"):
                yield from _parts(asked, definitions, seen)
            elif not told:
                told = True
                yield schema


def _property(schema: dict[str, Any], name: str) -> Any:
    return schema.get("properties", {}).get(name, schema.get("additionalProperties", True))


def _item(schema: dict[str, Any], index: int) -> Any:
    first = schema.get("prefixItems", [])
    return first[index] if index < len(first) else schema.get("items", True)


def measure(compiler: GrammarCompiler, tokenizer: Any) -> dict[str, Cost]:
    """What the steps of a task tree of some 200 tokens cost."""
    call = {"tool_name": "lookup", "parameters": {"name": "Ada", "relation": "brother"}, "tool_result": "Bram"}
    task = {"thought": "Who hid the key?", "tooluse": call, "conclusion": "It is Bram."}
    tree = {"reasoning": [{"thought": "First, her brother.", "subtasks": [task] * 3, "conclusion": "Bram."}], "answer": "Bram"}
    ids = _encode(tokenizer, tree)
    grammar, walk = compiler.compile(TASK_TREE), []
    for token in ids:
        walk.append((grammar.fork(), token))
        grammar.accept(token)
    assert grammar.finished
    batches = [[walk[(at + 7 * row) % len(walk)][0] for row in range(16)] for at in range(len(walk))]
    fresh = GrammarCompiler(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    return {
        "compile": _times(lambda run: fresh.compile({**TASK_TREE, "title": str(run)}), range(50)),
        "compile again": _times(lambda run: compiler.compile(TASK_TREE), range(50)),
        "mask of 1 row": _times(lambda place: compiler.masks([place[0]]), walk),
        "masks of 16 rows": _times(compiler.masks, batches),
        "forced tokens": _times(lambda place: place[0].forced(), [(grammar.fork(), token) for grammar, token in walk]),
        "accept a token": _times(lambda place: place[0].accept(place[1]), [(grammar.fork(), token) for grammar, token in walk]),
        "masks of 16 rows, begun before a forward": Cost.of([_visible(compiler, batch) for batch in batches]),
    }


def _times(function: Callable[[Any], object], arguments: Iterable[Any]) -> Cost:
    seconds = []
    for argument in arguments:
        began = time.perf_counter()
        function(argument)
        seconds.append(time.perf_counter() - began)
    return Cost.of(seconds)


def _visible(compiler: GrammarCompiler, batch: list[Grammar]) -> float:
    """What beginning masks and waiting for them takes, with 2 ms and more of matrix product between."""
    weight = torch.ones(512, 512)
    began = time.perf_counter()
    masks = compiler.masks_ahead(batch)
    begun = time.perf_counter()
    weight @ weight
    multiplied = time.perf_counter()
    masks()
    return begun - began + time.perf_counter() - multiplied


def show(rows: list[Row], costs: dict[str, Cost]) -> None:
    table = Table(
        "file", "schemas", "accepted", "refused up front, by keyword", "valid accepted", "invalid refused", "exceptions"
    )
    for column in (*table.columns[1:3], *table.columns[4:]):
        column.justify = "right"
    for row in rows:
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(total(rows)))
    console = Console(width=max(130, Console().width), highlight=False)
    console.print(table)
    wrong = total(rows).wrong
    for reason in dict.fromkeys(each.reason for each in wrong):
        console.print(f"\n[bold]{reason or 'for no known reason'}[/bold]")
        for each in wrong:
            if each.reason == reason:
                console.print(f"  {each.file}, {each.schema}: {each.test} ({each.fault})", markup=False, soft_wrap=True)
    console.print()
    for name, cost in costs.items():
        console.print(f"{name}: {cost.median:.0f} \u00b5s (least {cost.least:.0f})")


def total(rows: list[Row]) -> Row:
    whole = Row("all")
    for row in rows:
        whole.refused += row.refused
        whole.wrong += row.wrong
        for name in ("schemas", "accepted", "valid", "valid_accepted", "invalid", "invalid_refused"):
            setattr(whole, name, getattr(whole, name) + getattr(row, name))
    return whole


def _cells(row: Row) -> list[str]:
    refused = ", ".join(f"{keyword} {count}" for keyword, count in row.refused.most_common())
    valid, invalid = f"{row.valid_accepted}/{row.valid}", f"{row.invalid_refused}/{row.invalid}"
    return [row.file, str(row.schemas), str(row.accepted), refused, valid, invalid, str(len(row.wrong) or "")]


if __name__ == "__main__":
    sys.exit(main())
