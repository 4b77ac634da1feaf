"""Text written under a grammar, token by token, with the tokenizer of the bundled model."""

from __future__ import annotations

import random

import torch
from transformers import AutoTokenizer

from benchmarks.json_schema import MODEL
from runtime.grammars.grammar import GrammarCompiler

TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
EOS = TOKENIZER.eos_token_id
COMPILER = GrammarCompiler(TOKENIZER, len(TOKENIZER), [EOS])
# What ends a string, a list, an object or a number.
CLOSERS = torch.tensor([TOKENIZER.convert_tokens_to_ids(text) for text in '"]},'])


def encode(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def fits(schema, text):
    """Whether the whole text can be written, token by token."""
    grammar = COMPILER.compile(schema)
    for token in encode(text):
        if not COMPILER.masks([grammar])[0, token]:
            return False
        grammar.accept(token)
    return grammar.can_end


def random_text(grammar, seed, length=3000):
    """Text of a model that knows nothing, but likes to come to an end."""
    rng, ids = random.Random(seed), []
    while len(ids) < length:
        ids += grammar.forced()
        allowed = COMPILER.masks([grammar])[0]
        if allowed[EOS] and (rng.random() < 0.5 or allowed.sum() == 1):
            assert grammar.can_end
            return TOKENIZER.decode(ids, clean_up_tokenization_spaces=False)
        allowed[EOS] = False
        closers = CLOSERS[allowed[CLOSERS]]
        near = len(closers) and rng.random() < min(len(ids) / 30, 0.7)
        ids.append(rng.choice((closers if near else allowed.nonzero()[0]).tolist()))
        grammar.accept(ids[-1])
    raise AssertionError(TOKENIZER.decode(ids))
