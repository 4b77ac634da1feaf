"""Task trees on a model: what is written, pruned, called and recorded."""

from __future__ import annotations

import json
import threading
import time
from typing import Literal

import pytest
from pydantic import BaseModel

from runtime import Engine, Sampling, tool
from runtime.errors import InvalidPruning, MisdeclaredTool, RecordingFailed
from runtime.tasks import Task, ToolUse
from runtime.tasks.events import Answered, FieldDelta, ListPruned, NodeOpened, ToolAnswered, ToolRequested
from runtime.tasks.recording import read_recording, replay
from runtime.tasks.run import drive
from tests.conftest import MODES

FAMILY = {("Maud", "friend"): "Hugh", ("Hugh", "sister"): "Edith", ("Edith", "teacher"): "Norbert"}


def lookup(name: str, relation: str) -> str:
    """Who somebody's friend, sister or teacher is."""
    return FAMILY.get((name, relation), "unknown")


def calc(expression: str) -> int:
    """One operation on two whole numbers."""
    left, operator, right = __import__("re").fullmatch(r"(\d+)([+*-])(\d+)", expression).groups()
    return {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[operator]


@pytest.fixture(scope="module")
def ember():
    with Engine.load(slots=4000) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _no_slot_leaks(ember):
    yield
    ember.check()
    assert ember.pool.free == ember.pool.size


def test_the_bundled_model_reasons_with_a_tool(ember):
    run = ember.reason("What is 12+30?", [calc])
    assert run.answer == "42"
    assert run.finish_reason == "stop"
    assert run.tree.calls == run.stats.tool_calls == 1


def test_events_tell_the_tree_as_it_grows(ember):
    run = ember.reason("Who is the sister of Maud's friend?", [lookup])
    events = list(run)
    kinds = [type(event) for event in events]
    assert kinds[0] is NodeOpened
    assert kinds[-1] is Answered
    assert run.answer == "Edith"
    requests = [event for event in events if isinstance(event, ToolRequested)]
    answers = [event for event in events if isinstance(event, ToolAnswered)]
    assert [event.node for event in requests] == [event.node for event in answers]
    for request, answer in zip(requests, answers, strict=True):
        assert lookup(**request.parameters) == answer.result
    for node in {event.node for event in events if isinstance(event, FieldDelta)}:
        for name, text in run.tree.node(node).fields.items():
            deltas = [
                event.text for event in events if isinstance(event, FieldDelta) and (event.node, event.field) == (node, name)
            ]
            assert "".join(deltas) == text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", [0, 1, None])
def test_what_is_pruned_has_left_the_context(ember, keep, mode, eager):
    sampling = Sampling(max_tokens=250, temperature=0)
    run = ember.reason("What is ((3+4)*5-6)*2?", [calc], keep=keep, mode=mode, sampling=sampling)
    pruned = 0
    for event in run:
        pruned += isinstance(event, ListPruned)
        if isinstance(event, ListPruned) and mode == "exact":
            expected = eager(ember.model_path)(run.context.token_ids)
            assert (run.context.logits() - expected).abs().max() < 1e-3
            assert '"subtasks":[]' in run.context.text
    stats = run.stats
    if keep is None:
        assert (pruned, stats.pruned_tokens, stats.peak_tokens) == (0, 0, stats.resident_tokens)
    else:
        assert pruned > 0
        assert stats.pruned_share > 0.2
        assert stats.peak_tokens < stats.resident_tokens + stats.pruned_tokens
    if mode != "exact" and pruned:
        assert stats.encoded_tokens <= stats.emitted_tokens + len(run.context.token_ids) + 40


def test_runs_are_written_together_while_tools_are_at_work(ember):
    together = threading.Barrier(4, timeout=20)  # passes only if all four runs have a tool at work at one time

    @tool(name="lookup")
    def meeting(name: str, relation: str) -> str:
        together.wait()
        return lookup(name, relation)

    question = "Who is the sister of Maud's friend?"
    alone = ember.reason(question, [lookup]).run()
    steps = ember.stats.steps
    runs = [ember.reason(question, [meeting]) for _ in range(4)]
    for _ in drive(runs):
        pass
    assert [run.answer for run in runs] == [alone.answer] * 4
    assert ember.stats.steps - steps < 4 * alone.stats.emitted_tokens


def test_a_tool_that_fails_or_hangs_is_a_result_that_the_model_reads(ember):
    @tool(name="lookup")
    def broken(name: str, relation: str) -> str:
        raise RuntimeError("the archive is closed")

    @tool(name="lookup", timeout=0.05)
    def hanging(name: str, relation: str) -> str:
        time.sleep(5)
        return "never"

    for offered, said in ((broken, "the archive is closed"), (hanging, "0.05 seconds")):
        run = ember.reason("Who is Maud's friend?", [offered], sampling=Sampling(max_tokens=150, temperature=0))
        results = [event.result for event in run if isinstance(event, ToolAnswered)]
        assert said in results[0]["error"]


def test_a_result_that_is_too_large_is_cut_with_a_note(ember):
    @tool(name="lookup", max_result=200)
    def long(name: str, relation: str) -> str:
        return "Bram " * 1000

    run = ember.reason("Who is Maud's friend?", [long], sampling=Sampling(max_tokens=300, temperature=0))
    result = next(event.result for event in run if isinstance(event, ToolAnswered))
    assert len(result) <= 200
    assert "left out" in result


def test_a_number_from_a_tool_stays_as_it_is(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3", positions=2048), slots=2000) as engine:

        class Step(BaseModel):
            tooluse: ToolUse
            conclusion: Literal["done"]

        def number() -> float:
            return 42

        for seed in range(10):
            run = engine.reason("?", [number], tasks=[Step], sampling=Sampling(max_tokens=120, seed=seed))
            results = [event.result for event in run if isinstance(event, ToolAnswered)]
            assert set(results) <= {42}


def test_every_tokenizer_gets_the_text_that_remains(make_checkpoint):
    # Tokens of this tokenizer straddle the brackets of lists.
    with Engine.load(make_checkpoint("qwen3", positions=2048), slots=4000) as engine:
        pruned = 0
        for seed in range(12):
            run = engine.reason("?", [], sampling=Sampling(max_tokens=250, seed=seed, temperature=1.5))
            for event in run:
                if isinstance(event, ListPruned):
                    pruned += 1
                    text = run.context.text
                    assert text.endswith(run._resident.text) or "\ufffd" in text
            whole = run.tree.to_json()
            assert run.finish_reason in ("stop", "length")
            if run.finish_reason == "stop":
                json.dumps(whole)
        engine.check()
        assert engine.pool.free == engine.pool.size
        assert pruned > 0


def test_typed_trees_have_the_callers_fields(ember):
    class Guess(BaseModel):
        idea: str
        verdict: Literal["good", "bad"]
        conclusion: str

    class Verdict(BaseModel):
        sure: bool

    run = ember.reason("Is it so?", tasks=[Guess], answer=Verdict, sampling=Sampling(max_tokens=150, seed=4))
    run.run()
    for node in run.tree.reasoning:
        assert list(node.fields)[:2] == ["idea", "verdict"][: len(node.fields)]
    if run.finish_reason == "stop":
        assert Verdict.model_validate(run.answer)


def test_a_run_is_recorded_to_its_last_token_wherever_it_ends(ember, tmp_path):
    for tokens in range(1, 44, 2):  # among sampled tokens, forced ones, and those of a result
        file = tmp_path / f"{tokens}.jsonl"
        run = ember.reason("What is 12+30?", [calc], record=file, sampling=Sampling(max_tokens=tokens, temperature=0)).run()
        assert (run.finish_reason, run.stats.emitted_tokens) == ("length", tokens)
        assert sum(len(step.token_ids) for step in read_recording(file).steps) == tokens


def test_a_run_is_recorded_and_replayed(ember, tmp_path):
    file = tmp_path / "run.jsonl"
    run = ember.reason("Who is the sister of Maud's friend?", [lookup], record=file)
    events = list(run)
    recording = read_recording(file)
    assert [event for step in recording.steps for event in step.events] == events
    assert [event for _, found in replay(recording) for event in found] == events
    assert sum(len(step.token_ids) for step in recording.steps) == run.stats.emitted_tokens
    assert recording.steps[-1].resident == run.stats.resident_tokens
    assert recording.header.question == "Who is the sister of Maud's friend?"


def test_cancel_ends_a_run_between_two_tokens(ember):
    run = ember.reason("Who is the sister of Maud's friend?", [lookup])
    for count, _ in enumerate(run):
        if count == 3:
            run.cancel()
    assert run.finish_reason == "cancelled"
    assert run.answer is None


def test_cancel_does_not_wait_for_a_tool(ember):
    started = threading.Event()

    @tool(name="lookup", timeout=30)
    def hanging(name: str, relation: str) -> str:
        started.set()
        time.sleep(20)
        return ""

    run = ember.reason("Who is Maud's friend?", [hanging])
    thread = threading.Thread(target=run.run)
    began = time.perf_counter()
    thread.start()
    assert started.wait(10)
    run.cancel()
    thread.join(10)
    assert run.finish_reason == "cancelled"
    assert time.perf_counter() - began < 10


def test_the_most_tokens_end_a_run(ember):
    run = ember.reason("Who is the sister of Maud's friend?", [lookup], sampling=Sampling(max_tokens=30, temperature=0))
    assert run.answer is None
    assert (run.finish_reason, run.stats.emitted_tokens) == ("length", 30)


def test_what_cannot_run_is_refused_before_anything_runs(ember, tmp_path):
    def untyped(name):
        return name

    with pytest.raises(MisdeclaredTool, match="untyped"):
        ember.reason("?", [untyped])
    with pytest.raises(InvalidPruning, match="keep=-1"):
        ember.reason("?", keep=-1)
    (tmp_path / "there").touch()
    with pytest.raises(RecordingFailed, match="already"):
        ember.reason("?", record=tmp_path / "there")


def test_a_model_with_a_system_text_is_told_the_format(make_checkpoint):
    with Engine.load(make_checkpoint("qwen3", positions=4096), slots=4000) as engine:
        run = engine.reason("Who?", [lookup], tasks=[Task])
        assert "Who somebody's friend, sister or teacher is." in run.context.text
        assert run.context.text.endswith("Tools: lookup\nQuestion: Who?<|end|>\n<|turn|>assistant\n")
        run.cancel()
