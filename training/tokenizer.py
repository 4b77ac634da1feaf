"""Ember's tokenizer: byte-level BPE whose tokens never cross the borders at which the runtime prunes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# JSON that every task tree and every bookkeeping repeats: one token each. A list of subtasks begins behind a "[" and ends before
# a "]", and no token holds both sides of such a border.
_SCAFFOLDS = (
    '{"reasoning":[', '],"answer":"', '{"thought":"', ',{"thought":"', '","tooluse":{"tool_name":"', '","parameters":{"',
    '","parameters":{},"tool_result":', '"},"tool_result":', '},"conclusion":"', '","conclusion":"', '","subtasks":[',
    '],"conclusion":"', '{"drop":[', '{"number":', ',{"number":', ',"why":"', '],"add":[', '{"sentence":"', ',{"sentence":"',
    '","why":"', '],"plans":["', '","', '"]}', '"}', '":"',
)  # fmt: skip
_WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})",  # what English joins with an apostrophe
    r" ?\p{L}+",
    r" ?\p{N}",  # digits one by one: numbers are copied and compared digit by digit
    r' ?["{}\[\]]',
    r' ?[^\s\p{L}\p{N}"{}\[\]]+',
    r"\n+",
    r"\s+",
)
_PATTERN = "|".join([*(re.escape(s).replace('\\"', '"') for s in sorted(_SCAFFOLDS, key=len, reverse=True)), *_WORDS])

# ChatML; a system turn is left out, because ember was trained for its few tasks and never to follow instructions.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a vocabulary of this size from texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    # The scaffolds often enough that each becomes one token.
    repeated = [scaffold for scaffold in _SCAFFOLDS for _ in range(200_000 // len(_SCAFFOLDS))]
    tokenizer.train_from_iterator([*texts, *repeated], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
