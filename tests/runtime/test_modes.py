"""What "exact", "gap" and "rotate" mean, for every architecture and any order of edits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime import Engine, Sampling
from runtime.errors import PositionsExhausted, UnsupportedMode
from runtime.models.fast_decoder import FAST
from tests.conftest import ARCHITECTURES, MODES, save_checkpoint
from tests.runtime.oracle import Mirror, TurningReference, eager_logits

# Every forward that there is: that of the modules, and for some architectures a lean one, which is taken if `fast` is true.
FORWARDS = [(architecture, fast) for architecture in ARCHITECTURES for fast in (True, False) if fast or architecture in FAST]


class Pair:
    """A context and the mirror of it, edited together."""

    def __init__(self, context, mirror):
        self.context, self.mirror = context, mirror

    def append(self, ids):
        self.mirror.append(ids)
        return self.context.append(ids)

    def change(self, start, stop, ids, mode):
        self.mirror.change(start, stop, ids, mode)
        span = self.context.span(start, stop)
        return self.context.replace(span, ids, mode) if ids else self.context.drop(span, mode)

    def generate(self, tokens):
        sampling = Sampling(max_tokens=tokens, temperature=0, ignore_eos=True)
        self.context.generate(sampling).run()
        for token in self.context.token_ids[len(self.mirror.tokens) :]:
            self.mirror.encode()
            self.mirror.append([token])

    def compare(self, reference):
        expected = reference.logits(self.mirror.encode())
        assert self.context.token_ids == self.mirror.ids
        assert self.context.positions == self.mirror.positions
        assert_close(self.context.logits(), expected)


def assert_close(logits, expected):
    assert (logits - expected).abs().max() < 2e-4 * max(1, expected.abs().max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("architecture", "fast"), FORWARDS)
def test_every_architecture_in_every_mode(architecture, fast, mode, make_checkpoint, eager):
    folder = make_checkpoint(architecture)
    references = [TurningReference(folder)]
    with Engine.load(folder, slots=400, fast=fast) as engine:
        pair = Pair(engine.context(mode=mode), Mirror())

        def compare():
            pair.compare(references[0])
            if mode != "rotate":  # an oracle that is nothing but Hugging Face
                assert_close(pair.context.logits(), eager_logits(folder)(pair.mirror.encode()))
            if mode == "exact":
                assert_close(pair.context.logits(), eager(folder)(pair.mirror.ids))

        pair.append(list(range(5, 27)))
        pair.append([30, 31, 32])
        compare()
        pair.change(10, 14, [], mode)
        compare()
        pair.append([40, 41])
        compare()
        pair.change(3, 7, [50, 51, 52], mode)
        compare()
        pair.append([7])
        pair.change(2, 6, [], mode)
        pair.append([9])
        compare()
        pair.context.cache.evict()
        assert engine.pool.free == engine.pool.size
        compare()
        engine.check()


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text"])
def test_any_order_of_edits_of_several_contexts(architecture, make_checkpoint, tmp_path):
    folder = make_checkpoint(architecture)
    reference = TurningReference(folder)
    tokens = st.lists(st.integers(2, 300), min_size=1, max_size=6)

    with Engine.load(folder, slots=90) as engine:

        class Edits(RuleBasedStateMachine):
            @initialize()
            def begin(self):
                self.pairs, self.marks = [], []

            @rule(mode=st.sampled_from(MODES), ids=tokens)
            @precondition(lambda self: len(self.pairs) < 4)
            def open(self, mode, ids):
                self.pairs.append(Pair(engine.context(mode=mode), Mirror()))
                self.pairs[-1].append(ids)

            def some(self, data):
                return data.draw(st.sampled_from(self.pairs), "context")

            @rule(data=st.data(), ids=tokens)
            @precondition(lambda self: self.pairs)
            def append(self, data, ids):
                pair = self.some(data)
                if len(pair.context) < 40:
                    self.marks.append((pair.append(ids), ids))

            @rule(data=st.data(), mode=st.sampled_from(MODES), ids=st.just([]) | tokens)
            @precondition(lambda self: self.pairs)
            def change(self, data, mode, ids):
                pair = self.some(data)
                start = data.draw(st.integers(0, len(pair.context) - 1), "start")
                stop = data.draw(st.integers(start, len(pair.context)), "stop")
                if mode == "gap" and pair.mirror.room(start, stop) < len(ids):
                    return
                if stop - start == len(pair.context) and not ids:
                    return
                self.marks = [
                    (s, i) for s, i in self.marks if s.context is not pair.context or s.stop <= start or s.start >= stop
                ]
                pair.change(start, stop, ids, mode)

            @rule(data=st.data(), count=st.integers(1, 4))
            @precondition(lambda self: self.pairs)
            def generate(self, data, count):
                pair = self.some(data)
                if len(pair.context) < 40:
                    pair.generate(count)

            @rule(data=st.data())
            @precondition(lambda self: 0 < len(self.pairs) < 4)
            def fork(self, data):
                pair = self.some(data)
                self.pairs.append(Pair(pair.context.fork(), pair.mirror.copy()))

            @rule(data=st.data())
            @precondition(lambda self: self.pairs)
            def evict(self, data):
                self.some(data).context.cache.evict()

            @rule(data=st.data())
            @precondition(lambda self: self.pairs)
            def close(self, data):
                pair = self.some(data)
                pair.context.close()
                self.pairs.remove(pair)
                self.marks = [(s, i) for s, i in self.marks if s.context is not pair.context]

            @rule(data=st.data())
            @precondition(lambda self: self.pairs)
            def compare(self, data):
                self.some(data).compare(reference)

            @invariant()
            def spans_keep_their_text(self):
                for span, ids in getattr(self, "marks", ()):
                    assert span.token_ids == ids

            @invariant()
            def no_slot_leaks(self):
                engine.check()

            def teardown(self):
                for pair in getattr(self, "pairs", ()):
                    pair.compare(reference)
                    pair.context.close()
                engine.check()
                assert engine.pool.free == engine.pool.size

        machine = Edits.TestCase
        machine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
        machine().runTest()


def test_an_edit_in_the_middle_encodes_the_tail_or_nothing(tiny_engine):
    for mode, again in (("exact", 20), ("gap", 0), ("rotate", 0)):
        with tiny_engine.context([3] * 10, mode=mode) as context:
            middle = context.append([5] * 7)
            context.append([6] * 20)
            context.logits()
            encoded = context.stats.encoded_tokens
            context.drop(middle)
            context.append([8])
            context.logits()
            assert context.stats.encoded_tokens - encoded == again + 1


def test_a_thousand_shifts_of_the_same_keys_leave_no_trace(make_checkpoint):
    with (
        Engine.load(make_checkpoint("qwen3", positions=4096), slots=400) as engine,
        engine.context([3, 5], mode="rotate") as context,
    ):
        hole = context.append([9] * 8)
        context.append([30, 40, 50, 60] * 4)
        context.logits()
        kept = slice(10, 26)
        before = engine.pool.keys[:, context.row.slots[kept]].double()
        at = np.array(context.positions[kept])
        rng = np.random.default_rng(5)
        for _ in range(1000):
            hole = context.replace(hole, [9] * int(rng.integers(1, 100)))
            context.logits()
        shift = context.positions[len(context) - 16] - at[0]
        assert abs(shift) < 200
        rotary = engine._rotary
        angle = shift * rotary.frequencies.double()[:, None, None]
        first, second = before.chunk(2, -1)
        expected = np.concatenate([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], -1)
        slots = context.row.slots[-16:-1]  # the last was encoded again each time, for its logits
        now = engine.pool.keys[:, slots].double().numpy()
        error = np.linalg.norm(now - expected[:, :-1]) / np.linalg.norm(expected[:, :-1])
        assert error < 1e-5


def test_dropping_forks_in_mode_rotate_leaves_the_other_alone(make_checkpoint):
    folder = make_checkpoint("qwen3")
    reference = TurningReference(folder)
    with Engine.load(folder, slots=100) as engine:
        one = Pair(engine.context(mode="rotate"), Mirror())
        one.append(list(range(10, 30)))
        one.compare(reference)
        other = Pair(one.context.fork(), one.mirror.copy())
        one.change(3, 9, [], "rotate")
        one.compare(reference)
        other.compare(reference)
        third = Pair(one.context.fork(), one.mirror.copy())
        third.change(1, 2, [], "rotate")
        third.compare(reference)
        one.compare(reference)
        # Back where they were encoded, keys need no copy.
        one.change(3, 3, [70, 71, 72, 73, 74, 75], "rotate")
        one.compare(reference)
        assert not one.context.row.origins.any()
        engine.check()


def test_mode_gap_says_when_positions_run_out_and_falls_back(make_checkpoint, caplog, eager):
    folder = make_checkpoint("qwen3")
    for fallback in ("exact", "rotate"):
        caplog.clear()
        with Engine.load(folder, slots=600) as engine, engine.context(mode="gap", fallback=fallback) as context:
            mirror = Mirror()
            pair = Pair(context, mirror)
            pair.append([3] * 20)
            for at in range(60):  # 600 tokens in all, on 256 positions
                pair.append([10 + at] * 10)
                context.logits()
                if len(context) > 100:
                    context.drop(context.span(20, 30))
            assert context.stats.fallbacks > 0
            assert any("falls back" in record.message for record in caplog.records)
            assert max(context.positions) < 256
            if fallback == "exact":
                context.drop(context.span(20, 30), mode="exact")
                assert_close(context.logits(), eager(folder)(context.token_ids))


def test_text_that_is_too_long_for_its_hole_is_not_cut(make_checkpoint, eager):
    folder = make_checkpoint("qwen3")
    with Engine.load(folder, slots=600) as engine:
        for fallback in ("exact", "rotate"):
            with engine.context([3] * 10, mode="gap", fallback=fallback) as context:
                memory = context.append([5] * 4)
                context.append([6] * 5)
                context.logits()
                context.replace(memory, [7] * 9)
                assert context.token_ids == [3] * 10 + [7] * 9 + [6] * 5
                assert context.positions == list(range(24))
                assert context.stats.fallbacks == 1
                if fallback == "exact":
                    assert_close(context.logits(), eager(folder)(context.token_ids))


def test_without_a_fallback_mode_gap_refuses_and_changes_nothing(tiny_engine):
    with tiny_engine.context([3] * 10, mode="gap", fallback="error") as context:
        memory = context.append([5] * 4)
        context.append([6] * 5)
        with pytest.raises(PositionsExhausted, match="9 tokens do not fit into a hole of 4 positions"):
            context.replace(memory, [7] * 9)
        assert memory.token_ids == [5] * 4
        context.append([8] * 236)
        context.drop(context.span(0, 100))
        with pytest.raises(PositionsExhausted, match="no position is left of the 256"):
            context.append([8] * 2)


def test_a_mode_that_a_model_cannot_do_is_refused(tmp_path, tiny_tokenizer):
    save_checkpoint(tmp_path, tiny_tokenizer, "gpt2", n_embd=32, n_layer=2, n_head=2)
    with Engine.load(tmp_path) as engine, engine.context([3, 4, 5, 6], mode="gap") as context:
        context.logits()
        with pytest.raises(UnsupportedMode, match="'gpt2' are not: use 'exact' or 'gap'"):
            context.drop(context.span(0, 1), mode="rotate")
        context.drop(context.span(0, 1))


def test_greedy_text_is_the_same_alone_and_in_a_batch_of_sixteen(tiny_engine):
    prompts = [f"{'Ada hid the key. ' * (n % 5)}Bram {n}" for n in range(16)]
    sampling = Sampling(max_tokens=20, temperature=0, ignore_eos=True)
    alone = [tiny_engine.generate([prompt], sampling)[0] for prompt in prompts]
    assert tiny_engine.generate(prompts, sampling) == alone
    tiny_engine.check()
