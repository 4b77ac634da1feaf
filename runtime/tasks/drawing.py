"""A tree of tasks, drawn in a terminal by rich."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from rich.text import Text
from rich.tree import Tree as Branch

from runtime.tasks.events import Path
from runtime.tasks.tree import Node, Tree
from runtime.tools import dumps

LEAST_HEIGHT = 8
# No terminal is wider, and nothing longer is looked through at every redraw.
_WIDEST = 500


def draw(tree: Tree, *, emitted: int, resident: int, seconds: float, height: int | None = None) -> Branch:
    """A run as a renderable: a line of figures, the tasks, the answer.

    `emitted` and `resident` count tokens, `seconds` those since the run began. A task has a line each for its text, its call and
    its conclusion; open tasks are bold, and a pruned list is one dim line. Lines end at the width of the terminal. With a `height`
    (in lines, at least 8) the innermost open tasks are seen, then what is nearest to them, the newest first.
    """
    path, top, above = tree.open_nodes, tree.reasoning, 0
    has_answer = tree.answered or bool(tree.answer)
    visible: set[Path] | None = None
    if height is not None:
        room = max(height, LEAST_HEIGHT) - 1 - has_answer
        above = _too_many(path, room)
        if above:
            top, room = path[above - 1].subtasks or [], room - 1
        visible = _choose(path[above:], top, room)
    root = Branch(_line(_figures(tree, emitted, resident, seconds), "bold"), guide_style="dim")
    if above:
        root.add(_line(f"… inside {_count(above, 'task')}", "dim"))
    _add(root, top, visible)
    if has_answer:
        root.add(_line(f"answer: {_text(tree.answer)}", "bold green"))
    return root


def _figures(tree: Tree, emitted: int, resident: int, seconds: float) -> str:
    return f"{emitted:,} tokens written, {resident:,} in memory, {_count(tree.calls, 'tool call')}, {seconds:,.1f} s"


def _add(branch: Branch, tasks: Sequence[Node], visible: set[Path] | None) -> None:
    shown = _shown(tasks, visible)
    if hidden := len(tasks) - len(shown):
        branch.add(_line(f"… {_count(hidden, 'earlier task' if shown else 'task')}", "dim"))
    for node in shown:
        is_open = node.state == "open"
        text = " · ".join(value for name, value in node.fields.items() if name != "conclusion")
        below = branch.add(_line(f"{'▸ ' if is_open else ''}{text or '…'}", "bold yellow" if is_open else ""))
        if call := node.tooluse:
            given = ", ".join(f"{name}={_text(value)}" for name, value in call.parameters.items())
            below.add(_line(f"{call.tool_name}({given}) = {_text(call.result) if call.answered else '…'}", "cyan"))
        if node.subtasks_pruned:
            dropped = f"{_count(len(node.subtasks or []), 'task')} dropped, {_count(node.subtasks_tokens, 'token')}"
            below.add(_line(f"[{dropped}]", "dim"))
        else:
            _add(below, node.subtasks or [], visible)
        if node.conclusion:
            below.add(_line(f"→ {node.conclusion}", "green"))


def _own_lines(node: Node) -> int:
    return 1 + (node.tooluse is not None) + node.subtasks_pruned + bool(node.conclusion)


def _lines(tasks: Sequence[Node], visible: set[Path]) -> int:
    """How many lines `_add` makes of these tasks."""
    shown = _shown(tasks, visible)
    below = sum(_own_lines(node) + (0 if node.subtasks_pruned else _lines(node.subtasks or [], visible)) for node in shown)
    return below + (len(shown) < len(tasks))


def _shown(tasks: Sequence[Node], visible: set[Path] | None) -> Sequence[Node]:
    """The last of these tasks, as far back as they are visible."""
    if visible is None:
        return tasks
    return [*takewhile(lambda node: node.path in visible, reversed(tasks))][::-1]


def _too_many(path: Sequence[Node], room: int) -> int:
    """How many of the open tasks, from the outermost, do not fit even if nothing else is shown."""
    above = 0
    while above < len(path) - 1 and sum(_own_lines(node) + 1 for node in path[above:]) + bool(above) > room:
        above += 1
    return above


def _choose(path: Sequence[Node], top: Sequence[Node], room: int) -> set[Path]:
    """The tasks that are shown in so many lines: the open ones, and as many of the others as fit."""
    visible = {node.path for node in path}
    for node in _nearest(path, top):
        visible.add(node.path)
        if _lines(top, visible) > room:
            visible.remove(node.path)
            break
    return visible


def _nearest(path: Sequence[Node], top: Sequence[Node]) -> Iterator[Node]:
    """The tasks that are not open: siblings of open ones from the innermost list outwards, the newest first; then what is below them."""
    lists = deque([*(node.subtasks or [] for node in reversed(path) if not node.subtasks_pruned), top])
    while lists:
        for node in reversed(lists.popleft()):
            if node.state != "open":
                yield node
                if node.subtasks and not node.subtasks_pruned:
                    lists.append(node.subtasks)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def _line(text: str, style: str) -> Text:
    """One line, whatever the text holds: no markup, no control characters, no line breaks."""
    shown = "".join(character if character.isprintable() else " " for character in text[:_WIDEST])
    return Text(" ".join(shown.split()), style=style, no_wrap=True, overflow="ellipsis")
