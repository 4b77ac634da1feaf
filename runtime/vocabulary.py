"""What the tokens of a model are as bytes."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import Decoder
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from runtime.errors import UnsupportedModel

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
_FALLBACK = re.compile("<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """The bytes of each token id, and the ids by their bytes. One per tokenizer; its tables are built when first needed.

    For byte-level tokenizers (GPT-2, Llama 3, Qwen) and for those in the manner of SentencePiece (Llama 2, Mistral). The
    bytes are those that the tokenizer's own decoder makes of a token in the middle of a text; special tokens have none.
    (llguidance can list token bytes too, but leaves the U+2581 in those of a Metaspace decoder, and loses the byte 0xFF.)

    Every method but `bytes_of` returns ids as an int64 array, and raises `UnsupportedModel` for any other tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; none of a special token, and of an id that the model has logits for and the tokenizer no token.

        Raises:
            UnsupportedModel: the tokenizer's tokens are neither byte-level nor in the manner of SentencePiece.
        """
        return self._bytes[token] if token < len(self._bytes) else b""

    def starting_with(self, prefix: bytes) -> NDArray[np.int64]:
        """All tokens whose bytes start with `prefix`, which is not empty; in no order that means anything."""
        # The first byte string behind all that start so: the last byte that can be counted up is, and what follows it left out.
        stem = prefix.rstrip(b"\xff")
        behind = bisect_left(self._sorted, stem[:-1] + bytes([stem[-1] + 1])) if stem else len(self._sorted)
        return self._order[bisect_left(self._sorted, prefix) : behind]

    def spelling(self, piece: bytes) -> NDArray[np.int64]:
        """All tokens whose bytes are exactly `piece`."""
        return self._order[bisect_left(self._sorted, piece) : bisect_right(self._sorted, piece)]

    def containing(self, piece: bytes) -> NDArray[np.int64]:
        """All tokens whose bytes contain `piece`, which is not empty; ascending."""
        text, ends = self._joined
        found = []
        at = text.find(piece)
        while at >= 0:
            token = bisect_right(ends, at)
            if inside := at + len(piece) <= ends[token]:
                found.append(token)
            at = text.find(piece, ends[token] if inside else at + 1)
        return np.array(found, dtype=np.int64)

    @cached_property
    def _bytes(self) -> list[bytes]:
        names = self._tokenizer.get_vocab(with_added_tokens=False)
        added = self._tokenizer.get_added_tokens_decoder()
        spell = _speller(self._tokenizer.decoder)
        found = [b""] * (max([*names.values(), *added]) + 1)
        for name, token in names.items():
            found[token] = spell(name)
        for token, entry in added.items():
            # The name that the decoder sees, which is not the entry's content where that goes through the normalizer.
            shown = self._tokenizer.id_to_token(token)
            found[token] = b"" if entry.special or shown is None else spell(shown)
        return found

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.array(sorted(range(len(self._bytes)), key=self._bytes.__getitem__), dtype=np.int64)

    @cached_property
    def _sorted(self) -> list[bytes]:
        return [self._bytes[token] for token in self._order.tolist()]

    @cached_property
    def _joined(self) -> tuple[bytes, list[int]]:
        """All tokens in one byte string, and where each of them ends."""
        return b"".join(self._bytes), list(accumulate(map(len, self._bytes)))


def _speller(decoder: Decoder | None) -> Callable[[str], bytes]:
    """How to read token names as bytes. The decoder is asked by example, because the same one is composed in many ways."""
    if decoder is not None and decoder.decode(["\u0120"]) == " ":
        return _byte_level
    if decoder is not None and decoder.decode(["a", "\u2581"]) == "a ":
        return _byte_or_text if decoder.decode(["a", "<0x41>"]) == "aA" else _text
    raise UnsupportedModel(
        "The bytes of this tokenizer's tokens cannot be told, for it is neither byte-level nor in the manner of SentencePiece: "
        "leave out banned strings, DRY, XTC and strings in logit_bias, or use another model."
    )


def _byte_level(name: str) -> bytes:
    """Each character stands for a byte (Radford et al. 2019), unless one does not."""
    try:
        return bytes([_BYTES[character] for character in name])
    except KeyError:
        return name.encode()


def _text(name: str) -> bytes:
    return name.replace("\u2581", " ").encode()


def _byte_or_text(name: str) -> bytes:
    byte = _FALLBACK.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else _text(name)
