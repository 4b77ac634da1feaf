"""What a paragraph costs does not grow with the story."""

from __future__ import annotations

from statistics import mean

import pytest


@pytest.mark.parametrize("paragraphs", [16, pytest.param(100, marks=pytest.mark.soak)])
def test_the_cost_per_paragraph_stays_flat(run, paragraphs):
    ran = run("write", "--premise", "Ada lost a key at the mill.", "--seed", "2", "--paragraphs", str(paragraphs), "--json")
    assert ran.code == 0
    assert len(ran.records) == paragraphs
    assert all(len(record["short_memory"]) <= 20 for record in ran.records)
    assert not all(record["degraded"] for record in ran.records)
    encoded = [record["encoded_tokens"] for record in ran.records]
    early, late = encoded[6:12], encoded[-6:]
    assert mean(late) < 1.35 * mean(early)
    assert max(encoded) < 2500
    assert max(record["resident_tokens"] for record in ran.records) < 2500
