"""The engine: one model, its tokenizer and its slot pool, and the contexts that run on them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from runtime.arrays import Slots
from runtime.chat import ChatFormat
from runtime.context import Context
from runtime.conversation import Conversation
from runtime.errors import EngineClosed, InvalidPool, OutOfMemory, UnsupportedMode
from runtime.generation import advance
from runtime.grammars.grammar import GrammarCompiler
from runtime.loading import TESTED, free_memory, load_model
from runtime.mode import Fallback, Mode, check_fallback, check_mode
from runtime.models.fast_decoder import FastDecoder
from runtime.models.recurrent import RecurrentModel, is_recurrent
from runtime.models.transformer import Decoder, Transformer, anatomy, check_agreement
from runtime.sampling import Sampling
from runtime.scheduler import Scheduler
from runtime.slots import PoolShape, SlotPool
from runtime.snapshot import Snapshot, model_fingerprint, tokenizer_fingerprint
from runtime.stats import EngineStats
from runtime.tasks.pruning import Rule
from runtime.tasks.run import Run
from runtime.tools import Tool
from runtime.vocabulary import Vocabulary

# Tokens that go through the model in one forward at most: it bounds the memory that a long prompt takes, and how long it holds up others.
_STEP_TOKENS = 1024
_ASYNC_STREAMS = 64
# Private use, so a part of no other token: later text is encoded behind it where a tokenizer would begin with a space.
_SENTINEL = "\ue000"
# The pool takes this share of the memory that is free, and never holds more than this many contexts of full length.
_POOL_SHARE, _POOL_CONTEXTS = 0.25, 4


class Engine:
    """Runs a model for live contexts. `Engine.load()` makes one."""

    def __init__(
        self,
        model_path: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        slots: int | None = None,
        *,
        fast: bool = True,
    ) -> None:
        self.model_path = model_path
        """The folder that the weights came from."""
        self.model = model
        self.tokenizer = tokenizer
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._encoding = threading.Lock()
        config: Any = model.config.get_text_config()
        self.vocab_size = int(config.vocab_size)
        self.max_positions = int(getattr(config, "max_position_embeddings", None) or sys.maxsize)
        """How many positions the model knows; some recurrent ones know no end."""
        self.eos_ids = self._eos_ids()
        self.recurrent = RecurrentModel(model) if is_recurrent(config) else None
        if self.recurrent is not None:
            self._rotary, shape = None, PoolShape(0, 0, 0, model.dtype, model.device)
        else:
            found = anatomy(model)
            self._rotary, shape = found.rotary, found.shape
            if config.model_type not in TESTED:
                check_agreement(model, shape)
        self._fingerprint = model_fingerprint(model)  # now, as a decoder may take the weights over
        self.pool = SlotPool(shape, 1 if self.recurrent is not None else self._slots(shape, slots))
        self.decoder: Decoder = FastDecoder(model) if fast and FastDecoder.serves(model) else Transformer(model)
        self.totals = EngineStats()
        """What contexts and steps count; read `stats`."""
        self.lock = threading.RLock()
        """Held while a step runs and while a context is edited."""
        self.scheduler = Scheduler(self, _STEP_TOKENS)
        self.contexts: WeakSet[Context] = WeakSet()
        self._closed = False

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        bits: int | None = None,
        slots: int | None = None,
        fast: bool = True,
    ) -> Engine:
        """Load a model: a folder, a Hugging Face id, or None for the one that comes with the package.

        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            dtype: "auto" (float32 on a CPU, else that of the weights), "float32", "bfloat16" or "float16".
            bits: 8 or 4 to keep the weights of linear layers so small, by bitsandbytes (extra `quantize`).
            slots: how many tokens can be resident at once, over all contexts; None: as the memory allows.
            fast: run Llama-shaped models through a lean forward instead of the modules of transformers; the logits are the same.

        Raises:
            ModelNotFound, ModelBroken, UnsupportedModel, UnsupportedDevice, OutOfMemory, InvalidPool: with what to do about it.
        """
        folder, loaded, tokenizer = load_model(model, device, dtype, bits)
        return cls(folder, loaded, tokenizer, slots, fast=fast)

    def context(
        self,
        content: str | Sequence[int] | None = None,
        *,
        mode: Mode = "exact",
        fallback: Fallback = "exact",
        priority: int = 0,
    ) -> Context:
        """A new live context, empty or with its first text.

        Args:
            mode: what an edit does to the tokens behind it, unless the edit says otherwise (see `Context`).
            fallback: what helps when mode "gap" has no position left, or too small a hole: "exact" encodes again what has to move,
                "rotate" turns its keys, "error" raises `PositionsExhausted`. A warning is logged, and counted in `stats`.
            priority: of contexts that do not fit the pool together, those with the lowest wait.
        """
        with self.lock:
            if self._closed:
                raise EngineClosed("The engine was closed: load another with Engine.load().")
            context = Context(self, self.check_mode(mode), check_fallback(fallback), priority)
            self.contexts.add(context)
            if content is not None:
                context.append(content)
            return context

    def conversation(
        self, system: str = "", *, mode: Mode = "exact", fallback: Fallback = "exact", priority: int = 0
    ) -> Conversation:
        """A new conversation in the words of the model's chat template; the arguments behind `system` are those of `context`."""
        return Conversation(self, system, mode, fallback, priority)

    def restore(self, path: str | os.PathLike[str], *, priority: int = 0) -> Context:
        """The context that was written by `Context.snapshot`, with keys and values: nothing is encoded again.

        Raises:
            SnapshotBroken, SnapshotMismatch: the file is none, or was taken with another model or tokenizer.
        """
        snapshot = Snapshot.load(path, *self.fingerprints)
        context = self.context(
            mode=self.check_mode(snapshot.mode), fallback=check_fallback(snapshot.fallback), priority=priority
        )
        with self.lock:
            context.cache.become(snapshot)
        return context

    def generate(self, prompts: Sequence[str], sampling: Sampling | None = None) -> list[str]:
        """The text that follows each prompt, all of them generated together, each in a context of its own."""
        contexts = [self.context(prompt) for prompt in prompts]
        try:
            generations = [context.generate(sampling) for context in contexts]
            for _ in advance(generations):
                pass
            return [generation.text for generation in generations]
        finally:
            for context in contexts:
                context.close()

    def reason(
        self,
        question: str,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        *,
        keep: int | None = 0,
        rule: Rule = "conclusion",
        mode: Mode = "exact",
        tasks: Sequence[type] | None = None,
        answer: Any = None,
        sampling: Sampling | None = None,
        record: str | os.PathLike[str] | None = None,
    ) -> Run:
        """Answer a question by a tree of tasks, in which finished lists of subtasks leave the context (TIM, section 2).

        Args:
            tools: typed Python functions, or tools of MCP servers (`runtime.tools`).
            keep: how many finished lists stay; None prunes nothing.
            rule: a list can go when its parent has concluded, or at its own "bracket" (the paper's).
            mode: what dropping a list does to the tokens behind it.
            tasks: pydantic classes that tasks have to be instances of (`runtime.tasks.schema`).
            answer: a pydantic class or JSON schema of the answer; None: text.
            sampling: greedy, and at most 100,000 tokens, if None. Its `schema`, `stop` and `ignore_eos` have no meaning here.
            record: write the run to this file (JSONL), to be replayed or drawn.

        Raises:
            MisdeclaredTool, MisdeclaredTask, UnsupportedSchema, InvalidPruning, RecordingFailed: before anything runs.
        """
        checked = self.check_mode(mode)
        return Run(
            self,
            question,
            tools,
            keep=keep,
            rule=rule,
            mode=checked,
            tasks=tasks,
            answer=answer,
            sampling=sampling,
            record=record,
        )

    def close(self) -> None:
        """Close every context and let the weights go. The engine cannot be used afterwards."""
        with self.lock:
            for context in list(self.contexts):
                context.close()
            if not self._closed:
                self._closed = True
                del self.model, self.decoder

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
        with self._encoding:  # how special tokens are read is a state of the tokenizer
            self._tokenizer.encode_special_tokens = not special
            ids = self._tokenizer.encode(sentinel + text, add_special_tokens=first).ids
        return ids[cut:]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of token ids; `special` keeps the names of special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))

    @cached_property
    def chat(self) -> ChatFormat:
        """The pieces of text that the model's chat template puts around turns."""
        return ChatFormat.of(self.tokenizer)

    @property
    def stats(self) -> EngineStats:
        """What the engine has done so far, and where its time went."""
        with self.lock:
            self.totals.resident_tokens = self.pool.size - self.pool.free
        return self.totals

    def check(self) -> None:
        """Assert that every slot in use belongs to a context that is still open."""
        with self.lock:
            self.pool.check([context.row.owned for context in self.contexts])

    # What follows is for the runtime's own modules.

    def check_mode(self, mode: str) -> Mode:
        """The mode, if there is one of that name and the model can do it."""
        checked = check_mode(mode)
        if checked != "exact" and self.recurrent is not None:
            raise UnsupportedMode(
                f"A '{self.model.config.model_type}' keeps all tokens in one state, from which none can be taken out: use mode 'exact'."
            )
        if checked == "rotate" and self._rotary is None:
            raise UnsupportedMode(
                f"Mode 'rotate' needs keys that are turned by their position, and those of this '{self.model.config.model_type}' "
                "are not: use 'exact' or 'gap'."
            )
        return checked

    def rotate(self, sources: Slots, targets: Slots, positions: Slots) -> None:
        """Write keys, turned to other positions, and their values into other slots."""
        assert self._rotary is not None
        self.pool.rotate(sources, targets, positions, self._rotary.frequencies, interleaved=self._rotary.interleaved)

    @property
    def fingerprints(self) -> tuple[str, str]:
        """What tells the model and the tokenizer from others."""
        return self._fingerprint, tokenizer_fingerprint(self.tokenizer)

    @cached_property
    def executor(self) -> ThreadPoolExecutor:
        """Threads in which those wait who may not block: `async` streams."""
        return ThreadPoolExecutor(_ASYNC_STREAMS, thread_name_prefix="recurrent-writer")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    @cached_property
    def _sentinel(self) -> tuple[str, int]:
        """What to encode later text behind, and its number of tokens; nothing where a piece alone gets no space."""
        if self.tokenizer.tokenize("a") == ["a"]:
            return "", 0
        return _SENTINEL, len(self.tokenizer.tokenize(_SENTINEL))

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """Makes grammars for the model's vocabulary."""
        return GrammarCompiler(self.tokenizer, self.vocab_size, sorted(self.eos_ids))

    def _eos_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        found = configured if isinstance(configured, list) else [configured, self.tokenizer.eos_token_id]
        return frozenset(token for token in found if token is not None)

    def _slots(self, shape: PoolShape, wanted: int | None) -> int:
        """How many slots the pool gets."""
        free = free_memory(shape.device)
        if wanted is None:
            return max(1, min(int(_POOL_SHARE * free) // shape.bytes_per_slot, _POOL_CONTEXTS * self.max_positions))
        if wanted < 1:
            raise InvalidPool(
                f"An engine cannot work with slots={wanted}: give 1 or more, or None for as many as the memory allows."
            )
        if wanted * shape.bytes_per_slot > free:
            raise OutOfMemory(
                f"{wanted} slots take {wanted * shape.bytes_per_slot / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free: load the engine "
                f"with at most slots={free // shape.bytes_per_slot}."
            )
        return wanted
