"""Regular expressions as JSON Schema means them (ECMA-262), in the notation of the grammar library (Rust's `regex`)."""

from __future__ import annotations

import re

_TOKENS = re.compile(r"\\.|\[\^?|.", re.DOTALL)
_SPACE = r"\t\n\x0B\x0C\r \u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF"
_NO_LINE_END = r"[^\n\r\u2028\u2029]"
# Letters and digits behind a backslash that mean the same in both. `\d` and `\w`, which do not, llguidance translates.
_SAME_ESCAPES = frozenset("dDwWbBtnvfrxupP")


def to_rust(pattern: str) -> str:
    """The same language in Rust's notation. Raises `ValueError` with the reason if that cannot be promised.

    What the library refuses itself (look-around, back-references, word boundaries) is passed on to it.
    """
    written: list[str] = []
    opening, in_class, before = False, False, ""
    for token in _TOKENS.findall(pattern):
        opened, opening = opening, False
        if token in (r"\s", r"\S"):
            negation = "^" if token == r"\S" else ""
            written.append(_SPACE if in_class and not negation else f"[{negation}{_SPACE}]")
        elif token[0] == "\\" and token[1:].isalnum() and token[1:] not in _SAME_ESCAPES:
            raise ValueError(f"{token} is not known")
        elif not in_class:
            opening = in_class = token[0] == "["
            written.append(_NO_LINE_END if token == "." else token)
        elif token == "]" and opened:
            raise ValueError("a class of characters is empty")
        elif token == before == "-":
            raise ValueError(r"two hyphens in a class of characters want to be written \-")
        else:  # Rust gives [, && and ~~ a meaning inside of a class.
            in_class = token != "]"
            written.append(f"\\{token}" if token[0] in "[&~" else token)
        before = token
    return "".join(written)
