"""What ember learns from: one example is a conversation, of which some pieces are to be learned and the rest is given."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from recurrent_writer import prompt
from recurrent_writer.sentences import windows
from runtime.chat import ChatFormat
from training.books import Book, PlanGuesser
from training.trees import problems, walks
from training.trees.task import Piece, View, views
from training.world.course import Course, TaughtStep
from training.world.lexicon import Lexicon
from training.world.questions import draw_question
from training.world.recollection import ask

END = "<|im_end|>"
CHAT = ChatFormat(
    start="<|im_start|>user\n",
    system=False,
    user="",
    reply="<|im_end|>\n<|im_start|>assistant\n",
    next_user="<|im_end|>\n<|im_start|>user\n",
)


RECENT_WEIGHT = 0.3
"""What the latest paragraphs of a prompt count: they are the same prose, but no plan foretells it."""


HABIT = 1.5
"""The teacher's habit in training: a small model learns a few ways to tell a thing well before it learns all of them badly."""


INVENTED = 0.7
"""The share of made-up words in training, twice that of evaluation: what no model can know by heart has to be read."""


@dataclass(frozen=True)
class Part:
    """A piece of an example, tokenized by itself as the program does. `weight` is what learning it counts: 0 for what is given."""

    text: str
    mark: bool = False
    weight: float = 0.0


@dataclass(frozen=True)
class Example:
    """`kind` says what it teaches ("step", "tree:walk", ...)."""

    kind: str
    parts: tuple[Part, ...]


def step_example(step: TaughtStep) -> Example:
    """A whole step: paragraph, then bookkeeping."""
    parts = [
        *_parts(prompt.opening(CHAT, step.premise, step.style)),
        *(part for paragraph in step.recent for part in _parts(prompt.recent(paragraph), RECENT_WEIGHT)),
        *_parts(prompt.task(CHAT, step.recalled, step.memory, step.plan)),
        Part(step.paragraph, weight=1.0),
        Part(END, mark=True, weight=1.0),
        *_parts(prompt.update(CHAT))[1:],
        Part(step.bookkeeping.to_json(), weight=1.0),
        Part(END, mark=True, weight=1.0),
    ]
    return Example("step", _after_end(parts))


def plan_example(steps: Sequence[TaughtStep]) -> Example:
    """Paragraphs from their plans, one turn each, with nothing else to look at: much is learned from few tokens."""
    parts = _parts(prompt.opening(CHAT, steps[0].premise, steps[0].style))
    for index, step in enumerate(steps):
        if index == 0:
            parts += _parts(prompt.task(CHAT, (), (), step.plan))
        else:
            parts += [
                Part(CHAT.next_user.removeprefix(END), mark=True),
                Part(f"Plan: {step.plan}"),
                Part(CHAT.reply, mark=True),
            ]
        parts += [Part(step.paragraph, weight=1.0), Part(END, mark=True, weight=1.0)]
    return Example("plan", tuple(parts))


def _after_end(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The turn's end is learned as the end of the paragraph; what the template puts behind it is given."""
    found = list(parts)
    index = next(i for i, part in enumerate(found) if part.text == END and part.weight)
    found.insert(index + 1, Part(CHAT.next_user.removeprefix(END), mark=True))
    return tuple(found)


def asked(kind: str, said: str, pieces: Sequence[Piece], context: str = "", *, ends: bool = True) -> Example:
    """A question and its answer, of which `context` was written before."""
    parts = [Part(CHAT.start, mark=True), Part(said), Part(CHAT.reply, mark=True)]
    if context:
        parts.append(Part(context))
    for piece in _joined(pieces):
        parts.append(Part(piece.text, weight=0.0 if piece.given else 1.0))
    if ends:
        parts.append(Part(END, mark=True, weight=1.0))
    return Example(kind, tuple(parts))


def view_examples(kind: str, said: str, found: Sequence[View]) -> Iterator[Example]:
    """One example for each view of a run."""
    for index, view in enumerate(found):
        yield asked(kind, said, view.target, view.context, ends=index == len(found) - 1)


def _parts(segments: Sequence[prompt.Segment], weight: float = 0.0) -> list[Part]:
    return [Part(segment.text, segment.mark, weight) for segment in segments]


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Neighbouring pieces of one hand as one."""
    text, given = "", False
    for piece in pieces:
        if piece.given != given and text:
            yield Piece(text, given)
            text = ""
        text, given = text + piece.text, piece.given
    if text:
        yield Piece(text, given)


class Source:
    """Endless examples of every sort, from one seed."""

    def __init__(self, seed: int, books: Sequence[Book]) -> None:
        self.rng = random.Random(seed)
        self.books = books
        self._guesser = PlanGuesser(books)

    def stories(self) -> Iterator[Example]:
        """Steps of the recurrence, and questions about what the short memory holds."""
        while True:
            course = Course(self.rng.randrange(2**48), habit=HABIT, invented=INVENTED)
            for step in islice(course, self.rng.choice((6, 12, 24, 48))):
                yield step_example(step)
                if self.rng.random() < 0.3:
                    question = draw_question(self.rng, course.memory)
                    if question is not None:
                        yield asked("question", question.prompt, [Piece(question.answer)])

    def plans(self) -> Iterator[Example]:
        """Paragraphs that need nothing but their plan, a few of one story at a time."""
        while True:
            course = Course(self.rng.randrange(2**48), habit=HABIT, invented=INVENTED)
            steps = [step for step in islice(course, self.rng.choice((2, 6, 12))) if not step.required]
            while steps:
                turns = self.rng.randint(1, 7)
                yield plan_example(steps[:turns])
                del steps[:turns]

    def facts(self) -> Iterator[Example]:
        """Steps that need a fact from a while ago, which stands among what was recalled and nowhere else."""
        while True:
            yield step_example(ask(self.rng.randrange(2**48), self.rng.choice((1, 2, 4, 8)), HABIT, INVENTED).step)

    def trees(self) -> Iterator[Example]:
        """Arithmetic, look-ups, both mixed, and concepts; deep ones more often than shallow ones."""
        rng = self.rng
        while True:
            lexicon = Lexicon(rng, invented=INVENTED)
            depth = rng.choices((1, 2, 3, 4, 5, 6), (2, 2, 3, 3, 4, 4))[0]
            match rng.choices(("arithmetic", "lookup", "mixed", "concept"), (4, 3, 2, 4))[0]:
                case "arithmetic":
                    kind, problem = "tree:arithmetic", problems.arithmetic(rng, depth)
                case "lookup":
                    kind, problem = "tree:lookup", problems.lookups(rng, rng.randint(1, 8), lexicon)
                case "mixed":
                    kind, problem = "tree:mixed", problems.mixed(rng, min(depth, 3), lexicon)
                case _:
                    kind, problem = "tree:concept", problems.with_concepts(rng, lexicon, rng.choice((1, 1, 2, 3)))
            found = list(view_examples(kind, problem.prompt, views(problem.reasoning, problem.answer)))
            # The views that only close lists are short and all alike: a few of them are enough.
            yield from (example for example in found if _learned_length(example) > 60 or rng.random() < 0.3)

    def walks(self) -> Iterator[Example]:
        """Views at random points of open-ended walks."""
        rng = self.rng
        while True:
            sort: walks.Sort = rng.choices(("clues", "largest", "last"), (5, 4, 1))[0]
            said, view = walks.draw_view(rng, sort, Lexicon(rng, invented=INVENTED))
            yield asked("tree:walk", said, view.target, view.context, ends=view.target[-1].text.startswith('],"answer"'))

    def prose(self) -> Iterator[Example]:
        """Passages of books as they stand."""
        rng = self.rng
        while True:
            book = rng.choice(self.books)
            start = rng.randrange(max(1, len(book.paragraphs) - 6))
            text = "\n\n".join(book.paragraphs[start : start + rng.randint(3, 6)])
            yield Example("prose", (Part(text, weight=1.0), Part("<|endoftext|>", mark=True, weight=1.0)))

    def book_steps(self) -> Iterator[Example]:
        """Paragraphs of books as the first half of a step, under a plan guessed from them."""
        rng = self.rng
        while True:
            book = rng.choice(self.books)
            if len(book.paragraphs) < 12:
                continue
            at = rng.randrange(8, len(book.paragraphs))
            recent = book.paragraphs[at - rng.randint(0, 2) : at]
            recalled = [book.paragraphs[rng.randrange(at - 3)] for _ in range(rng.randint(0, 2))]
            plan = self._guesser.guess(book.paragraphs[at], rng)
            parts = [
                *_parts(prompt.opening(CHAT, f"{book.title}, by {book.author}.", "old novel")),
                *(part for paragraph in recent for part in _parts(prompt.recent(paragraph), RECENT_WEIGHT)),
                *_parts(prompt.task(CHAT, [windows(text)[0] for text in recalled], (), plan)),
                Part(book.paragraphs[at], weight=1.0),
                Part(END, mark=True, weight=1.0),
            ]
            yield Example("book step", tuple(parts))


def _learned_length(example: Example) -> int:
    return sum(len(part.text) for part in example.parts if part.weight)
