"""JSON schemas of others, made fit to stand inside ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What llguidance enforces without conditions (its docs/json_schema.md).
_KEYWORDS = frozenset(
    "$defs $ref additionalProperties allOf anyOf const definitions enum exclusiveMaximum exclusiveMinimum format items maxItems "
    "maxLength maximum minItems minLength minimum multipleOf oneOf pattern patternProperties prefixItems properties required type".split()
)
_FORMATS = frozenset("date date-time duration email hostname ipv4 ipv6 time uri uuid".split())
_UNSUPPORTED_PATTERN = re.compile(r"\(\?[=!<]|\\[1-9]")  # look-around and back-references
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")


def enforceable(schema: Any) -> Any:
    """A schema without what llguidance refuses. It allows the same values and perhaps more."""
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED_SCHEMAS:
            kept[key] = {name: enforceable(named) for name, named in value.items()}
        elif key in ("allOf", "anyOf", "oneOf", "prefixItems"):
            kept["anyOf" if key == "oneOf" else key] = [enforceable(each) for each in value]
        elif key in ("items", "additionalProperties"):
            kept[key] = enforceable(value)
        elif key in _KEYWORDS and _supported(key, value):
            kept[key] = value
    return kept


def moved(schema: Any, place: str) -> Any:
    """A schema whose own references are right when it stands at `place` of another."""
    if isinstance(schema, list):
        return [moved(each, place) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    fit: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref":
            fit[key] = place + value[1:] if value.startswith("#") else value
        elif key in _NAMED_SCHEMAS:
            fit[key] = {name: moved(named, place) for name, named in value.items()}
        elif key in ("const", "enum", "default", "examples"):
            fit[key] = value
        elif key not in ("$schema", "$id"):  # with these it would count as a document of its own
            fit[key] = moved(value, place)
    return fit


def _supported(key: str, value: Any) -> bool:
    if key == "pattern":
        return not _UNSUPPORTED_PATTERN.search(str(value))
    return key != "format" or value in _FORMATS
