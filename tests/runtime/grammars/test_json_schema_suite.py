"""The public JSON Schema suite: what is accepted is enforced to the letter, and what is not has a reason."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from benchmarks.json_schema import MODEL, NAME, find_suite, run_suite, total
from runtime.grammars.grammar import GrammarCompiler


@pytest.fixture(scope="module")
def rows():
    suite = find_suite()
    if suite is None:
        pytest.skip(
            f"{NAME} was not found. To run these tests, clone https://github.com/json-schema-org/JSON-Schema-Test-Suite, pack it "
            f"with `tar -cJf {NAME} JSON-Schema-Test-Suite/tests/draft2020-12`, and set JSON_SCHEMA_SUITE to the path of that file."
        )
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return run_suite(suite, GrammarCompiler(tokenizer, len(tokenizer), [tokenizer.eos_token_id]), tokenizer)


def test_nothing_invalid_can_be_written(rows):
    whole = total(rows)
    assert whole.invalid_refused == whole.invalid > 500


def test_everything_valid_can_be_written_unless_there_is_a_reason(rows):
    whole = total(rows)
    assert whole.valid_accepted + len(whole.wrong) == whole.valid > 600
    assert not [wrong for wrong in whole.wrong if wrong.reason is None]


def test_what_cannot_be_enforced_is_refused_by_the_name_of_a_keyword(rows):
    whole = total(rows)
    assert whole.accepted + sum(whole.refused.values()) == whole.schemas
    assert whole.accepted > 200
    assert not [keyword for keyword in whole.refused if " " in keyword]
