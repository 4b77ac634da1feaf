"""Structured output: a grammar enforced token by token by llguidance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask, fill_next_token_bitmask_par
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from runtime.arrays import Bools
from runtime.errors import EngineError, GrammarStuck, InvalidGrammar, TokenRefused, UnsupportedSchema, first_line
from runtime.grammars.json_schema import JsonSchema, reason
from runtime.grammars.schema import Choices, Ebnf, Regex, Schema

# How many grammars are kept compiled.
_KEPT = 64
# From so many tokens on, over all rows, masks are left to another thread.
_WORTH_A_THREAD = 100_000


class GrammarCompiler:
    """Makes grammars for the vocabulary of one model (built once per engine, about a second for 100,000 tokens)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, eos_ids: Sequence[int]) -> None:
        self.vocab_size = vocab_size
        self._eos_ids = list(eos_ids)
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=self._eos_ids or None)
        names = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
        self._special = [name for name, special in names.items() if special or name[:1] + name[-1:] == "<>"]
        self._kept = lru_cache(_KEPT)(self._compile)

    def compile(self, schema: Schema) -> Grammar:
        """A grammar at its beginning. JSON is written without white space, its keys in the order of the schema.

        Strings hold no control characters but those with an escape of one letter, and times no leap seconds.

        Raises:
            UnsupportedSchema: with the keyword of a JSON schema that cannot be enforced, and its place.
            InvalidGrammar: for a regular expression, choices or an EBNF grammar that cannot be used.
        """
        return Grammar(self._kept(_key(schema)).deep_copy(), self.vocab_size)

    def masks(self, grammars: Sequence[Grammar | None]) -> Bools:
        """The tokens that each grammar allows next, `[len(grammars), vocab]`; every token for None.

        The rows are filled by several threads. A row without a token belongs to a grammar whose `check` says why it is stuck.
        """
        bits = allocate_token_bitmask(len(grammars), self.vocab_size)
        rows = [(grammar.matcher, row) for row, grammar in enumerate(grammars) if grammar is not None]
        if rows:
            fill_next_token_bitmask_par(self._executor, rows, bits)
        for matcher, row in rows:
            if matcher.is_error():
                bits[row] = 0
        return _unpack(bits, self.vocab_size)

    def masks_ahead(self, grammars: Sequence[Grammar | None]) -> Callable[[], Bools]:
        """`masks`, computed in another thread while the model's forward runs. Leave the grammars alone until the call is made.

        What takes less time than to wake a thread is computed at once.
        """
        if len(grammars) * self.vocab_size < _WORTH_A_THREAD:
            found = self.masks(grammars)
            return lambda: found
        return self._thread.submit(self.masks, list(grammars)).result

    def _compile(self, schema: str | Regex | Choices | Ebnf) -> LLMatcher:
        """The matcher of a grammar at its beginning; a string is the text of a JSON schema."""
        if isinstance(schema, str):
            read = JsonSchema.read(json.loads(schema))
            self._check_special(read.grammar, UnsupportedSchema)
            return self._matcher(read.grammar, read.fault)
        if not isinstance(schema, Ebnf):
            self._check_special(str(schema), InvalidGrammar)
        return self._matcher(_grammar(schema), lambda complaint: InvalidGrammar(f"{schema} cannot be used: {complaint}."))

    def _matcher(self, grammar: str, error: Callable[[str], EngineError]) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise error(reason(matcher.get_error()))
        first = self.masks([Grammar(matcher, self.vocab_size)])[0]
        first[self._eos_ids] = False
        if not first.any() and not matcher.is_accepting():
            raise error("nothing fulfils it")
        return matcher

    def _check_special(self, text: str, error: type[EngineError]) -> None:
        """The library takes such a name for the token when it is forced, and the grammar then refuses the token."""
        for name in self._special:
            if name in text:
                raise error(f"'{name}' is a special token of this model, which cannot be written as text: leave it out.")

    @cached_property
    def _executor(self) -> LLExecutor:
        return LLExecutor()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="grammar")


class Grammar:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self.matcher = matcher
        self._vocab_size = vocab_size

    @property
    def finished(self) -> bool:
        """True when nothing but the end of the text may follow; after some numbers only the mask shows that."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    @property
    def can_end(self) -> bool:
        """True when the text may end here."""
        return self.matcher.is_accepting()

    def forced(self) -> list[int]:
        """Take and return the tokens that must come next whatever the model thinks (jump-forward)."""
        tokens = self.matcher.compute_ff_tokens()
        if tokens:
            self.accept(*tokens)
        return tokens

    def accept(self, *ids: int) -> None:
        """Take tokens of the text, sampled or given. Raises `TokenRefused`, changing nothing, where one is not allowed."""
        taken = self.matcher.try_consume_tokens(list(ids))
        if taken < len(ids):
            self.rollback(taken)
            self.check()
            raise TokenRefused(
                f"The schema does not allow token {ids[taken]} behind {taken} of the {len(ids)} given: ask allows() first."
            )

    def allows(self, ids: Sequence[int]) -> bool:
        """Whether these tokens may follow, one after the other. Nothing changes."""
        return self.matcher.validate_tokens(list(ids)) == len(ids)

    def mask(self, logits: Tensor) -> Tensor:
        """The logits (`[vocab]`, on the CPU) with -inf for every token that is not allowed now. Raises `GrammarStuck`."""
        bits = allocate_token_bitmask(1, self._vocab_size)
        fill_next_token_bitmask(self.matcher, bits)
        self.check()
        return logits.masked_fill(torch.from_numpy(~_unpack(bits, self._vocab_size)[0]), -torch.inf)

    def fork(self) -> Grammar:
        """A second grammar that stands where this one does."""
        return Grammar(self.matcher.deep_copy(), self._vocab_size)

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens that were accepted or forced."""
        done = self.matcher.rollback(count)
        assert done, reason(self.matcher.get_error())

    def check(self) -> None:
        """Raise `GrammarStuck` if the grammar cannot go on."""
        if self.matcher.is_error():
            raise GrammarStuck(
                f"The text is not complete, and no token may follow ({reason(self.matcher.get_error())}): ask for a simpler schema."
            )


def _key(schema: Schema) -> str | Regex | Choices | Ebnf:
    """What a grammar is kept by: itself, or the text of a JSON schema."""
    if isinstance(schema, Regex | Choices | Ebnf):
        return schema
    asked: Any = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
    if not isinstance(asked, Mapping):
        raise InvalidGrammar(
            f"{asked!r} is not a JSON schema as a mapping, a pydantic model, Regex, Choices or Ebnf: give one."
        )
    try:
        return json.dumps(asked, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as fault:
        raise UnsupportedSchema(f"This JSON schema cannot be read: {first_line(fault)}.") from fault


def _grammar(schema: Regex | Choices | Ebnf) -> str:
    """What llguidance's matcher takes."""
    if isinstance(schema, Regex):
        return LLMatcher.grammar_from_regex(schema.pattern)
    if isinstance(schema, Choices):
        return llguidance.grammar_from("choice", json.dumps(schema.options))
    try:
        return llguidance.grammar_from("ebnf", schema.text)
    except ValueError as fault:
        raise InvalidGrammar(f"This EBNF grammar cannot be read: {first_line(fault)}.") from fault


def _unpack(bits: NDArray[np.int32], vocab_size: int) -> Bools:
    """One bit per token, `[rows, words]`, as bool `[rows, vocab]`."""
    return np.unpackbits(bits.view(np.uint8), axis=1, count=vocab_size, bitorder="little").view(np.bool_)
