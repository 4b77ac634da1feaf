"""Contexts on models with a recurrent state: the same use, mode "exact" only."""

from __future__ import annotations

import pytest

from runtime import Engine, Sampling
from runtime.errors import UnsupportedMode
from tests.conftest import save_checkpoint

SIZES = {
    "mamba2": {"hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "num_hidden_layers": 2},
    "qwen3_next": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
}
GREEDY = Sampling(max_tokens=8, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module", params=SIZES)
def folder(request, tmp_path_factory, tiny_tokenizer):
    path = tmp_path_factory.mktemp(request.param)
    ids = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
    save_checkpoint(path, tiny_tokenizer, request.param, **SIZES[request.param], **ids)
    return path


def test_edits_equal_a_fresh_run_and_go_back_to_the_beginning_of_a_span(folder, eager):
    fresh = eager(folder)
    with Engine.load(folder) as engine, engine.context([3, 4, 5] * 5) as context:
        memory = context.append([6, 7] * 5)
        context.append([8, 9, 10])
        context.logits()
        encoded = context.stats.encoded_tokens
        assert encoded == 28
        context.replace(memory, [11, 12, 13])
        assert (context.logits() - fresh(context.token_ids)).abs().max() < 1e-4
        assert context.stats.encoded_tokens - encoded == 6
        twin = context.fork()
        twin.append([20])
        text = context.generate(GREEDY).run()
        assert (twin.logits() - fresh(twin.token_ids)).abs().max() < 1e-4
        assert (context.logits() - fresh(context.token_ids)).abs().max() < 1e-4
        with engine.context([3, 4, 5] * 5 + [11, 12, 13, 8, 9, 10]) as other:
            assert other.generate(GREEDY).run() == text


def test_several_at_once_and_on_disk(folder, tmp_path):
    with Engine.load(folder) as engine:
        prompts = ["Ada hid", "Bram saw the key", "Why?"]
        texts = engine.generate(prompts, GREEDY)
        assert [engine.generate([prompt], GREEDY)[0] for prompt in prompts] == texts
        with engine.context(prompts[0]) as context:
            context.snapshot(tmp_path / "context")
        with engine.restore(tmp_path / "context") as context:
            assert context.generate(GREEDY).run() == texts[0]


def test_modes_that_keep_keys_are_refused(folder):
    with Engine.load(folder) as engine, pytest.raises(UnsupportedMode, match="keeps all tokens in one state.*use mode 'exact'"):
        engine.context("Ada", mode="gap")
