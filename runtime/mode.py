"""What an edit does to the tokens behind it."""

from __future__ import annotations

from typing import Literal, get_args

from runtime.errors import UnsupportedMode

Mode = Literal["exact", "gap", "rotate"]
"""Encode them again; keep keys, values and positions; or keep keys and values, and turn the keys to dense positions."""

Fallback = Literal["exact", "rotate", "error"]
"""What helps mode "gap" when it has no position left, or too small a hole."""


def check_mode(mode: str) -> Mode:
    """The mode of that name. Raises `UnsupportedMode` if there is none."""
    if mode not in get_args(Mode):
        raise UnsupportedMode(f"There is no drop mode '{mode}': use {', '.join(get_args(Mode))}.")
    return mode  # type: ignore[return-value]


def check_fallback(fallback: str) -> Fallback:
    """The fallback of that name. Raises `UnsupportedMode` if there is none."""
    if fallback not in get_args(Fallback):
        raise UnsupportedMode(f"There is no fallback '{fallback}' for mode 'gap': use {', '.join(get_args(Fallback))}.")
    return fallback  # type: ignore[return-value]
