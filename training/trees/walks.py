"""Open-ended walks: a tool says where to go on, or gives the next item, and nothing says for how long.

The tree has a fixed height and short lists, so that the view at step 500 looks as it did at step 5: it holds `WIDTH ** HEIGHT`
calls, and then its topmost list goes on. Training never writes a walk
out: it draws a view at a random point of one and writes on until the next pruning.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from training.trees.task import Piece, Task, ToolUse, Value, View, dumps, task_pieces
from training.world.lexicon import Lexicon, invent

HEIGHT, WIDTH = 6, 4
HERE = "here"
END = "end"

Sort = Literal["clues", "largest", "last"]
_TOOL = {"clues": "clue", "largest": "item", "last": "item"}
_QUESTIONS = {
    "clues": (
        "Follow the clues from {start} until one says it is here. Where is it?",
        "Start at {start} and go where each clue points until a clue says here. What place is that?",
        "The trail begins at {start}. Where does it end?",
    ),
    "largest": (
        "Take the items one by one until the list ends. Which is the largest?",
        "What is the largest item of the list?",
    ),
    "last": ("Take the items one by one until the list ends. Which is the last?", "What is the last item of the list?"),
}


@dataclass(frozen=True)
class Walk:
    """A walk of `length` tool calls. The tool's answers depend on its seed and the number of the call alone."""

    sort: Sort
    seed: int
    length: int
    words: tuple[str, ...]
    start: str
    wording: int

    @property
    def tool(self) -> str:
        return _TOOL[self.sort]

    @property
    def question(self) -> str:
        return _QUESTIONS[self.sort][self.wording].format(start=self.start)

    @property
    def prompt(self) -> str:
        """What the user says."""
        return f"Tools: {self.tool}\nQuestion: {self.question}"

    def result(self, call: int) -> Value:
        """What the tool answers at its `call`-th call, counted from 1."""
        if call >= self.length:
            return HERE if self.sort == "clues" else END
        rng = random.Random(self.seed * 1_000_003 + call)
        return rng.choice(self.words) if self.sort == "clues" else rng.randint(0, 99)

    def answer(self) -> str:
        """Where the walk ends, or what came of the list."""
        results = [self.result(call) for call in range(1, self.length)]
        if self.sort == "largest":
            return str(max(int(value) for value in results))
        return str(results[-1] if results else self.start)


def draw_walk(rng: random.Random, sort: Sort, length: int, lexicon: Lexicon) -> Walk:
    """A walk whose places are single words; `length` is at least 2."""
    words = tuple(dict.fromkeys(_place(rng, lexicon) for _ in range(40)))
    wording = rng.randrange(len(_QUESTIONS[sort]))
    return Walk(sort, rng.randrange(2**40), max(2, length), words, rng.choice(words), wording)


def step(sort: Sort, state: str, result: Value) -> Task:
    """One call, from what was known before it to what is known after it."""
    if sort == "clues":
        after = f"found {state}" if result == HERE else str(result)
        return Task(f"from {state}", after, ToolUse("clue", {"place": state}, result))
    if result == END:
        after = f"found {state}"
    elif sort == "largest":
        after = str(max(int(state), int(result))) if state != "nothing" else str(result)
    else:
        after = str(result)
    return Task(f"so far {state}", after, ToolUse("item", {}, result))


def done(state: str) -> bool:
    """True once a conclusion says that the walk is over."""
    return state.startswith("found ")


def draw_view(rng: random.Random, sort: Sort, lexicon: Lexicon) -> tuple[str, View]:
    """The prompt, and one view at a random point of a walk: what is left after a pruning, and what is written until the next.

    A pruning has just closed a task on some level (more often on a low one, as in a real walk); on every level above it stands a
    random number of finished tasks.
    """
    walk = draw_walk(rng, sort, 2, lexicon)
    state = walk.start if sort == "clues" else "nothing"
    if rng.random() < 0.1:
        return walk.prompt, _write_on(rng, walk, View(""), '{"reasoning":[', HEIGHT - 1, state)
    closed = rng.choices(range(1, HEIGHT), [3.0 ** (HEIGHT - level) + 20 for level in range(1, HEIGHT)])[0]
    text = '{"reasoning":['
    for level in range(HEIGHT - 1, closed, -1):
        for _ in range(rng.randrange(WIDTH)):
            state = _next_state(rng, walk, state)
            text += _finished(level, state) + ","
        text += _open(level)
    count = rng.randint(1, WIDTH)
    over = rng.random() < 0.15
    for number in range(1, count + 1):
        state = _next_state(rng, walk, state)
        if over and number == count:
            state = f"found {state}"
        text += _finished(closed, state) + ("," if number < count else "")
    view = View(text)
    if closed == HEIGHT - 1 and done(state):
        view.target.append(Piece(f'],"answer":{dumps(state.removeprefix("found "))}}}'))
    elif done(state) or (count == WIDTH and closed < HEIGHT - 1):
        view.target.append(Piece(f'],"conclusion":{dumps(state)}}}'))
    else:
        _write_on(rng, walk, view, ",", closed, state)
    return walk.prompt, view


def _write_on(rng: random.Random, walk: Walk, view: View, text: str, level: int, state: str) -> View:
    """Open tasks from `level` down to the calls, make calls until their list is full or the walk is over, close the list."""
    text += "".join(_open(below) for below in range(level, 0, -1))
    last = rng.randint(1, WIDTH) if rng.random() < 0.25 else WIDTH + 1
    for number in range(1, WIDTH + 1):
        result: Value
        if number == last and (state != "nothing" or number > 1):
            result = HERE if walk.sort == "clues" else END
        else:
            result = rng.choice(walk.words) if walk.sort == "clues" else rng.randint(0, 99)
        call = step(walk.sort, state, result)
        state = call.conclusion
        view.target += [Piece(text), *task_pieces(call)]
        text = ","
        if done(state):
            break
    view.target.append(Piece(f'],"conclusion":{dumps(state)}}}'))
    return view


def _next_state(rng: random.Random, walk: Walk, state: str) -> str:
    if walk.sort == "clues":
        return rng.choice(walk.words)
    if walk.sort == "last" or state == "nothing":
        return str(rng.randint(0, 99))
    # The largest of very many items is near the top, and seldom changes.
    return str(max(int(state), rng.randint(0, 99) if rng.random() < 0.4 else 0))


def _open(level: int) -> str:
    return f'{{"thought":{dumps(f"level {level}")},"subtasks":['


def _finished(level: int, state: str) -> str:
    return f'{{"thought":{dumps(f"level {level}")},"subtasks":[],"conclusion":{dumps(state)}}}'


def _place(rng: random.Random, lexicon: Lexicon) -> str:
    if rng.random() < 0.3:
        return invent(rng, 2)
    return lexicon.place().name.split()[-1].lower()
