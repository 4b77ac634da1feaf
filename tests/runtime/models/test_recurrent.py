"""Reading on from a copy of a recurrent state gives what a fresh run on the same tokens would."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from transformers import AutoConfig, AutoModelForCausalLM

from runtime.errors import UnsupportedModel
from runtime.models.recurrent import Checkpoints, RecurrentModel, is_recurrent

TOLERANCE = 1e-4
VOCABULARY = 300

_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
_MAMBA1 = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
_MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 2,
    "mamba_d_state": 8,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
_DELTA = {
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_CONVOLUTION = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
_MODELS = {
    "bamba": {**_SIZES, **_MAMBA2, "num_hidden_layers": 3, "attn_layer_indices": [1]},
    "falcon_h1": {
        **_SIZES,
        **_MAMBA2,
        "num_hidden_layers": 2,
        "mamba_d_ssm": 64,
        "mamba_rms_norm": True,
        "ssm_multipliers": [0.7, 1.2, 0.9, 1.1, 0.8],
        "mlp_multipliers": [0.9, 1.2],
        "key_multiplier": 0.6,
        "attention_in_multiplier": 1.3,
        "attention_out_multiplier": 0.8,
        "ssm_in_multiplier": 1.4,
        "ssm_out_multiplier": 0.7,
        "embedding_multiplier": 2.5,
        "lm_head_multiplier": 1.5,
    },
    "falcon_mamba": _MAMBA1,
    "granitemoehybrid": {
        **_SIZES,
        **_MAMBA2,
        "num_hidden_layers": 3,
        "layer_types": ["mamba", "attention", "mamba"],
        "shared_intermediate_size": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "position_embedding_type": "rope",
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.8,
    },
    "jamba": {
        **_SIZES,
        "num_hidden_layers": 3,
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "num_experts": 4,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "lfm2": {**_SIZES, **_CONVOLUTION, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {**_SIZES, **_CONVOLUTION, **_EXPERTS, "num_dense_layers": 1},
    "mamba": _MAMBA1,
    "mamba2": {**_MAMBA1, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "olmo_hybrid": {**_SIZES, **_DELTA, "linear_num_key_heads": 4},
    "qwen3_5_moe_text": {**_SIZES, **_DELTA, **_EXPERTS, "head_dim": 8, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": {**_SIZES, **_DELTA, "head_dim": 8},
    "qwen3_next": {**_SIZES, **_DELTA, **_EXPERTS, "head_dim": 8, "shared_expert_intermediate_size": 16},
    "recurrent_gemma": {**_SIZES, "num_hidden_layers": 3, "num_key_value_heads": 1, "attention_window_size": 12},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 3, "rescale_every": 2, "context_length": 16},
}
FAMILIES = tuple(_MODELS)
IDS = torch.randint(3, VOCABULARY, (150,), generator=torch.Generator().manual_seed(5)).tolist()


@cache
def tiny(family):
    """A tiny random model."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, **_MODELS[family]
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():  # away from flat logits, but not from a slow decay
        parameter.data *= 2 if parameter.ndim > 1 and not name.endswith("A_log") else 1
    return model


@torch.inference_mode()
def fresh(model, ids):
    """The oracle: next-token logits of a run over all tokens, without a state."""
    return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


def difference(logits, model, ids):
    return float((logits - fresh(model, ids)).abs().max())


@contextmanager
def lengths_of_forwards(model):
    """How many tokens go through the model at once."""
    lengths = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: lengths.append(ids[0].shape[1]))
    try:
        yield lengths
    finally:
        hook.remove()


@pytest.fixture
def context():
    return Checkpoints(RecurrentModel(tiny("mamba2")))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_a_fresh_run_after_random_edits(family):
    oracle = tiny(family)
    model = RecurrentModel(oracle)
    rows = st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=20)
    places = st.floats(0, 1)

    class Edits(RuleBasedStateMachine):
        @initialize(ids=rows)
        def begin(self, ids):
            self.context, self.ids, self.marks, self.twins = Checkpoints(model, most=3), ids, set(), []

        def splice(self, start, stop, ids):
            self.ids = [*self.ids[:start], *ids, *self.ids[stop:]]
            self.marks = {mark for mark in self.marks if mark <= start}

        @rule(ids=rows)
        @precondition(lambda self: len(self.ids) < 100)
        def append(self, ids):
            self.splice(len(self.ids), len(self.ids), ids)

        @rule(place=places)
        def truncate(self, place):
            self.splice(1 + int(place * (len(self.ids) - 1)), len(self.ids), [])

        @rule(place=places, length=st.integers(0, 5), ids=rows)
        def edit(self, place, length, ids):
            start = int(place * (len(self.ids) - 1))
            self.splice(start, min(start + length, len(self.ids)), ids)

        @rule()
        def mark(self):
            self.marks.add(len(self.ids))

        @rule()
        def go_back_to_the_last_mark(self):
            if self.marks:
                self.splice(max(self.marks), len(self.ids), [])

        @rule()
        @precondition(lambda self: len(self.twins) < 2)
        def fork(self):
            self.twins.append((self.context.fork(), self.ids, self.marks.copy()))

        @rule()
        @precondition(lambda self: self.twins)
        def swap(self):
            self.twins.append((self.context, self.ids, self.marks))
            self.context, self.ids, self.marks = self.twins.pop(0)

        @rule()
        def compare(self):
            logits, encoded = self.context.logits_for(self.ids, self.marks)
            assert 0 <= encoded <= len(self.ids)
            assert difference(logits, oracle, self.ids) < TOLERANCE

        def teardown(self):
            for context, ids, marks in (*self.twins, (self.context, self.ids, self.marks)):
                assert difference(context.logits_for(ids, marks)[0], oracle, ids) < TOLERANCE

    machine = Edits.TestCase
    machine.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
    machine().runTest()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_reads_the_same_in_any_pieces(family):
    """Shorter than a convolution, off the grid of a chunked scan, behind an attention window, longer than all of these."""
    oracle = tiny(family)
    model = RecurrentModel(oracle)
    for pieces in ([1, 1, 1, 1, 1], [2, 2, 3], [7, 9, 1, 8], [30, 2, 5], [70, 63, 1, 2]):
        state = model.start()
        for piece in pieces:
            logits = model.encode(state, IDS[state.length : state.length + piece])
        assert state.length == sum(pieces)
        assert difference(logits, oracle, IDS[: state.length]) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_and_its_original_know_nothing_of_each_other(family):
    oracle = tiny(family)
    model = RecurrentModel(oracle)
    state = model.start()
    model.encode(state, IDS[:20])
    twin = model.copy(state)
    model.encode(state, [7])
    model.encode(twin, IDS[20:25])
    assert difference(model.encode(state, [8, 9, 10]), oracle, [*IDS[:20], 7, 8, 9, 10]) < TOLERANCE
    assert difference(model.encode(twin, IDS[25:30]), oracle, IDS[:30]) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_that_was_lost_would_be_seen(family):
    """The comparisons above mean something: what was read first is far above the tolerance in the logits."""
    oracle = tiny(family)
    assert (fresh(oracle, [7, *IDS[:20]]) - fresh(oracle, [9, *IDS[:20]])).abs().max() > 20 * TOLERANCE


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next", "recurrent_gemma", "rwkv"])
def test_a_long_text_goes_through_in_pieces(family, monkeypatch):
    monkeypatch.setattr("runtime.models.recurrent._PIECE_TOKENS", 16)
    oracle = tiny(family)
    model = RecurrentModel(oracle)
    with lengths_of_forwards(oracle) as lengths:
        logits = model.encode(model.start(), IDS[:50])
    assert lengths == [16, 16, 16, 2]
    assert difference(logits, oracle, IDS[:50]) < TOLERANCE


@pytest.mark.parametrize("family", ["falcon_mamba", "jamba", "mamba"])
def test_a_model_that_cannot_be_read_in_pieces_goes_on_token_by_token(family):
    oracle = tiny(family)
    model = RecurrentModel(oracle)
    state = model.start()
    with lengths_of_forwards(oracle) as lengths:
        model.encode(state, IDS[:20])
        model.encode(state, IDS[20:23])
    assert lengths == [20, 1, 1, 1]


def test_a_recurrent_state_does_not_grow_and_attention_does():
    sizes = {}
    for family in ("mamba2", "falcon_h1"):
        model = RecurrentModel(tiny(family))
        state = model.start()
        model.encode(state, IDS[:20])
        short = state.nbytes
        assert model.copy(state).nbytes == short
        model.encode(state, IDS[20:60])
        sizes[family] = state.nbytes - short
    per_token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, head width, bytes
    assert sizes == {"mamba2": 0, "falcon_h1": 40 * per_token}


def test_recurrent_gemma_keeps_no_state_in_its_modules():
    oracle = tiny("recurrent_gemma")
    model = RecurrentModel(oracle)
    model.encode(model.start(), IDS[:20])
    blocks = [layer.temporal_block for layer in oracle.model.layers if hasattr(layer.temporal_block, "rg_lru")]
    assert [(block.conv1d_state, block.rg_lru.recurrent_states) for block in blocks] == [(None, None)] * 2


def test_logits_are_float32_on_the_cpu(context):
    logits, _ = context.logits_for(IDS[:5])
    assert (logits.dtype, logits.shape, logits.device.type) == (torch.float32, (VOCABULARY,), "cpu")


def test_reading_on_encodes_only_what_is_new(context):
    assert context.logits_for(IDS[:10])[1] == 10
    assert context.logits_for(IDS[:13])[1] == 3
    assert context.logits_for(IDS[:13])[1] == 0


def test_going_back_to_a_mark_encodes_only_what_is_behind_it(context):
    context.logits_for(IDS[:30], marks=[20])
    assert context.logits_for([*IDS[:20], 5, 6], marks=[20])[1] == 2
    assert context.logits_for([*IDS[:20], 7], marks=[20])[1] == 1
    assert context.logits_for(IDS[:20])[1] == 0


def test_going_back_to_no_mark_encodes_everything(context):
    context.logits_for(IDS[:30], marks=[20])
    assert context.logits_for([*IDS[:19], 5])[1] == 20


def test_a_mark_where_the_state_is_now_comes_in_time_and_one_before_it_too_late(context):
    context.logits_for(IDS[:10])
    context.logits_for(IDS[:30], marks=[9, 10])
    assert context.logits_for([*IDS[:10], 5], marks=[10])[1] == 1
    assert context.logits_for([*IDS[:9], 5])[1] == 10


def test_marks_outside_the_tokens_are_of_no_effect(context):
    assert context.logits_for(IDS[:10], marks=[0, -3, 11])[1] == 10
    assert context.logits_for(IDS[:12], marks=[11])[1] == 2


def test_a_copy_is_let_go_once_no_mark_names_it(context):
    context.logits_for(IDS[:30], marks=[10, 20])
    with_two = context.nbytes
    # The list at 20 has closed: its copy is used for the last time.
    assert context.logits_for([*IDS[:20], 5], marks=[10])[1] == 1
    assert context.nbytes == with_two * 2 // 3
    assert context.logits_for([*IDS[:20], 6], marks=[10])[1] == 11


def test_of_too_many_marks_the_one_nearest_behind_another_is_left_out_and_never_the_last():
    context = Checkpoints(RecurrentModel(tiny("mamba2")), most=3)
    marks = [20, 23, 40, 41]
    context.logits_for(IDS[:50], marks)
    costs = [context.fork().logits_for(IDS[:mark])[1] for mark in marks]
    assert costs == [0, 3, 0, 0]


def test_nested_lists_that_close_one_by_one_cost_little_with_few_copies():
    context = Checkpoints(RecurrentModel(tiny("mamba2")), most=4)
    opened = list(range(10, 130, 10))
    for depth, length in enumerate(opened):
        context.logits_for(IDS[: length + 1], opened[: depth + 1])
    ids = IDS[:130]
    cost = 0
    while opened:
        ids = [*ids[: opened[-1]], 3, 4]
        cost += context.logits_for(ids, opened)[1]
        opened.pop()
    everything_each_time = sum(range(12, 132, 10))
    assert cost < everything_each_time / 3


def test_a_fork_shares_the_copies_and_no_edits(context):
    context.logits_for(IDS[:30], marks=[20])
    twin = context.fork()
    assert twin.logits_for(IDS[:31])[1] == 1
    assert context.logits_for([*IDS[:30], 4], marks=[20])[1] == 1
    assert context.logits_for([*IDS[:20], 5])[1] == 1
    oracle = context.model.model
    assert difference(twin.logits_for([*IDS[:31], 8])[0], oracle, [*IDS[:31], 8]) < TOLERANCE
    assert difference(context.logits_for([*IDS[:20], 5, 6])[0], oracle, [*IDS[:20], 5, 6]) < TOLERANCE


@pytest.mark.parametrize("family", ["falcon_h1", "recurrent_gemma", "rwkv"])
def test_a_failure_in_the_model_leaves_the_context_whole(family):
    oracle = tiny(family)
    context = Checkpoints(RecurrentModel(oracle))
    context.logits_for(IDS[:20], marks=[10])

    def fail(*_):
        raise KeyboardInterrupt

    hook = oracle.get_output_embeddings().register_forward_hook(fail)  # when every layer has read the token
    try:
        with pytest.raises(KeyboardInterrupt):
            context.logits_for(IDS[:25], marks=[10])
    finally:
        hook.remove()
    logits, encoded = context.logits_for(IDS[:25], marks=[10])
    assert encoded == 15
    assert difference(logits, oracle, IDS[:25]) < TOLERANCE


def test_a_model_whose_single_steps_are_wrong_is_refused():
    config = AutoConfig.for_model("mamba2", vocab_size=VOCABULARY, time_step_limit=(0.0, 0.05), **_MODELS["mamba2"])
    with pytest.raises(UnsupportedModel, match=r"bounds its time steps to \(0\.0, 0\.05\)"):
        RecurrentModel(AutoModelForCausalLM.from_config(config))


def test_only_what_passes_these_tests_is_served():
    assert all(is_recurrent(tiny(family).config) for family in FAMILIES)
    assert not any(is_recurrent(AutoConfig.for_model(kind)) for kind in ("llama", "zamba2", "minimax", "xlstm"))


def test_no_advice_of_transformers_reaches_the_user(context):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    logging.Logger.warning_once.cache_clear()
    try:
        context.logits_for(IDS[:20])
        context.logits_for(IDS[:21])
    finally:
        logger.removeHandler(handler)
    assert said == []
