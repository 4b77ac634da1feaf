"""Structured output: a JSON schema enforced token by token by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from runtime.errors import UnsupportedSchema


class GrammarCompiler:
    """Makes matchers for the vocabulary of one model (built once per engine, about a second for 100,000 tokens)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, eos_ids: Sequence[int]) -> None:
        self.vocab_size = vocab_size
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=list(eos_ids) or None)

    def compile(self, schema: Mapping[str, Any]) -> Grammar:
        """A fresh matcher for a JSON schema, without white space. Raises `UnsupportedSchema` with llguidance's reason."""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema), defaults={"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
            )
        except ValueError as fault:
            raise UnsupportedSchema(f"This JSON schema cannot be read: {fault}") from fault
        matcher = llguidance.LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise UnsupportedSchema(f"This JSON schema cannot be enforced: {matcher.get_error().splitlines()[0]}")
        return Grammar(matcher, self.vocab_size)


class Grammar:
    """Where one generation stands in its schema."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._bitmask = allocate_token_bitmask(1, vocab_size)
        self._vocab_size = vocab_size

    @property
    def finished(self) -> bool:
        """True when nothing but the end of the text may follow."""
        return self._matcher.is_stopped()

    def forced(self) -> list[int]:
        """Take and return the tokens that must come next whatever the model thinks (jump-forward)."""
        tokens = self._matcher.compute_ff_tokens()
        if tokens:
            self._matcher.consume_tokens(tokens)
        return tokens

    def mask(self, logits: Tensor) -> Tensor:
        """The logits (`[vocab]`) with -inf for every token that the schema does not allow now."""
        fill_next_token_bitmask(self._matcher, self._bitmask)
        allowed = np.unpackbits(self._bitmask.view(np.uint8), bitorder="little")[: self._vocab_size]
        return logits.masked_fill(torch.from_numpy(allowed == 0), -torch.inf)

    def accept(self, token: int) -> None:
        """Take the token that was chosen under `mask`."""
        accepted = self._matcher.consume_token(token)
        assert accepted, self._matcher.get_error()
