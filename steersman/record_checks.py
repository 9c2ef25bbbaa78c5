"""Checks that Avro itself does not make: finite floats, ints of 32 bits, caps on arrays and strings.

The checks of a schema are built once, so that a record pays only for the fields that can be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_ITEMS = 10_000
"""Longest array accepted or produced; unit: items."""
MAX_TEXT = 1 << 16
"""Longest string accepted or produced; unit: characters."""

_MAX_SINGLE = 3.4028234663852886e38  # largest finite float32
Check = Callable[[Any], str | None]
"""Takes a value of the right Avro type; returns ``not_finite``, ``corrupt`` or None."""


def number_check(node: Any) -> Check | None:
    """Build the check of a type's floats (finite) and ints (32 bits; on the wire they may be longer).

    Parameters
    ----------
    node
        An Avro type as parsed JSON, without recursion.

    Returns
    -------
    callable or None
        None when values of the type hold no such numbers.
    """
    if isinstance(node, list):
        return _union_check(node)
    if isinstance(node, str):
        return {"float": _finite_single, "double": _finite, "int": _narrow}.get(node)
    kind = node["type"]
    if kind == "array":
        return _array_check(node["items"])
    if kind == "record":
        return _record_check(node["fields"])
    return None if kind == "enum" else number_check(kind)


def too_long(record: Mapping[str, Any]) -> str | None:
    """Return the first field with an array or a string, at any depth, beyond its cap, or None."""

    def over(value: Any) -> bool:
        if isinstance(value, str):
            return len(value) > MAX_TEXT
        if isinstance(value, Mapping):
            return any(map(over, value.values()))
        if isinstance(value, list | tuple):
            return len(value) > MAX_ITEMS or any(map(over, value))
        return False

    return next((name for name, value in record.items() if over(value)), None)


def _union_check(branches: Sequence[Any]) -> Check | None:
    checks = [check for branch in branches if (check := number_check(branch)) is not None]
    if not checks:
        return None
    if len(checks) == 1 and checks[0] in (_finite, _finite_single, _narrow):
        return checks[0]  # they take null for fine, so no generator need look at each value
    return lambda value: None if value is None else next((bad for c in checks if (bad := c(value))), None)


def _array_check(items: Any) -> Check | None:
    whole = {"double": _all_finite, "float": _all_finite_single, "int": _all_narrow}
    if isinstance(items, str):
        return whole.get(items)
    check = number_check(items)
    if check is None:
        return None
    return lambda value: next((bad for item in value or () if (bad := check(item))), None)


def _record_check(fields: Sequence[Mapping[str, Any]]) -> Check | None:
    members = [(f["name"], check) for f in fields if (check := number_check(f["type"])) is not None]
    if not members:
        return None
    return lambda value: next((bad for name, check in members if (bad := check(value[name]))), None)


def _finite(value: float | None) -> str | None:
    return None if value is None or math.isfinite(value) else "not_finite"


def _finite_single(value: float | None) -> str | None:
    # A larger number would be written as infinity, without a word.
    return None if value is None or -_MAX_SINGLE <= value <= _MAX_SINGLE else "not_finite"


def _narrow(value: int | None) -> str | None:
    return None if value is None or -0x80000000 <= value <= 0x7FFFFFFF else "corrupt"


def _all_finite(values: Sequence[float] | None) -> str | None:
    # One sum looks at all of them in C; only when it overflows do they have to be looked at one by one.
    if not values or math.isfinite(sum(values)) or all(map(math.isfinite, values)):
        return None
    return "not_finite"


def _all_finite_single(values: Sequence[float] | None) -> str | None:
    # The sum finds NaN, which the comparisons cannot.
    fine = not values or (math.isfinite(sum(values)) and max(max(values), -min(values)) <= _MAX_SINGLE)
    return None if fine else "not_finite"


def _all_narrow(values: Sequence[int] | None) -> str | None:
    return (_narrow(min(values)) or _narrow(max(values))) if values else None
