"""Text in pieces is the same text, whatever a tokenizer puts before a piece that it reads alone."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from runtime import Engine, Sampling
from tests.conftest import make_it_say

SPACE = "\u2581"
SPACERS = {
    "first": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="first")),
    "always": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="always")),
    "normalizer": lambda t: setattr(
        t, "normalizer", normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    ),
}


@pytest.fixture(scope="module", params=SPACERS)
def spaced(request, make_checkpoint, tmp_path_factory):
    """An engine whose tokenizer puts a space before every text, as those of Llama 2 do, and falls back on bytes."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    learner.train_from_iterator(["Ada hid the brass key", "the ass saw the key", "[INST] so [/INST]"] * 4, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocab = learned["vocab"] | {f"<0x{byte:02X}>": len(learned["vocab"]) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    SPACERS[request.param](tokenizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = shutil.copytree(make_checkpoint("qwen3"), tmp_path_factory.mktemp("spaced") / "model")
    template = "<s>{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    ).save_pretrained(folder)
    with Engine.load(folder, slots=1000) as engine:
        yield engine


@pytest.mark.parametrize("pieces", [["Ada hid the br", "ass key"], ["Ada", " hid", "", " the"], ["a", "\u4f60", "\n\nb"]])
def test_later_text_goes_on_where_the_text_before_ended(spaced, pieces):
    with spaced.context() as context:
        spans = [context.append(piece) for piece in pieces]
        assert spaced.decode(context.token_ids) == "".join(pieces)
        assert context.token_ids[: len(spans[0])] == list(spaced.tokenizer(pieces[0])["input_ids"])


def test_only_the_first_text_gets_what_the_tokenizer_adds(spaced):
    assert spaced.tokenizer.convert_ids_to_tokens(spaced.encode("the", first=True))[:2] == ["<s>", f"{SPACE}the"]
    assert spaced.encode("<s>")[0] == spaced.tokenizer.bos_token_id
    assert spaced.tokenizer.bos_token_id not in spaced.encode("<s>", special=False)


def test_the_marks_of_the_chat_template_come_back_as_they_are(spaced):
    ids = [token for text in ("<s>[INST] ", "Ada hid", " [/INST]", "the key") for token in spaced.encode(text)]
    assert spaced.decode(ids, special=True).replace("<s> ", "<s>") == "<s>[INST] Ada hid [/INST]the key"


def test_a_stop_string_inside_a_token_leaves_the_text_before_it(spaced, monkeypatch):
    make_it_say(monkeypatch, spaced, spaced.encode(" brass"))
    with spaced.context("Ada hid the") as context:
        assert context.generate(Sampling(stop="ass")).run() == " br"
        assert spaced.decode(context.token_ids) == "Ada hid the br"


def test_byte_level_tokens_stay_as_they_were(tiny_engine):
    for text in ("Ada hid", " the key", "\u4f60\u597d", "<|turn|>user\n", ""):
        assert tiny_engine.encode(text) == list(tiny_engine.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_bytes_that_are_no_character_do_not_end_the_text(spaced, monkeypatch):
    byte = spaced.tokenizer.convert_tokens_to_ids
    said = [
        *spaced.encode(" hid key"),
        byte("<0xC3>"),
        byte("<0xA9>"),
        byte("<0xC3>"),
        *spaced.encode(" key"),
        byte("<0xFF>"),
        *spaced.encode(" the"),
    ]
    make_it_say(monkeypatch, spaced, said)
    with spaced.context("Ada hid the") as context:
        text = context.generate(Sampling(temperature=0, max_tokens=len(said))).run()
    assert text.startswith(" hid key\u00e9")
    assert text.count(" key") == 2
    assert text.endswith(" the")
