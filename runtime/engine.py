"""The engine: one model, its tokenizer and its slot pool, and the contexts that run on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from runtime.attention import Extend
from runtime.chat import ChatFormat
from runtime.context import Context, Mode
from runtime.errors import EngineClosed
from runtime.grammar import Grammar, GrammarCompiler
from runtime.loading import load_model
from runtime.sampling import Sampling
from runtime.slots import SlotPool

# Tokens that go through the model in one forward at most: it bounds the memory that a long prompt takes.
_EXTEND_TOKENS = 1024
# Private use, so a part of no other token: later text is encoded behind it where a tokenizer would begin with a space.
_SENTINEL = "\ue000"
# The pool takes this share of the memory that is free, and never holds more than this many contexts of full length.
_POOL_SHARE, _POOL_CONTEXTS = 0.25, 4


class Engine:
    """Runs a model for live contexts. `Engine.load()` makes one."""

    def __init__(
        self, model_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, slots: int | None = None
    ) -> None:
        self.model_path = model_path
        """The folder that the weights came from."""
        self.model = model
        self.tokenizer = tokenizer
        config: Any = model.config
        self.vocab_size = int(config.vocab_size)
        self.max_positions = int(config.max_position_embeddings)
        self.eos_ids = self._eos_ids()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, config.num_key_value_heads, head_dim)
        self.pool = SlotPool(
            shape[0], slots or self._default_slots(*shape), shape[1], shape[2], dtype=model.dtype, device=model.device
        )
        self._contexts: WeakSet[Context] = WeakSet()
        self._closed = False

    @classmethod
    def load(
        cls, model: str | os.PathLike[str] | None = None, *, device: str = "auto", dtype: str = "auto", slots: int | None = None
    ) -> Engine:
        """Load a model: a folder, a Hugging Face id, or None for the one that comes with the package.

        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            dtype: "auto" (float32 on a CPU, else that of the weights), "float32", "bfloat16" or "float16".
            slots: how many tokens can be resident at once, over all contexts; None: as the memory allows.

        Raises:
            ModelNotFound, ModelBroken, UnsupportedModel, UnsupportedDevice: with what to do about it.
        """
        folder, loaded, tokenizer = load_model(model, device, dtype)
        return cls(folder, loaded, tokenizer, slots)

    def context(self, content: str | Sequence[int] | None = None, *, mode: Mode = "exact") -> Context:
        """A new live context, empty or with its first text."""
        if self._closed:
            raise EngineClosed("The engine was closed: load another with Engine.load().")
        context = Context(self, mode)
        self._contexts.add(context)
        if content is not None:
            context.append(content)
        return context

    def generate(self, prompts: Sequence[str], sampling: Sampling | None = None) -> list[str]:
        """The text that follows each prompt, every one in a context of its own."""
        texts = []
        for prompt in prompts:
            with self.context(prompt) as context:
                texts.append(context.generate(sampling).run())
        return texts

    def close(self) -> None:
        """Close every context and let the weights go. The engine cannot be used afterwards."""
        for context in list(self._contexts):
            context.close()
        if not self._closed:
            self._closed = True
            del self.model

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, text: str, *, first: bool = False, special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            first: add what the tokenizer puts before a text by itself: special tokens, a space; else the text goes on from
                other text.
            special: read the names of special tokens in the text as such; False for text that nobody vouches for.
        """
        sentinel, cut = ("", 0) if first else self._sentinel
        encoded = self.tokenizer(sentinel + text, add_special_tokens=first, split_special_tokens=not special)
        return list(encoded["input_ids"][cut:])

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of token ids; `special` keeps the names of special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))

    @cached_property
    def chat(self) -> ChatFormat:
        """The pieces of text that the model's chat template puts around turns."""
        return ChatFormat.of(self.tokenizer)

    def check(self) -> None:
        """Assert that every slot in use belongs to a context that is still open."""
        self.pool.check([context.slots for context in self._contexts])

    # What follows is for the runtime's own modules.

    def grammar(self, schema: Mapping[str, Any]) -> Grammar:
        return self._grammars.compile(schema)

    @torch.inference_mode()
    def extend(self, slots: list[int], new: Sequence[int]) -> Tensor:
        """Encode `new` token ids behind the tokens in `slots`, to which their slots are added.

        Returns the logits behind the last one, float32 `[vocab]` on the CPU. Raises `SlotsExhausted`, changing nothing.
        """
        taken = self.pool.take(len(new))
        begin = len(slots)
        device = self.model.device
        row = torch.tensor(slots + taken, device=device)
        try:
            for at in range(0, len(new), _EXTEND_TOKENS):
                ids = torch.tensor([new[at : at + _EXTEND_TOKENS]], device=device)
                stop = begin + at + ids.shape[1]
                output = self.model(
                    input_ids=ids,
                    position_ids=torch.arange(begin + at, stop, device=device)[None],
                    use_cache=False,
                    logits_to_keep=1,
                    extend=Extend(self.pool, row[:stop]),
                )
        except BaseException:
            self.pool.release(taken)
            raise
        slots += taken
        logits: Tensor = output.logits[0, -1]
        return logits.float().cpu()

    @cached_property
    def _sentinel(self) -> tuple[str, int]:
        """What to encode later text behind, and its number of tokens; nothing where a piece alone gets no space."""
        if self.tokenizer.tokenize("a") == ["a"]:
            return "", 0
        return _SENTINEL, len(self.tokenizer.tokenize(_SENTINEL))

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        return GrammarCompiler(self.tokenizer, self.vocab_size, sorted(self.eos_ids))

    def _eos_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        found = configured if isinstance(configured, list) else [configured, self.tokenizer.eos_token_id]
        return frozenset(token for token in found if token is not None)

    def _default_slots(self, layers: int, kv_heads: int, head_dim: int) -> int:
        if self.model.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.model.device)
        else:
            free = psutil.virtual_memory().available
        per_slot = 2 * layers * kv_heads * head_dim * self.model.dtype.itemsize
        return max(1, min(int(_POOL_SHARE * free) // per_slot, _POOL_CONTEXTS * self.max_positions))
