"""What every test shares: no network but loopback, and tiny models made on the spot."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

_LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(host).startswith(_LOOPBACK):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


_SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_MORE: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 12},
    "qwen2": {"hidden_size": 64},
    "qwen3": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gemma2": {"sliding_window": 12, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0},
    "gemma3_text": {
        "sliding_window": 12,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "phi3": {"hidden_size": 64, "pad_token_id": 0},
    "olmo2": {"hidden_size": 64},
    "smollm3": {"hidden_size": 64, "pad_token_id": 0, "no_rope_layers": [1, 0]},
    "granite": {"hidden_size": 64, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    "gpt_oss": {
        "sliding_window": 12,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "stablelm": {"hidden_size": 64, "partial_rotary_factor": 0.25},
    "gpt_neox": {"hidden_size": 64},
}
ARCHITECTURES = tuple(_MORE)
MODES = ("exact", "gap", "rotate")

_TEXT = [
    'Ada hid the brass key under the stair, and Bram saw it. "Why?" he said; nobody knew.',
    '{"drop":[{"number":1,"why":"it is over"}],"add":[],"plans":["a","b","c"]}',
    "caf\u00e9 na\u00efve \u2014 \u4f60\u597d \U0001f600",
]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|end|>", "<|turn|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 4, trainer)
    template = (
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template)


def save_checkpoint(
    folder: Path, tokenizer: PreTrainedTokenizerFast, architecture: str, *, scale: float = 4, **settings: Any
) -> None:
    """Write a random model of an architecture with these settings, and the tokenizer with it."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():  # away from the flat logits of a fresh model
        parameter.data *= scale if parameter.ndim > 1 else 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """Makes a folder with a tiny random model of an architecture; the same one when asked again."""
    made: dict[tuple[str, int], Path] = {}

    def make(architecture: str, positions: int = 256) -> Path:
        if (architecture, positions) not in made:
            folder = tmp_path_factory.mktemp(architecture)
            sizes = {**_SIZES, **_MORE[architecture], "max_position_embeddings": positions}
            save_checkpoint(folder, tiny_tokenizer, architecture, eos_token_id=tiny_tokenizer.eos_token_id, **sizes)
            made[architecture, positions] = folder
        return made[architecture, positions]

    return make


@pytest.fixture(scope="session")
def tiny_engine(make_checkpoint: Callable[..., Path]) -> Iterator[Any]:
    """An engine on a tiny Qwen3."""
    from runtime import Engine

    with Engine.load(make_checkpoint("qwen3"), slots=2000) as engine:
        yield engine


@pytest.fixture(scope="session")
def eager() -> Callable[[Path], Callable[[list[int]], torch.Tensor]]:
    """The oracle: next-token logits of a fresh Hugging Face run with eager attention."""
    loaded: dict[Path, PreTrainedModel] = {}

    def of(folder: Path) -> Callable[[list[int]], torch.Tensor]:
        if folder not in loaded:
            loaded[folder] = AutoModelForCausalLM.from_pretrained(
                folder, attn_implementation="eager", dtype=torch.float32
            ).eval()

        @torch.inference_mode()
        def logits(ids: list[int]) -> torch.Tensor:
            return loaded[folder](torch.tensor([ids]), use_cache=False).logits[0, -1]

        return logits

    return of


def make_it_say(monkeypatch: pytest.MonkeyPatch, engine: Any, ids: Iterable[int]) -> None:
    """Make the model want exactly these tokens, one after the other."""
    wanted = iter(ids)

    def forward(batch: Any) -> Any:
        row = np.full((len(batch.wanted), engine.vocab_size), -10.0, np.float32)
        row[:, next(wanted)] = 10.0
        return row

    monkeypatch.setattr(engine.decoder, "forward", forward)
