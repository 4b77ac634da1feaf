"""Our attention under Hugging Face modules: new keys and values go to their slots, queries read through slot rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "slots"


class Attended(Protocol):
    """Takes what a layer's attention wants done; a `Batch`."""

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor: ...


# Not handed down through the model: some modules of transformers keep further arguments to themselves (StableLM).
_attended: ContextVar[Attended] = ContextVar("attended")


@contextmanager
def serving(attended: Attended) -> Iterator[None]:
    """Within it, attention of models that use ours goes to `attended`."""
    token = _attended.set(attended)
    try:
        yield
    finally:
        _attended.reset(token)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that `AttentionInterface` calls after the rotary embedding: query `[1, heads, T, head_dim]`."""
    out = _attended.get().attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    return out[None], None


# No mask is registered under this name, so that transformers builds none: the slot rows say what is seen.
AttentionInterface.register(NAME, _attend)
