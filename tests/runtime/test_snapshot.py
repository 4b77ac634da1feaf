"""A context goes to disk and comes back with keys and values, and never into another model."""

from __future__ import annotations

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from runtime import Engine, Sampling
from runtime.errors import SnapshotBroken, SnapshotMismatch
from tests.conftest import MODES

GREEDY = Sampling(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_context_comes_back_as_it_was_and_nothing_is_encoded_again(make_checkpoint, tmp_path, mode):
    file = tmp_path / "context.safetensors"
    with Engine.load(make_checkpoint("qwen3"), slots=200) as engine, engine.context([3, 4, 5] * 10, mode=mode) as context:
        context.logits()
        context.drop(context.span(5, 12))
        context.append([9, 8])
        context.logits()
        context.snapshot(file)
        positions, logits, text = context.positions, context.logits(), context.generate(GREEDY).run()
    with Engine.load(make_checkpoint("qwen3"), slots=200) as engine, engine.restore(file) as context:
        assert (context.mode, context.positions) == (mode, positions)
        assert (context.logits() - logits).abs().max() < 1e-5
        assert context.stats.encoded_tokens == 1  # the last once more, for its logits
        assert context.generate(GREEDY).run() == text
        context.drop(context.span(2, 4))
        context.logits()
        engine.check()


def test_an_evicted_context_can_be_written(make_checkpoint, tmp_path):
    with Engine.load(make_checkpoint("qwen3"), slots=50) as engine, engine.context([3, 4, 5] * 10, mode="gap") as context:
        context.logits()
        context.drop(context.span(5, 12))
        expected = context.logits()
        context.cache.evict()
        context.snapshot(tmp_path / "context")
        with engine.restore(tmp_path / "context") as twin:
            assert (twin.logits() - expected).abs().max() < 1e-5


def test_a_stranger_is_refused(make_checkpoint, tiny_engine, tmp_path):
    file = tmp_path / "context"
    with tiny_engine.context("Ada hid the key.") as context:
        context.logits()
        context.snapshot(file)
    with Engine.load(make_checkpoint("llama"), slots=50) as other, pytest.raises(SnapshotMismatch, match="another model"):
        other.restore(file)
    with (
        Engine.load(make_checkpoint("qwen3"), slots=50, dtype="bfloat16") as other,
        pytest.raises(SnapshotMismatch, match="another model"),
    ):
        other.restore(file)


def test_another_tokenizer_is_refused(make_checkpoint, tiny_engine, tmp_path):
    file = tmp_path / "context"
    with tiny_engine.context("Ada hid the key.") as context:
        context.snapshot(file)
    with Engine.load(make_checkpoint("qwen3"), slots=50) as other:
        other.tokenizer.add_tokens(["brass"])
        with pytest.raises(SnapshotMismatch, match="another tokenizer"):
            other.restore(file)


@pytest.mark.parametrize("damage", ["missing", "cut", "nonsense", "foreign", "tokens", "format"])
def test_a_damaged_file_is_one_sentence(tiny_engine, tmp_path, damage):
    file = tmp_path / "context"
    with tiny_engine.context("Ada hid the key.") as context:
        context.logits()
        context.snapshot(file)
    if damage == "missing":
        file.unlink()
    elif damage in ("cut", "nonsense"):
        file.write_bytes(file.read_bytes()[:-40] if damage == "cut" else b"nonsense")
    else:
        tensors = load_file(file)
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata()
        tensors["ids"][0] += damage == "tokens"
        save_file(tensors, file, {**about, "format": "99"} if damage == "format" else about if damage == "tokens" else None)
    with pytest.raises(SnapshotBroken) as fault:
        tiny_engine.restore(file)
    assert "take it again" in str(fault.value)


def test_what_could_not_be_written_leaves_the_older_file(tiny_engine, tmp_path, monkeypatch):
    file = tmp_path / "context"
    with tiny_engine.context("Ada hid the key.") as context:
        context.snapshot(file)
        before = file.read_bytes()
        context.append("More.")

        def full(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr("runtime.snapshot.save_file", full)
        with pytest.raises(OSError, match="no space"):
            context.snapshot(file)
    assert file.read_bytes() == before
