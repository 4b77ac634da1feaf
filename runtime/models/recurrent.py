"""Models with a recurrent state: reading tokens into it, and snapshots of it to go back to.

A recurrent state holds all tokens at once, so none can be taken out of it again. An edit goes back to a snapshot that was
taken before the edited place, and the tokens behind that are encoded again: mode `exact`, and no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin

from runtime.errors import UnsupportedModel

# Tokens that go through the model in one forward at most, where its family can be read in pieces.
_PIECE_TOKENS = 1024


@dataclass(frozen=True)
class _Family:
    """How transformers reads behind a state with the models of one type."""

    argument: str
    """What `forward` calls the state."""
    in_pieces: bool = True
    """Whether one forward can read several tokens behind a state. In transformers the scan of Mamba-1 begins with zeros in
    every such forward: it is right for one token behind a state, and for any number behind none."""


# Left out on purpose: zamba2 and nemotron_h bound their time steps from below when they read several tokens, and not when
# they read one; minimax and xlstm have caches of their own.
_FAMILIES = {
    "bamba": _Family("past_key_values"),
    "falcon_h1": _Family("past_key_values"),
    "falcon_mamba": _Family("cache_params", in_pieces=False),
    "granitemoehybrid": _Family("past_key_values"),
    "jamba": _Family("past_key_values", in_pieces=False),
    "lfm2": _Family("past_key_values"),
    "lfm2_moe": _Family("past_key_values"),
    "mamba": _Family("cache_params", in_pieces=False),
    "mamba2": _Family("cache_params"),
    "olmo_hybrid": _Family("past_key_values"),
    "qwen3_5_moe_text": _Family("past_key_values"),
    "qwen3_5_text": _Family("past_key_values"),
    "qwen3_next": _Family("past_key_values"),
    "recurrent_gemma": _Family("past_key_values"),
    "rwkv": _Family("state"),
}


def is_recurrent(config: PretrainedConfig) -> bool:
    """Whether `RecurrentModel` serves the models of this type."""
    return config.model_type in _FAMILIES


@dataclass
class State:
    """What a model knows of the tokens that it has read."""

    cache: Any = None
    """As transformers keeps it for the model's family, with the keys and values of its attention layers."""
    blocks: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Of every recurrent block of a RecurrentGemma: the last inputs of its convolution, `[1, width, kernel - 1]`, and the
    state of its RG-LRU, float32 `[1, width]` (Griffin, section 2.4)."""
    length: int = 0
    """How many tokens were read."""
    logits: Tensor | None = None
    """Of the token behind them, float32 `[vocab]` on the CPU; None before the first."""

    @property
    def nbytes(self) -> int:
        """Bytes that the state takes on the model's device."""
        return sum(tensor.nbytes for tensor in _tensors([self.cache, self.blocks]))


class RecurrentModel:
    """Reads tokens with a model of a type that `is_recurrent` knows; one sequence at a time.

    The model is in evaluation mode and has one of transformers' own attentions ("sdpa", "eager"). What it gives after any
    number of copies is what a fresh run on the same tokens would, up to rounding.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises `UnsupportedModel` for a model that transformers does not compute right token by token."""
        config: Any = model.config
        limit = getattr(config, "time_step_limit", None)
        if limit is not None and tuple(limit) != (0.0, inf):
            raise UnsupportedModel(
                f"The model bounds its time steps to {tuple(limit)}, which transformers leaves out when it reads tokens one by "
                "one: use a model whose 'time_step_limit' is (0.0, inf)."
            )
        logging.getLogger("transformers.integrations.hub_kernels").addFilter(_is_no_advice)
        self.model = model
        self._family = _FAMILIES[config.model_type]
        # RecurrentGemma alone: its recurrent blocks keep their state themselves.
        self._blocks: list[Any] = [module for module in model.modules() if hasattr(module, "rg_lru")]

    def start(self) -> State:
        """The state before the first token."""
        if self._family.argument == "state":
            return State()
        blocks = []
        for block in self._blocks:
            inputs = torch.zeros(1, block.lru_width, block.conv1d_width - 1, dtype=self.model.dtype, device=self.model.device)
            blocks.append((inputs, torch.zeros(1, block.lru_width, dtype=torch.float32, device=self.model.device)))
        return State(DynamicCache(config=self.model.config), blocks)

    @torch.inference_mode()
    def encode(self, state: State, ids: Sequence[int]) -> Tensor:
        """Read token ids, at least one, behind what `state` has read, and change it in place.

        Returns the logits behind the last one, float32 `[vocab]` on the CPU. A state is of no use after an exception.
        """
        width = _PIECE_TOKENS if self._family.in_pieces else 1 if state.length else len(ids)
        for at in range(0, len(ids), width):
            self._forward(state, ids[at : at + width])
        assert state.logits is not None
        return state.logits

    @torch.inference_mode()
    def copy(self, state: State) -> State:
        """A second state that has read the same, with memory of its own."""
        cache, blocks = _copy([state.cache, state.blocks])
        return State(cache, blocks, state.length, state.logits)

    def _forward(self, state: State, ids: Sequence[int]) -> None:
        device, argument = self.model.device, self._family.argument
        stop = state.length + len(ids)
        arguments = {argument: state.cache}
        if argument == "past_key_values":  # Bamba would count from 0 again
            arguments["position_ids"] = torch.arange(state.length, stop, device=device)[None]
        with _lend(self._blocks, state.blocks):
            output = self.model(input_ids=torch.tensor([ids], device=device), use_cache=True, logits_to_keep=1, **arguments)
        state.cache = output.get(argument, state.cache)
        state.length = stop
        state.logits = output.logits[0, -1].float().cpu()


class Checkpoints:
    """The states of one context: one that has read all of it, and snapshots at the places that it may go back to.

    The context names those places, its marks, with the tokens that it wants read. Where lists of subtasks open and close like
    brackets, a mark is where an open one begins. Snapshots are never changed, so forks share them.
    """

    def __init__(self, model: RecurrentModel, most: int = 8) -> None:
        """At most `most` snapshots are kept, at least one.

        Of more marks, the one nearest behind another, or behind the first token, goes without: it costs the fewest tokens to
        read again. The last mark always has its snapshot, since the innermost list closes first.
        """
        self.model = model
        self.most = most
        self._ids: list[int] = []
        self._running: State | None = None
        self._snapshots: dict[int, State] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that all states take on the model's device; what a fork shares counts for both."""
        states = [*self._snapshots.values(), *([self._running] if self._running else [])]
        return sum(state.nbytes for state in states)

    def logits_for(self, token_ids: Sequence[int], marks: Collection[int] = ()) -> tuple[Tensor, int]:
        """Logits of the token behind `token_ids`, float32 `[vocab]` on the CPU, and how many tokens were encoded for them.

        Reads on from the longest state whose tokens `token_ids` begins with, and takes a snapshot where exactly as many tokens
        were read as a mark says. Snapshots that no mark names are let go afterwards. A mark before the place that is read on
        from comes too late, and like one outside 1 to `len(token_ids)` it has no effect.
        """
        assert token_ids, "logits of no tokens"
        ids = list(token_ids)
        same = _common(self._ids, ids)
        snapshots = {length: state for length, state in self._snapshots.items() if length <= same}
        state = self._running
        if state is None or state.length > same:
            state = self.model.copy(snapshots[max(snapshots)]) if snapshots else self.model.start()
        read = state.length
        wanted = _spread({mark for mark in marks if mark in snapshots or max(read, 1) <= mark <= len(ids)}, self.most)
        # The running state is gone until all is well: an exception leaves it half read.
        self._ids, self._running = ids, None
        self._snapshots = {mark: snapshots[mark] for mark in wanted if mark in snapshots}
        for stop in sorted({mark for mark in wanted if mark >= read} | {len(ids)}):
            if stop > state.length:
                self.model.encode(state, ids[state.length : stop])
            if stop in wanted and stop not in self._snapshots:
                self._snapshots[stop] = self.model.copy(state)
        self._running = state
        assert state.logits is not None
        return state.logits, len(ids) - read

    def fork(self) -> Checkpoints:
        """The same for a second context with the same tokens; nothing is encoded."""
        twin = Checkpoints(self.model, self.most)
        twin._ids, twin._snapshots = self._ids, self._snapshots.copy()
        twin._running = self.model.copy(self._running) if self._running else None
        return twin


def _spread(marks: Collection[int], most: int) -> list[int]:
    """At most `most` of the marks, ascending."""
    kept = sorted(marks)
    while len(kept) > most:
        gaps = [mark - before for before, mark in pairwise([0, *kept[:-1]])]
        del kept[gaps.index(min(gaps))]
    return kept


def _common(first: list[int], second: list[int]) -> int:
    """How many tokens both rows begin with."""
    if second[: len(first)] == first:  # nearly always, and without a loop in Python
        return len(first)
    return next((at for at, (left, right) in enumerate(zip(first, second, strict=False)) if left != right), len(second))


def _tensors(part: object) -> Iterator[Tensor]:
    """Every tensor in a state or a part of one."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from _tensors(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _tensors(value)
    elif isinstance(part, Cache | CacheLayerMixin | LinearAttentionCacheLayerMixin):
        yield from _tensors(vars(part))


def _copy(part: Any) -> Any:
    """A copy with tensors of its own; without what a view of a larger tensor does not show."""
    return deepcopy(part, {id(tensor): tensor.clone() for tensor in _tensors(part)})


@contextmanager
def _lend(blocks: Sequence[Any], states: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Put a state into the recurrent blocks of a RecurrentGemma for one forward, and take the new one out of them."""
    hooks = []
    for block, (inputs, hidden) in zip(blocks, states, strict=True):
        block.conv1d_state, block.rg_lru.recurrent_states = inputs, hidden
        hooks.append(block.conv_1d.register_forward_hook(_behind(block, inputs)))
    try:
        yield
        states[:] = [(block.conv1d_state, block.rg_lru.recurrent_states) for block in blocks]
    finally:
        for hook in hooks:
            hook.remove()
        for block in blocks:
            block.conv1d_state = block.rg_lru.recurrent_states = None


def _behind(block: Any, inputs: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that convolves behind earlier inputs, where transformers has zeros when it reads several tokens."""

    def convolve(conv: Any, arguments: tuple[Tensor], _: Tensor) -> Tensor:
        joined = torch.cat([inputs, *arguments], dim=-1)
        block.conv1d_state = joined[..., -inputs.shape[-1] :].clone()
        return F.conv1d(joined, conv.weight, conv.bias, groups=conv.groups)

    return convolve


def _is_no_advice(record: logging.LogRecord) -> bool:
    """False for what transformers says once about packages that would be faster; it would run across the user's screen."""
    return "falling back to its reference PyTorch implementation" not in record.getMessage()
