"""Strings of a format or a pattern are those that Python and ECMAScript take."""

from __future__ import annotations

import datetime
import ipaddress
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.grammars.writing import fits


@given(year=st.integers(0, 9999), month=st.integers(0, 13), day=st.integers(0, 32))
@settings(max_examples=300, deadline=None)
def test_dates_are_those_of_the_calendar(year, month, day):
    try:
        datetime.date(year, month, day)
        there_is = True
    except ValueError:
        there_is = False
    assert fits({"type": "string", "format": "date"}, f'"{year:04}-{month:02}-{day:02}"') is there_is


@given(
    address=st.ip_addresses(v=6).map(lambda a: [str(a), a.exploded])
    | st.lists(st.text("0aF:.1", min_size=2, max_size=20), max_size=2)
)
@settings(max_examples=200, deadline=None)
def test_an_address_is_one_that_python_reads(address):
    for text in address:
        try:
            ipaddress.IPv6Address(text)
            good = True
        except ValueError:
            good = False
        assert fits({"type": "string", "format": "ipv6"}, f'"{text}"') is good


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^a.b$", "a\u00e9b", "a\u2028b"), ("^\\s$", "\ufeff", "\u0085"), ("^\\S$", "\u0085", "\u3000"), ("^[\\s]$", "\u00a0", "a"),
        ("^[^\\s]$", "a", "\ufeff"), ("^[a\\S]$", "b", " "), ("^[[]$", "[", "a"), ("^[a&&b]$", "&", "c"), ("^[~~^]$", "^", "a"),
        ("^\\w$", "_", "\u00e9"), ("^\\d$", "7", "\u0663"), ("^[.]$", ".", "a"), ("^a|b$", "axx", "xax"), ("^\\u0041\\x42$", "AB", "ab"),
        ("^\\p{Lu}$", "\u00c9", "\u00e9"), ("^a\\/b\\-c$", "a/b-c", "ab-c"),
    ],
)  # fmt: skip
def test_patterns_mean_what_they_mean_in_ecmascript(pattern, good, bad):
    schema = {"type": "string", "pattern": pattern}
    assert fits(schema, json.dumps(good, ensure_ascii=False))
    assert not fits(schema, json.dumps(bad, ensure_ascii=False))
