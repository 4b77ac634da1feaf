"""Shows a world, its story and its steps: `python -m training.world --seed 1`."""

from __future__ import annotations

import argparse
import sys
from itertools import islice

from rich.console import Console
from rich.markup import escape

from training.world.course import Course, TaughtStep
from training.world.state import State


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.world", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6, help="how many steps to show")
    parser.add_argument("--held-out", action="store_true", help="take names and things that training never sees")
    parser.add_argument("--prose", action="store_true", help="the paragraphs alone")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    course = Course(options.seed, "held_out" if options.held_out else "train")
    if not options.prose:
        _show_world(console, course.history.state)
    for number, step in enumerate(islice(course, options.steps), 1):
        if options.prose:
            console.print(escape(step.paragraph) + "\n")
        else:
            _show_step(console, number, step)
    return 0


def _show_world(console: Console, state: State) -> None:
    console.print("[bold]People[/bold]")
    for person in state.people:
        held = [thing.name for thing, found in state.things.items() if found.owner == person]
        console.print(
            f"  {person.name} ({person.pronoun}), a {person.trait} {person.trade}, {state.at[person].at}; has {', '.join(held) or 'nothing'}"
        )
    console.print("[bold]Places[/bold]")
    for place, ways in state.ways.items():
        lying = [f"{thing.name} ({found.way})" for thing, found in state.things.items() if found.owner == place]
        console.print(
            f"  {place.name}: ways to {', '.join(way.name for way in ways)}" + (f"; here: {', '.join(lying)}" if lying else "")
        )
    console.print("[bold]Facts[/bold]")
    for predicate, entities in sorted(state.facts, key=str):
        console.print(f"  {predicate}: {', '.join(entity.name for entity in entities)}")


def _show_step(console: Console, number: int, step: TaughtStep) -> None:
    console.rule(f"step {number}")
    if number == 1:
        console.print(f"[bold]Premise[/bold] {escape(step.premise)}\n[bold]Style[/bold] {step.style}")
    for item in step.recalled:
        console.print(f"[dim]recalled: {escape(item)}[/dim]")
    for index, sentence in enumerate(step.memory, 1):
        console.print(f"[dim]{index}. {escape(sentence)}[/dim]")
    console.print(f"[bold]Plan[/bold] {escape(step.plan)}\n\n{escape(step.paragraph)}\n")
    for drop in step.bookkeeping.drop:
        console.print(f"[red]- {drop.number}[/red] {escape(drop.why)}")
    for add in step.bookkeeping.add:
        console.print(f"[green]+ {escape(add.sentence)}[/green] {escape(add.why)}")
    for plan in step.bookkeeping.plans:
        console.print(f"[blue]? {escape(plan)}[/blue]")


if __name__ == "__main__":
    sys.exit(main())
