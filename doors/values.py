"""Attribute values of OTLP as Python values, and the few conversions that fields of ours need."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from steersman.events import MAX_AMOUNT
from steersman.ids import args_hash


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Return attributes by name; of a repeated name the first holds, as the specification forbids repeats."""
    found: dict[str, Any] = {}
    for pair in pairs:
        found.setdefault(pair.key, plain(pair.value))
    return found


def plain(value: AnyValue) -> Any:
    """Return the Python form of a value: text, number, truth value, list, dict, None; bytes become hex digits."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [plain(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    if which == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, which)


def first(found: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the value of the first name that has one, None without any; an empty text is none."""
    return next((found[name] for name in names if found.get(name) not in (None, "")), None)


def text(value: Any) -> str | None:
    """Return a value as text, None for none and for what is no single value."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, bool | int | float) else None


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else; digits in a text count."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        converted = float(value)
    except (ValueError, OverflowError):
        return None
    return converted if math.isfinite(converted) else None


def amount(value: Any) -> int | None:
    """Return a count that the platform accepts (0 to `MAX_AMOUNT`), None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value <= MAX_AMOUNT else None
    converted = number(value)
    return round(converted) if converted is not None and 0 <= converted <= MAX_AMOUNT else None


def hash_of(arguments: Any) -> str:
    """Return the ``args_hash`` of arguments, whether they came as JSON text or as a structure."""
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return args_hash(arguments)
        arguments = parsed if isinstance(parsed, dict | list | str) else arguments
    return args_hash(arguments if isinstance(arguments, dict | list | str) else str(arguments))
