"""Problems whose answer is known: arithmetic, chains of look-ups, both mixed, and operators that only a concept explains.

Every problem is solved by rewriting: each step works out the first part that can be worked out, by a tool or by a concept, and
concludes with what is left. So a step needs nothing but the conclusion before it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from training.trees.task import Task, ToolUse, Value, grouped
from training.world.lexicon import Lexicon, invent

HEIGHT, WIDTH = 3, 4
RELATIONS = (
    "friend sister brother teacher neighbour cousin mother father aunt uncle rival master apprentice landlord heir partner "
    "godmother guardian"
).split()
_LARGEST = 999


@dataclass(frozen=True)
class Number:
    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Name:
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Calculation:
    left: Expression
    operator: str
    right: Expression

    def __str__(self) -> str:
        return f"{_inner(self.left)}{self.operator}{_inner(self.right)}"


@dataclass(frozen=True)
class Lookup:
    """The `relation` of somebody: a name, or their age."""

    relation: str
    of: Expression

    def __str__(self) -> str:
        return f"{self.relation} of {self.of}"


@dataclass(frozen=True)
class Concept:
    """An operator whose meaning stands only in the prompt. `body` is what it means for its parameters x and y."""

    word: str
    body: Expression
    parameters: tuple[str, ...]

    @property
    def entry(self) -> str:
        """The concept as a memory would show it."""
        if len(self.parameters) == 2:
            return f"x {self.word} y means {self.body}"
        return f"{self.word} of x means {self.body}"


@dataclass(frozen=True)
class Applied:
    """A concept used: "3 zorp 4", or "zorp of 3"."""

    concept: Concept
    arguments: tuple[Expression, ...]

    def __str__(self) -> str:
        if len(self.arguments) == 2:
            return f"{_inner(self.arguments[0])} {self.concept.word} {_inner(self.arguments[1])}"
        return f"{self.concept.word} of {_inner(self.arguments[0])}"


@dataclass(frozen=True)
class Parameter:
    name: str

    def __str__(self) -> str:
        return self.name


Expression = Number | Name | Calculation | Lookup | Applied | Parameter
Facts = Mapping[tuple[str, str], Value]


@dataclass(frozen=True)
class Problem:
    """A question, what its tools know, and the solution as a tree."""

    question: str
    tools: tuple[str, ...]
    facts: dict[tuple[str, str], Value]
    reasoning: tuple[Task, ...]
    answer: str
    concepts: tuple[str, ...] = ()
    depth: int = 0

    @property
    def prompt(self) -> str:
        """What the user says."""
        concepts = "Concepts:\n" + "".join(f"- {concept}\n" for concept in self.concepts) + "\n" if self.concepts else ""
        return f"{concepts}Tools: {', '.join(self.tools)}\nQuestion: {self.question}"


def arithmetic(rng: random.Random, depth: int) -> Problem:
    """Nested arithmetic; `depth` is how deep the brackets go, the number of calculations between that and twice as many."""
    while True:
        expression = _expression(rng, depth)
        problem = _solve(rng, expression, _ask_number(rng, expression), {}, ("calc",), depth=depth)
        if problem is not None:
            return problem


def lookups(rng: random.Random, hops: int, lexicon: Lexicon) -> Problem:
    """A chain of relations: "Who is the friend of the sister of Ada's teacher?"."""
    facts, chain = _chain(rng, hops, lexicon)
    problem = _solve(rng, chain, _ask_person(rng, chain), facts, ("lookup",), depth=hops)
    assert problem is not None
    return problem


def mixed(rng: random.Random, depth: int, lexicon: Lexicon) -> Problem:
    """Arithmetic over the ages of people who have to be found first."""
    while True:
        facts: dict[tuple[str, str], Value] = {}
        expression = _with_ages(rng, _expression(rng, depth), facts, lexicon)
        problem = _solve(rng, expression, _ask_number(rng, expression), facts, ("calc", "lookup"), depth=depth)
        if problem is not None:
            return problem


def with_concepts(rng: random.Random, lexicon: Lexicon, uses: int) -> Problem:
    """A task with an operator that only one of several concept entries explains."""
    while True:
        concept = _concept(rng)
        others = [_concept(rng) for _ in range(rng.randint(0, 4))]
        facts: dict[tuple[str, str], Value] = {}
        if isinstance(concept.body, Lookup):
            start = lexicon.person().name.split()[0]
            expression: Expression = Name(start)
            for _ in range(uses):
                expression = Applied(concept, (expression,))
            _grow_facts(rng, expression, facts, lexicon)
            question = _ask_person(rng, expression)
        else:
            expression = _number(rng)
            for _ in range(uses):
                arguments = (expression, _number(rng)) if len(concept.parameters) == 2 else (expression,)
                expression = Applied(concept, arguments if rng.random() < 0.5 else tuple(reversed(arguments)))
            question = _ask_number(rng, expression)
        if len({entry.word for entry in (concept, *others)}) <= len(others):
            continue
        tools = ("lookup",) if isinstance(concept.body, Lookup) else ("calc",)
        problem = _solve(rng, expression, question, facts, tools, depth=uses)
        if problem is not None:
            entries = [entry.entry for entry in (concept, *others)]
            rng.shuffle(entries)
            return replace(problem, concepts=tuple(entries))


def without_concepts(problem: Problem) -> Problem:
    """The same task, its concepts taken away: what is right then is luck."""
    return replace(problem, concepts=())


# Solving.


def _solve(
    rng: random.Random,
    expression: Expression,
    question: str,
    facts: dict[tuple[str, str], Value],
    tools: tuple[str, ...],
    depth: int,
) -> Problem | None:
    """The problem with its tree; None if a number in it grows too large."""
    steps: list[Task] = []
    left = expression
    while not isinstance(left, Number | Name):
        left, part, call = _reduce(left, facts)
        if (isinstance(left, Number) and abs(left.value) > _LARGEST) or (call and _too_large(call.tool_result)):
            return None
        steps.append(Task(str(part), str(left), call))
    tree = grouped(steps, HEIGHT, WIDTH)
    offered = list(tools)
    if len(offered) == 1 and rng.random() < 0.3:
        offered.append("calc" if offered == ["lookup"] else "lookup")
    rng.shuffle(offered)
    return Problem(question, tuple(offered), facts, tuple(tree), str(left), depth=depth)


def _too_large(value: Value) -> bool:
    return isinstance(value, int) and abs(value) > _LARGEST


def _reduce(expression: Expression, facts: Facts) -> tuple[Expression, Expression, ToolUse | None]:
    """Work out the first part that can be: what is left, the part, and the call that worked it out (None: a concept)."""
    match expression:
        case Calculation(Number(a), operator, Number(b)):
            value = {"+": a + b, "-": a - b, "*": a * b}[operator]
            return Number(value), expression, ToolUse("calc", {"expression": str(expression)}, value)
        case Calculation(left, operator, right):
            if isinstance(left, Number):
                right, part, call = _reduce(right, facts)
            else:
                left, part, call = _reduce(left, facts)
            return Calculation(left, operator, right), part, call
        case Lookup(relation, Name(name)):
            found = facts[name, relation]
            known: Expression = Name(found) if isinstance(found, str) else Number(found)
            return known, expression, ToolUse("lookup", {"name": name, "relation": relation}, found)
        case Lookup(relation, of):
            of, part, call = _reduce(of, facts)
            return Lookup(relation, of), part, call
        case Applied(concept, arguments):
            for index, argument in enumerate(arguments):
                if not isinstance(argument, Number | Name):
                    argument, part, call = _reduce(argument, facts)
                    return Applied(concept, (*arguments[:index], argument, *arguments[index + 1 :])), part, call
            meant = _substitute(concept.body, dict(zip(concept.parameters, arguments, strict=True)))
            return meant, expression, None
    raise AssertionError(f"nothing to work out in {expression}")


def _substitute(body: Expression, values: Mapping[str, Expression]) -> Expression:
    match body:
        case Parameter(name):
            return values[name]
        case Calculation(left, operator, right):
            return Calculation(_substitute(left, values), operator, _substitute(right, values))
        case Lookup(relation, of):
            return Lookup(relation, _substitute(of, values))
    return body


def _inner(expression: Expression) -> str:
    """The expression as part of another."""
    if isinstance(expression, Number | Name | Parameter):
        return str(expression)
    return f"({expression})"


# Making up.


def _number(rng: random.Random) -> Number:
    return Number(rng.randint(1, 9) if rng.random() < 0.8 else rng.randint(10, 30))


def _operator(rng: random.Random) -> str:
    return rng.choices("+-*", (5, 4, 2))[0]


def _expression(rng: random.Random, depth: int) -> Expression:
    """Brackets `depth` deep, with few enough calculations that a number stays small."""
    expression: Expression = Calculation(_number(rng), _operator(rng), _number(rng))
    for _ in range(depth - 1):
        other: Expression = _number(rng)
        if rng.random() < 0.3:
            other = Calculation(_number(rng), _operator(rng), _number(rng))
        operator = _operator(rng) if isinstance(other, Number) and other.value < 6 else rng.choice("+-")
        pair = (expression, other) if rng.random() < 0.5 else (other, expression)
        expression = Calculation(pair[0], operator, pair[1])
    return expression


def _chain(rng: random.Random, hops: int, lexicon: Lexicon) -> tuple[dict[tuple[str, str], Value], Expression]:
    facts: dict[tuple[str, str], Value] = {}
    expression: Expression = Name(_first_name(lexicon))
    for _ in range(hops):
        expression = Lookup(rng.choice(RELATIONS), expression)
    _grow_facts(rng, expression, facts, lexicon)
    return facts, expression


def _grow_facts(rng: random.Random, expression: Expression, facts: dict[tuple[str, str], Value], lexicon: Lexicon) -> None:
    """Make up what the tools must know for an expression, while working it out."""
    left = expression
    while not isinstance(left, Number | Name):
        try:
            left, _, _ = _reduce(left, facts)
        except KeyError as missing:
            name, relation = missing.args[0]
            facts[name, relation] = rng.randint(5, 80) if relation == "age" else _first_name(lexicon)


def _with_ages(rng: random.Random, expression: Expression, facts: dict[tuple[str, str], Value], lexicon: Lexicon) -> Expression:
    """The expression with some of its numbers replaced by somebody's age."""
    if isinstance(expression, Number):
        if rng.random() < 0.4:
            chain: Expression = Name(_first_name(lexicon))
            for _ in range(rng.randint(0, 2)):
                chain = Lookup(rng.choice(RELATIONS), chain)
            aged = Lookup("age", chain)
            _grow_facts(rng, aged, facts, lexicon)
            return aged
        return expression
    assert isinstance(expression, Calculation)
    left = _with_ages(rng, expression.left, facts, lexicon)
    return Calculation(left, expression.operator, _with_ages(rng, expression.right, facts, lexicon))


def _first_name(lexicon: Lexicon) -> str:
    return lexicon.person().name.split()[0]


def _concept(rng: random.Random) -> Concept:
    word = invent(rng)
    if rng.random() < 0.3:
        body: Expression = Parameter("x")
        for _ in range(rng.randint(1, 3)):
            body = Lookup(rng.choice(RELATIONS), body)
        return Concept(word, body, ("x",))
    parameters = ("x", "y") if rng.random() < 0.65 else ("x",)
    parts: list[Expression] = [Parameter(name) for name in parameters]
    for _ in range(rng.randint(0, 1) + (len(parameters) == 1)):
        parts.append(Number(rng.randint(1, 9)) if rng.random() < 0.7 else Parameter(rng.choice(parameters)))
    rng.shuffle(parts)
    body = parts[0]
    for part in parts[1:]:
        pair = (body, part) if rng.random() < 0.5 else (part, body)
        body = Calculation(pair[0], _operator(rng), pair[1])
    return Concept(word, body, parameters)


def _ask_number(rng: random.Random, expression: Expression) -> str:
    return rng.choice(("What is {}?", "Work out {}.", "{}", "How much is {}?", "Calculate {}.")).format(expression)


def _ask_person(rng: random.Random, expression: Expression) -> str:
    return rng.choice(("Who is the {}?", "Who is {}?", "Find the {}.", "Name the {}.")).format(_spoken(rng, expression))


def _spoken(rng: random.Random, expression: Expression) -> str:
    """A chain as people say it: "friend of the sister of Ada's teacher"."""
    if isinstance(expression, Lookup):
        if isinstance(expression.of, Name) and rng.random() < 0.5:
            return f"{expression.of}'s {expression.relation}"
        inner = _spoken(rng, expression.of)
        the = "the " if isinstance(expression.of, Lookup) and "'s" not in inner.split()[0] and rng.random() < 0.7 else ""
        return f"{expression.relation} of {the}{inner}"
    return str(expression)
