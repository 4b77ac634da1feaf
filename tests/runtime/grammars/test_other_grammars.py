"""Regular expressions, choices and EBNF are followed; what is none of them is refused."""

from __future__ import annotations

import pytest

from runtime.errors import InvalidGrammar
from runtime.grammars.schema import Choices, Ebnf, Regex
from tests.runtime.grammars.writing import COMPILER, fits


def test_a_regular_expression_matches_the_whole_text():
    assert fits(Regex(r"[a-z]+ \d{2}"), "ab 12")
    assert not fits(Regex(r"[a-z]+ \d{2}"), "ab 123")
    assert fits(Regex("a*"), "")


def test_one_of_the_choices_is_written():
    options = ["yes", "no", "no idea", 'a "b"\\', "line\nline", "\U0001f600"]
    assert all(fits(Choices(options), option) for option in options)
    assert not fits(Choices(options), "no i")
    assert not fits(Choices(options), "maybe")


@pytest.mark.parametrize(
    "text",
    [
        'start: expr\nexpr: NUMBER | "(" expr "+" expr ")"\nNUMBER: /[0-9]+/',
        'root ::= expr\nexpr ::= [0-9]+ | "(" expr "+" expr ")"',
    ],
    ids=["lark", "gbnf"],
)
def test_an_ebnf_grammar_is_followed(text):
    assert fits(Ebnf(text), "((1+22)+3)")
    assert not fits(Ebnf(text), "((1+22)+3")
    assert not fits(Ebnf(text), "(1+2))")


@pytest.mark.parametrize(
    "schema", [Regex("("), Regex("(?!a)b"), Regex(r"[^\s\S]"), Ebnf("start: nowhere"), Ebnf("root ::= ("), Ebnf("")], ids=str
)
def test_a_grammar_that_cannot_be_read_is_refused(schema):
    with pytest.raises(InvalidGrammar):
        COMPILER.compile(schema)


@pytest.mark.parametrize("schema", ["yes|no", ["yes", "no"], None, int], ids=str)
def test_anything_else_is_no_schema(schema):
    with pytest.raises(InvalidGrammar, match="is not a JSON schema"):
        COMPILER.compile(schema)


@pytest.mark.parametrize("options", [[], "yes", [1, 2]])
def test_choices_are_a_list_of_strings(options):
    with pytest.raises(InvalidGrammar, match="at least one"):
        Choices(options)
