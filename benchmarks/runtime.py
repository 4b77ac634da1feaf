"""The runtime against others, and against itself: ratios taken side by side in one run.

`python -m benchmarks.runtime` takes about five minutes on two cores. Every ratio is the median of several pairs, with the least and the
greatest; the two of a pair run one after the other. The part `peer` wants llama.cpp: `pip install -e '.[peers]'`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from benchmarks.llama_cpp_peer import Dtype, LlamaCpp, PeerMissing, check_installed
from runtime import Engine, Run, Sampling
from runtime.loading import BUNDLED
from runtime.mode import Mode
from runtime.tasks.events import ToolAnswered
from runtime.tasks.recording import read_recording

PROMPT = "Premise: Ada keeps the lighthouse.\nStory so far:\n"
TOKENS, PAIRS, CONTEXTS = 128, 5, 16
TREE_TOKENS, WINDOW = 20_000, 1000
SAME_TOKENS = 32  # that llama.cpp and we must agree on
_UNPRUNED = 3500  # tokens that still have a position


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio or a share, and what it shall be."""

    what: str
    model: str
    value: float
    least: float
    greatest: float
    aim: str
    note: str = ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(_PARTS), help="parts to measure")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1, help="threads of torch")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    parts = list(_PARTS) if options.only is None else options.only
    if "peer" in parts:
        try:
            check_installed()
        except PeerMissing as fault:
            print(fault, file=sys.stderr)
            if options.only is not None:
                return 2
            parts.remove("peer")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        models = {"bundled": BUNDLED, "100 M": _random_model(Path(folder))}
        rows = [row for part in parts for row in _PARTS[part](models)]
    table = Table("what", "model", "measured", "least", "greatest", "aim", "note")
    for row in rows:
        table.add_row(row.what, row.model, f"{row.value:.3g}", f"{row.least:.3g}", f"{row.greatest:.3g}", row.aim, row.note)
    Console(width=140).print(table)
    if options.json:
        machine = f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {options.threads} threads"
        figures = {"machine": machine, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def decode(models: dict[str, Path]) -> Iterator[Row]:
    """Tokens per second of one context, after its prompt, against Hugging Face `generate`."""
    for name, path in models.items():
        peer = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with Engine.load(path, dtype="float32") as engine:
            ids = engine.encode(PROMPT, first=True)
            aim = {"bundled": "at least 2", "100 M": "at least 1.2"}[name]
            theirs, ours = partial(_generate, peer, [ids]), partial(_ours, engine, [ids])
            yield _ratio("decode: Hugging Face generate / ours", name, theirs, ours, aim)


def peer(models: dict[str, Path]) -> Iterator[Row]:
    """The same against llama.cpp, which has the same weights in the same precision."""
    kinds: list[tuple[Dtype, str, str]] = [("float32", "decode", "at least 0.5"), ("bfloat16", "decode in bfloat16", "")]
    for dtype, what, aim in kinds:
        for name, path in models.items():
            with Engine.load(path, dtype=dtype) as engine, LlamaCpp(path, dtype) as other:
                ids = engine.encode(PROMPT, first=True)
                if (name, dtype) == ("bundled", "float32"):
                    assert other.decode(ids, SAME_TOKENS)[0] == _greedy(engine, ids, SAME_TOKENS), "not the same work"
                theirs, ours = partial(_llama_cpp, other, ids), partial(_ours, engine, [ids])
                yield _ratio(f"{what}: llama.cpp / ours", name, theirs, ours, aim)


def batch(models: dict[str, Path]) -> Iterator[Row]:
    """16 contexts at once: against one after another, and against Hugging Face `generate_batch`."""
    with Engine.load(models["bundled"]) as engine:
        prompts = [engine.encode(f"{PROMPT}{number} ", first=True) for number in range(CONTEXTS)]
        yield _ratio(
            f"{CONTEXTS} contexts: one after another / at once",
            "bundled",
            lambda: sum(_ours(engine, [ids]) for ids in prompts),
            partial(_ours, engine, prompts),
            "at least 4",
        )
        peer = AutoModelForCausalLM.from_pretrained(models["bundled"], dtype=torch.float32).eval()
        yield _ratio(
            f"{CONTEXTS} contexts: Hugging Face generate_batch / ours",
            "bundled",
            partial(_generate_batch, peer, prompts),
            partial(_ours, engine, prompts),
            "at least 2",
        )


def tree(models: dict[str, Path]) -> Iterator[Row]:
    """A task tree of 20,000 tokens and more: whether late tokens cost more than early ones, and what is not the forward."""
    with Engine.load(models["bundled"]) as engine:
        run, times, _ = _walk(engine, TREE_TOKENS, keep=0)
        note = f"{run.stats.emitted_tokens:,} tokens, at most {run.stats.peak_tokens} resident, {run.stats.pruned_share:.1%} pruned"
        yield _late_over_early("task tree: a late token / an early one, pruned", times, "at most 1.1", note)
        times = _unpruned(engine, _UNPRUNED)
        note = f"the first {len(times):,} tokens of the same, as many as there are positions"
        yield _late_over_early("task tree: a late token / an early one, not pruned", times, "", note)
    for name, path in models.items():
        with Engine.load(path) as engine:
            shares = [_share(engine, name) for _ in range(PAIRS)]
            aim = {"bundled": "at most 0.15", "100 M": "at most 0.05"}[name]
            yield Row("task tree: share that is not the forward", name, median(shares), min(shares), max(shares), aim)


def edit(models: dict[str, Path]) -> Iterator[Row]:
    """Tokens encoded again for an edit in the middle, in parts of the tail."""
    with Engine.load(models["bundled"]) as engine:
        modes: dict[Mode, str] = {"exact": "1", "gap": "0", "rotate": "0"}
        for mode, aim in modes.items():
            with engine.context([50] * 200, mode=mode) as context:
                middle = context.append([60] * 100)
                tail = context.append([70] * 300)
                context.logits()
                before = context.stats.encoded_tokens
                context.drop(middle)
                context.append([80])
                context.logits()
                again = (context.stats.encoded_tokens - before - 1) / len(tail)
            yield Row(f"edit in the middle, mode {mode}: tail encoded again", "bundled", again, again, again, aim)


_PARTS: dict[str, Callable[[dict[str, Path]], Iterator[Row]]] = {
    "decode": decode,
    "peer": peer,
    "batch": batch,
    "tree": tree,
    "edit": edit,
}


def _ratio(what: str, model: str, other: Callable[[], float], ours: Callable[[], float], aim: str) -> Row:
    other(), ours()  # warm
    pairs = [other() / ours() for _ in range(PAIRS)]
    return Row(what, model, median(pairs), min(pairs), max(pairs), aim, f"ours {ours() / TOKENS * 1e3:.2f} ms a step")


def _ours(engine: Engine, prompts: list[list[int]]) -> float:
    """Seconds for the tokens behind the prompts, all together."""
    from runtime.generation import advance

    contexts = [engine.context(ids) for ids in prompts]
    for context in contexts:
        context.logits()
    sampling = Sampling(max_tokens=TOKENS, temperature=0, ignore_eos=True)
    began = time.perf_counter()
    for _ in advance([context.generate(sampling) for context in contexts]):
        pass
    seconds = time.perf_counter() - began
    for context in contexts:
        context.close()
    return seconds


def _greedy(engine: Engine, prompt: list[int], tokens: int) -> list[int]:
    """Our likeliest tokens behind a prompt."""
    with engine.context(prompt) as context:
        generation = context.generate(Sampling(max_tokens=tokens, temperature=0, ignore_eos=True))
        generation.run()
        return [choice.token for choice in generation.choices]


def _llama_cpp(peer: LlamaCpp, prompt: list[int]) -> float:
    return peer.decode(prompt, TOKENS)[1]


@torch.inference_mode()
def _generate(model: Any, prompts: list[list[int]]) -> float:
    """The same with Hugging Face: a run of many tokens less one of a single token, which is the prompt."""

    def seconds(tokens: int) -> float:
        began = time.perf_counter()
        model.generate(torch.tensor(prompts), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
        return time.perf_counter() - began

    return seconds(TOKENS + 1) - seconds(1)


@torch.no_grad()  # its buffers are changed in place by a thread of its own
def _generate_batch(model: Any, prompts: list[list[int]]) -> float:
    config = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(num_blocks=64, block_size=32, max_batch_tokens=512)
    began = time.perf_counter()
    outputs = model.generate_batch(
        inputs=prompts, generation_config=config, continuous_batching_config=batching, progress_bar=False
    )
    seconds = time.perf_counter() - began
    assert [len(output.generated_tokens) for output in outputs.values()] == [TOKENS] * len(prompts), "a request failed"
    return seconds


def _walk(engine: Engine, tokens: int, keep: int | None, record: Path | None = None) -> tuple[Run, list[float], float]:
    """The largest item of a list that does not end: the time of every token. (The bundled model was trained on such walks.)"""
    numbers = iter(range(10**9))

    def item() -> int | str:
        """The next item."""
        return next(numbers) * 37 % 89

    run = engine.reason(
        "What is the largest item of the list?",
        [item],
        keep=keep,
        sampling=Sampling(max_tokens=tokens, temperature=0),
        record=record,
    )
    began = time.perf_counter()
    times: list[float] = []
    for event in run:
        if isinstance(event, ToolAnswered):
            times += [time.perf_counter() - began] * (run.stats.emitted_tokens - len(times))
    return run, times, time.perf_counter() - began


def _unpruned(engine: Engine, tokens: int) -> list[float]:
    """The time of every token of such a walk when all of it stays: read from its recording, as the model was not trained to write so."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "walk.jsonl"
        _walk(engine, tokens, keep=0, record=file)
        trace = [token for step in read_recording(file).steps for token in step.token_ids]
    times = []
    with engine.context(PROMPT) as context:
        began = time.perf_counter()
        for token in trace:
            context.append([token])
            context.logits()
            times.append(time.perf_counter() - began)
    return times


def _late_over_early(what: str, times: list[float], aim: str, note: str) -> Row:
    early, late = times[WINDOW] - times[0], times[-1] - times[-WINDOW]
    return Row(
        what, "bundled", late / early, late / early, late / early, aim, f"{note}; {early / WINDOW * 1e3:.2f} ms an early token"
    )


def _share(engine: Engine, name: str) -> float:
    """The share of a tree's time that is not the model's forward; the tools' own time is not counted."""
    forward, tools = engine.stats.forward_seconds, engine.stats.tool_seconds
    run, _, seconds = _walk(engine, 600 if name == "bundled" else 150, keep=0)
    forward, tools = engine.stats.forward_seconds - forward, engine.stats.tool_seconds - tools
    run.cancel()
    return 1 - forward / (seconds - tools)


def _random_model(folder: Path) -> Path:
    """A Qwen3 of about 100 million random parameters, with the bundled tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2304,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
