"""What contexts and engines count."""

from __future__ import annotations

from runtime import Engine, Sampling

GREEDY = Sampling(max_tokens=6, temperature=0, ignore_eos=True)


def test_a_context_counts_what_is_put_in_dropped_and_encoded_again(tiny_engine):
    with tiny_engine.context([5] * 30) as context:
        middle = context.append([6] * 10)
        context.append([7] * 20)
        context.logits()
        context.drop(middle)
        context.logits()
        stats = context.stats
        assert (stats.appended_tokens, stats.dropped_tokens, stats.dropped_share) == (60, 10, 10 / 60)
        assert (stats.encoded_tokens, stats.encoded_again) == (60 + 20, 20)
        assert (stats.resident_tokens, stats.peak_tokens) == (50, 60)


def test_nothing_behind_a_gap_counts_as_encoded_again_but_the_last_token(tiny_engine):
    with tiny_engine.context([5] * 30, mode="gap") as context:
        context.logits()
        context.drop(context.span(3, 9))
        context.logits()
        assert context.stats.encoded_again == 1


def test_a_generation_counts_its_tokens_and_its_time(tiny_engine):
    with tiny_engine.context([5] * 30) as context:
        context.generate(GREEDY).run()
        stats = context.stats
        assert stats.generated_tokens == 6
        assert 0 < stats.first_token_seconds <= stats.generating_seconds
        assert stats.tokens_per_second == 6 / stats.generating_seconds


def test_an_engine_counts_for_all_its_contexts_and_says_where_the_time_went(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3"), slots=200) as engine:
        with engine.context([5] * 30) as one, engine.context([6] * 40) as other:
            one.generate(GREEDY).run()
            other.generate(Sampling(max_tokens=4, schema={"enum": ["x", "y"]})).run()
            stats = engine.stats
            for name in ("appended_tokens", "generated_tokens", "encoded_tokens", "encoded_again"):
                assert getattr(stats, name) == getattr(one.stats, name) + getattr(other.stats, name)
            assert stats.resident_tokens == one.stats.resident_tokens + other.stats.resident_tokens
            assert stats.peak_tokens == stats.resident_tokens
            parts = (stats.forward_seconds, stats.mask_seconds, stats.sampling_seconds, stats.python_seconds)
            assert all(part > 0 for part in parts)
            assert abs(sum(parts) - stats.step_seconds) < 1e-9
            assert stats.tokens_per_second > 0
        assert engine.stats.resident_tokens == 0
