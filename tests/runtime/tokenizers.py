"""Tokenizers whose tokens a test chooses."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode


def byte_level(*pieces):
    """A byte-level tokenizer whose tokens are these byte strings; the last token is special."""
    characters = bytes_to_unicode()
    names = ["".join(characters[byte] for byte in piece) for piece in pieces]
    tokenizer = Tokenizer(models.BPE(vocab={name: token for token, name in enumerate(names)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_piece():
    model = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    model.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=model)
