"""Tokenizer, data, model and training: small, but the real thing from end to end."""

from __future__ import annotations

import json
import lzma
import random
from itertools import islice

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from runtime import Engine, Sampling
from runtime.chat import ChatFormat
from training import build, train
from training import data as data_module
from training.books import PlanGuesser, read_books
from training.data import LENGTHS, Encoded, batches, encode, read_shard
from training.examples import CHAT, Source
from training.model import Ember, Shape, export
from training.tokenizer import train_tokenizer
from training.trees.task import dumps


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A few short books."""
    folder = tmp_path_factory.mktemp("books")
    sentences = [
        f'"It is {w}," said Mr. {n}, and the {w} of it pleased Lady {n} more than she would say.'
        for w in ("lamp", "storm", "carriage")
        for n in ("Orme", "Vale")
    ]
    paragraphs = [" ".join(random.Random(i).sample(sentences, 4)) for i in range(40)]
    with lzma.open(folder / "books.jsonl.xz", "wt") as stream:
        for number in range(build.HELD_OUT_BOOKS + 2):
            stream.write(json.dumps({"title": f"Book {number}", "author": "A. Hand", "text": "\n\n".join(paragraphs)}) + "\n")
    return folder


@pytest.fixture(scope="module")
def data(books, tmp_path_factory):
    """A tokenizer and two small shards, made by the command."""
    out = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(build, "VOCABULARY", 1200)
        monkeypatch.setattr(
            build, "SAMPLE", {"stories": 60, "plans": 20, "trees": 40, "walks": 20, "prose": 20, "book_steps": 10}
        )
        assert (
            build.main(["--books", str(books), "--out", str(out), "--shards", "2", "--tokens", "60000", "--workers", "1"]) == 0
        )
    return out


def test_the_chat_format_of_the_data_is_that_of_the_tokenizer(data):
    assert ChatFormat.of(AutoTokenizer.from_pretrained(data)) == CHAT


def test_no_token_crosses_the_border_of_a_list_of_subtasks(data):
    tokenizer = AutoTokenizer.from_pretrained(data)
    task = {"thought": "level 1", "subtasks": [{"thought": "a", "conclusion": "b"}], "conclusion": "b"}
    text = dumps({"reasoning": [task, task], "answer": "b"})
    tokens = tokenizer.tokenize(text)
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(tokens)) == text
    assert '","subtasks":[' in tokens
    assert '],"conclusion":"' in tokens
    assert '{"thought":"' in tokens
    assert ',{"thought":"' in tokens


def test_text_survives_the_tokenizer():
    tokenizer = train_tokenizer(["some words to learn"], 400)
    for text in ('He said, "No."\n\n1. caf\u00e9 \u2014 \U0001f600', ' {"a": [1, 2]}  x', "\t\r\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_shard_holds_what_was_put_in(data, books):
    tokenizer = AutoTokenizer.from_pretrained(data)
    examples = read_shard(data / "000.npz")
    report = json.loads((data / "000.json").read_text())
    assert sum(len(example.ids) for example in examples) == sum(report["tokens"].values())
    assert set(report["tokens"]) == set(build.MIX)
    assert sum(int((example.weights == 10).sum()) for example in examples) == report["learned_tokens"]
    source = Source(3, list(read_books(books)))
    example = next(source.stories())
    encoded = encode(example, tokenizer)
    assert tokenizer.decode(encoded.ids) == "".join(part.text for part in example.parts)
    learned = tokenizer.decode(encoded.ids[encoded.weights == 10])
    assert learned == "".join(part.text for part in example.parts if part.weight == 1)


def test_building_again_makes_nothing_new(data, books):
    before = {file: file.stat().st_mtime_ns for file in data.iterdir()}
    build.main(["--books", str(books), "--out", str(data), "--shards", "2", "--tokens", "60000", "--workers", "1"])
    assert before == {file: file.stat().st_mtime_ns for file in data.iterdir()}


def test_the_inference_prompt_is_the_training_prompt(data, tmp_path):
    """Token for token: what the program makes a model read is what training showed it."""
    from recurrent_writer import prompt
    from training.examples import step_example
    from training.world.course import Course

    tokenizer = AutoTokenizer.from_pretrained(data)
    export(Ember(Shape(len(tokenizer), width=32, layers=1, heads=1, kv_heads=1, head_dim=32, hidden=32)), tokenizer, tmp_path)
    step = next(islice(Course(4), 5, None))
    encoded = encode(step_example(step), tokenizer)
    with Engine.load(tmp_path) as engine:
        segments = [
            *prompt.opening(engine.chat, step.premise, step.style),
            *(segment for paragraph in step.recent for segment in prompt.recent(paragraph)),
            *prompt.task(engine.chat, step.recalled, step.memory, step.plan),
        ]
        before = prompt.encode(engine, segments)
        after = prompt.encode(engine, prompt.update(engine.chat))
        paragraph = engine.encode(step.paragraph, special=False)
        reply = engine.encode(step.bookkeeping.to_json(), special=False)
        end = engine.encode("<|im_end|>")
    assert encoded.ids.tolist() == [*before, *paragraph, *after, *reply, *end]


@pytest.mark.parametrize("guess", range(20))
def test_a_guessed_plan_names_what_is_in_the_paragraph(books, guess):
    found = list(read_books(books))
    paragraph = found[0].paragraphs[guess]
    plan = PlanGuesser(found).guess(paragraph, random.Random(guess))
    assert any(word.strip(".,:;").lower() in paragraph.lower() for word in plan.split()[-3:])


def test_batches_hold_every_full_row_once():
    rng = random.Random(1)
    examples = [
        Encoded(np.full(rng.randint(5, 400), n % 60000, np.uint16), np.full(1, 10, np.uint8).repeat(1)) for n in range(300)
    ]
    examples = [Encoded(e.ids, np.full(len(e.ids), 10, np.uint8)) for e in examples]
    seen = []
    for batch in batches(examples, 2048, 4096, random.Random(2)):
        assert batch.ids.shape[1] in LENGTHS
        assert batch.tokens <= 2048
        assert (batch.positions[:, 1:] > batch.positions[:, :-1]).all()
        assert int(batch.positions.max()) < 4096
        for row, weights in zip(batch.ids, batch.weights, strict=True):
            seen.append(int(row[0]))
            assert int((weights == 1).sum()) == len(examples[seen[-1]].ids)
    assert len(seen) == len(set(seen))
    assert len(seen) > 250


def test_names_that_are_given_count_more():
    given, learned = [7, 8, 9] * 3, [1, 7, 1, 5]
    example = Encoded(np.array(given + learned, np.uint16), np.array([0] * 9 + [10] * 4, np.uint8))
    common = Encoded(np.ones(100_000, np.uint16), np.zeros(100_000, np.uint8))
    rare = data_module._rare_tokens([example, common])
    batch = data_module._batch([example], 16, rare, 4096, random.Random(3))
    assert batch.weights[0, 9:13].tolist() == [1, data_module.COPIED_WEIGHT, 1, 1]
    assert batch.weights[0, :9].sum() == batch.weights[0, 13:].sum() == 0


def test_the_model_is_what_transformers_loads(tmp_path):
    tokenizer = train_tokenizer(["Ada hid the key."], 400)
    torch.manual_seed(3)
    model = Ember(Shape(len(tokenizer), width=64, layers=2, heads=2, kv_heads=1, head_dim=32, hidden=96)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1, 0.2)
    export(model, tokenizer, tmp_path, torch.float32)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)
    ids, positions = torch.randint(0, len(tokenizer), (2, 40)), torch.arange(40)[None] + 11
    with torch.inference_mode():
        ours = model.logits(model(ids, positions.expand(2, -1)))
        theirs = oracle(ids, position_ids=positions).logits
    assert (ours - theirs).abs().max() < 1e-4


def test_training_learns_stops_goes_on_and_exports(data, tmp_path, monkeypatch, capsys):
    small = [
        "--width",
        "64",
        "--layers",
        "2",
        "--hidden",
        "96",
        "--batch",
        "2048",
        "--no-compile",
        "--data",
        str(data),
        "--run",
        str(tmp_path),
    ]
    monkeypatch.setattr(train, "_WARM_UP", 10)
    assert train.main([*small, "--tokens", "120000"]) == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 6.5 < np.log(1200)
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progressed"]
    assert first["tokens"] >= 120000
    assert train.main([*small, "--tokens", "150000"]) == 0
    second = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progressed"]
    assert second["tokens"] >= 150000
    assert second["step"] > first["step"]
    assert train.main([*small, "--decay", "20000"]) == 0
    assert not (tmp_path / "decay.pt").exists()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progressed"]["tokens"] >= second["tokens"] + 20000
    with Engine.load(tmp_path / "export") as engine, engine.context("Question:") as context:
        assert context.generate(Sampling(max_tokens=5, seed=1)).run()


def test_commands_say_what_is_missing(tmp_path, capsys):
    for command, arguments in ((train, ["--data", str(tmp_path)]), (build, ["--books", str(tmp_path), "--out", str(tmp_path)])):
        with pytest.raises(SystemExit) as stop:
            command.main(arguments)
        assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "run 'python -m training.build' first" in err
    assert "there are no books" in err
