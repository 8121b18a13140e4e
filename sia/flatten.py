"""Nested values as dotted keys, the inverse of `sia.config.nest`; items of a list of mappings count from 1."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model': {'gru_layers': 2}} -> {'model.gru_layers': 2}; a list of plain values becomes its JSON text."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return flat


def varying(many: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of these flat mappings whose values are not the same in all that have them."""
    first: dict[str, Any] = {}
    differ = {key for one in many for key, value in one.items() if first.setdefault(key, value) != value}
    return [key for key in first if key in differ]
