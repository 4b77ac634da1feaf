"""Settings out of range are refused with a sentence, and nobody can change them later."""

from __future__ import annotations

import pytest

from runtime import Sampling
from runtime.errors import InvalidSampling


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"max_tokens": 0}, "at least 1"),
        ({"temperature": -1}, "at least 0"),
        ({"temperature": float("nan")}, "at least 0"),
        ({"temperature": float("inf")}, "finite"),
        ({"top_p": float("nan")}, "at most 1"),
        ({"min_p": float("nan")}, "from 0 to 1"),
        ({"seed": -1}, r"from 0 to 2\*\*64 - 1"),
        ({"seed": 2**64}, r"from 0 to 2\*\*64 - 1"),
        ({"top_k": 0}, "at least 1"),
        ({"top_p": 0}, "above 0"),
        ({"top_p": 1.5}, "at most 1"),
        ({"min_p": 2}, "from 0 to 1"),
        ({"stop": ("",)}, "not empty"),
        ({"stop_ids": (-1,)}, "at least 0"),
        ({"typical_p": 0}, "above 0"),
        ({"typical_p": 1.01}, "at most 1"),
        ({"xtc_probability": -0.1}, "from 0 to 1"),
        ({"xtc_probability": 1.1}, "from 0 to 1"),
        ({"xtc_threshold": 0}, "above 0"),
        ({"xtc_threshold": 1.5}, "at most 1"),
        ({"repetition_penalty": 0}, "above 0"),
        ({"repetition_penalty": float("inf")}, "finite"),
        ({"presence_penalty": float("nan")}, "finite"),
        ({"frequency_penalty": float("-inf")}, "finite"),
        ({"dry_multiplier": -1}, "at least 0"),
        ({"dry_base": 0.9}, "at least 1"),
        ({"dry_allowed_length": 0}, "at least 1"),
        ({"dry_range": 0}, "at least 1"),
        ({"dry_breakers": ("\n", "")}, "not empty"),
        ({"dry_exempt": ""}, "not empty"),
        ({"logit_bias": {-1: 1.0}}, "token ids"),
        ({"logit_bias": {"": 1.0}}, "not empty"),
        ({"logit_bias": {5: float("inf")}}, "below inf"),
        ({"logit_bias": {5: float("nan")}}, "below inf"),
        ({"banned": ("a", "")}, "not empty"),
        ({"logprobs": -1}, "at least 0"),
    ],
)
def test_a_value_out_of_range_is_named(wrong, hint):
    with pytest.raises(InvalidSampling, match=hint) as fault:
        Sampling(**wrong)
    assert next(iter(wrong)) in str(fault.value)


@pytest.mark.parametrize("name", ["stop", "banned", "dry_breakers", "dry_exempt"])
def test_one_string_may_stand_alone(name):
    assert getattr(Sampling(**{name: "\n"}), name) == ("\n",)


def test_the_largest_seed_is_one():
    assert Sampling(seed=2**64 - 1).seed == 2**64 - 1


def test_a_token_may_be_forbidden_by_its_bias():
    assert Sampling(logit_bias={5: float("-inf")}).logit_bias == {5: float("-inf")}


def test_what_the_caller_changes_later_does_not_reach_the_settings():
    bias, banned, schema = {5: 1.0}, ["a"], {"type": "object", "properties": {"a": {"type": "string"}}}
    sampling = Sampling(logit_bias=bias, banned=banned, schema=schema)
    bias[5] = 2.0
    banned.append("b")
    schema["properties"].clear()
    assert (sampling.logit_bias, sampling.banned) == ({5: 1.0}, ("a",))
    assert sampling.schema == {"type": "object", "properties": {"a": {"type": "string"}}}


def test_equal_settings_have_the_same_hash_however_they_were_written():
    one = Sampling(logit_bias={5: 1.0, "a": 2.0}, banned=["a"], stop="b", stop_ids=[7], schema={"type": "string"})
    other = Sampling(logit_bias={"a": 2.0, 5: 1.0}, banned=("a",), stop=["b"], stop_ids=(7,), schema={"type": "string"})
    assert one == other
    assert hash(one) == hash(other)
