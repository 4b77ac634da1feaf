"""A vocabulary knows the bytes of each token as the tokenizer decodes it, and finds tokens by their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from runtime.errors import UnsupportedModel
from runtime.loading import BUNDLED
from runtime.vocabulary import Vocabulary
from tests.runtime.tokenizers import byte_level, word_piece

SPECIAL = ["<unk>", "<s>", "</s>"]
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["\u2581", "a", "b", "\u2581a", "ab", "\u00e9", "\u2581\u2581", "b\u2581a", "\u2581\U0001f600"]


def sentence_piece(kind):
    names = SPECIAL + FALLBACK + WORDS
    if kind == "unigram":
        model = models.Unigram([(name, -1.0) for name in names], unk_id=0, byte_fallback=True)
        decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    elif kind == "without bytes":
        model = models.Unigram([(name, -1.0) for name in names], unk_id=0)
        decoder = decoders.Metaspace()
    else:
        model = models.BPE(vocab={name: token for token, name in enumerate(names)}, merges=[], byte_fallback=True)
        strip = decoders.Strip(" ", 1, 0)
        decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoder
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(["<think>", " z"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def gpt2_with_added(tiny_tokenizer):
    tokenizer = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    tokenizer.add_tokens(["<think>", "   ", "\u4f60\u597d!"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(params=["ember", "gpt2", "llama", "mistral", "unigram", "without bytes"])
def tokenizer(request, tiny_tokenizer):
    if request.param == "ember":
        return AutoTokenizer.from_pretrained(BUNDLED)
    return gpt2_with_added(tiny_tokenizer) if request.param == "gpt2" else sentence_piece(request.param)


def test_the_bytes_of_a_token_are_what_is_decoded_behind_another(tokenizer):
    vocabulary, backend = Vocabulary(tokenizer), tokenizer.backend_tokenizer
    before = backend.token_to_id("a")
    for token in range(len(tokenizer)):
        assert "a" + vocabulary.bytes_of(token).decode(errors="replace") == backend.decode([before, token])


@pytest.mark.parametrize("kind", ["llama", "unigram"])
def test_a_byte_token_is_its_byte(kind):
    vocabulary = Vocabulary(sentence_piece(kind))
    assert [vocabulary.bytes_of(len(SPECIAL) + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_special_tokens_have_no_bytes(tokenizer):
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    assert special
    assert not any(Vocabulary(tokenizer).bytes_of(token) for token in special)


def test_ids_that_only_the_model_has_have_no_bytes(tokenizer):
    assert Vocabulary(tokenizer).bytes_of(len(tokenizer) + 5) == b""


TOKENS = st.lists(st.binary(min_size=1, max_size=4) | st.text("ab\xff", min_size=1, max_size=4).map(str.encode), unique=True)


@settings(deadline=None)
@given(tokens=TOKENS, data=st.data())
def test_tokens_are_found_by_their_bytes(tokens, data):
    vocabulary = Vocabulary(byte_level(*tokens))
    parts = [token[at:to] for token in tokens for at in range(len(token)) for to in range(at + 1, len(token) + 1)]
    piece = data.draw(st.sampled_from(parts) if parts else st.just(b"a"), "a part of a token") + data.draw(
        st.sampled_from([b"", b"\xff", b"a"]), "more"
    )

    def those(found):
        return [token for token, piece in enumerate(tokens) if found(piece)]

    assert sorted(vocabulary.starting_with(piece)) == those(lambda token: token.startswith(piece))
    assert list(vocabulary.containing(piece)) == those(lambda token: piece in token)
    assert sorted(vocabulary.spelling(piece)) == those(lambda token: token == piece)


def test_a_part_of_two_tokens_side_by_side_is_in_neither():
    assert list(Vocabulary(byte_level(b"xa", b"bx", b"xabx")).containing(b"ab")) == [2]


def test_all_tokens_start_with_the_highest_byte_if_they_do():
    assert sorted(Vocabulary(byte_level(b"\xff", b"\xfe", b"\xff\xff")).starting_with(b"\xff")) == [0, 2]


def test_a_tokenizer_of_another_kind_is_refused():
    with pytest.raises(UnsupportedModel, match="neither byte-level nor"):
        Vocabulary(word_piece()).bytes_of(1)
