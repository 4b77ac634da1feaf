"""What the model settles after each paragraph: which memory sentences go, which come, and three plans for what is next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recurrent_writer.sentences import straight

PLANS = 3
MAX_DROPS = 6
MAX_ADDS = 4
_SENTENCE_LENGTH = {"minLength": 2, "maxLength": 300}
_WHY_LENGTH = {"minLength": 2, "maxLength": 160}
_PLAN_LENGTH = {"minLength": 8, "maxLength": 500}


class InvalidBookkeeping(ValueError):
    """A reply that is no bookkeeping; the message says what is wrong with it, in words a model can act on."""


@dataclass(frozen=True)
class Drop:
    """A sentence of the short memory that is no longer needed. `number` counts from 1."""

    number: int
    why: str


@dataclass(frozen=True)
class Add:
    """A sentence that has to be remembered."""

    sentence: str
    why: str


@dataclass(frozen=True)
class Bookkeeping:
    """One whole reply. (RecurrentGPT, section 3: the rationale for the memory change, then three plans.)"""

    drop: tuple[Drop, ...]
    add: tuple[Add, ...]
    plans: tuple[str, ...]

    def to_json(self) -> str:
        """As the model writes it: keys in the schema's order, no white space."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def schema(sentences: int) -> dict[str, Any]:
        """The JSON schema of a reply about a short memory of that many sentences."""
        numbers = {"enum": list(range(1, sentences + 1))} if sentences else {"type": "integer"}
        return _object(
            drop={
                "type": "array",
                "maxItems": min(MAX_DROPS, sentences),
                "items": _object(number=numbers, why={"type": "string", **_WHY_LENGTH}),
            },
            add={
                "type": "array",
                "maxItems": MAX_ADDS,
                "items": _object(sentence={"type": "string", **_SENTENCE_LENGTH}, why={"type": "string", **_WHY_LENGTH}),
            },
            plans={"type": "array", "minItems": PLANS, "maxItems": PLANS, "items": {"type": "string", **_PLAN_LENGTH}},
        )

    @staticmethod
    def read(text: str, memory: Sequence[str]) -> Bookkeeping:
        """Read a reply about this short memory. Raises `InvalidBookkeeping`."""
        try:
            reply = json.loads(text)
            drop = tuple(Drop(int(item["number"]), _line(item["why"])) for item in reply["drop"])
            add = tuple(Add(_line(item["sentence"]), _line(item["why"])) for item in reply["add"])
            plans = tuple(_line(plan) for plan in reply["plans"])
        except ValueError as fault:
            raise InvalidBookkeeping(f"The reply is not complete JSON: {fault}.") from fault
        except (KeyError, TypeError, AttributeError) as fault:
            raise InvalidBookkeeping("The reply is not an object with the lists drop, add and plans.") from fault
        numbers = [item.number for item in drop]
        if strange := [number for number in numbers if not 1 <= number <= len(memory)]:
            raise InvalidBookkeeping(f"There is no sentence {strange[0]}: the memory has {len(memory)}.")
        if len(set(numbers)) < len(numbers):
            raise InvalidBookkeeping("A sentence is dropped twice.")
        if not all(item.sentence for item in add):
            raise InvalidBookkeeping("A sentence to add is empty.")
        kept = {sentence for number, sentence in enumerate(memory, 1) if number not in numbers}
        if kept & {item.sentence for item in add} or len({item.sentence for item in add}) < len(add):
            raise InvalidBookkeeping("A sentence to add is in the memory already.")
        if len({plan.casefold() for plan in plans if plan}) != PLANS:
            raise InvalidBookkeeping(f"There have to be {PLANS} plans, each different from the others.")
        return Bookkeeping(drop, add, plans)

    @staticmethod
    def from_dict(payload: Mapping[str, Any]) -> Bookkeeping:
        """From what `dataclasses.asdict` made of one."""
        return Bookkeeping(
            tuple(Drop(**item) for item in payload["drop"]),
            tuple(Add(**item) for item in payload["add"]),
            tuple(payload["plans"]),
        )


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _line(text: str) -> str:
    return straight(" ".join(text.split()))
