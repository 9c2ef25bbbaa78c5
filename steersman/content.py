"""Content of calls, for tracers that are asked to capture it: copied on the caller's thread, small and plain.

The copy is made at once because the caller goes on to change what it passed; it holds nothing but JSON's types, so that
no code of the application runs on the sender's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_NODES = 200
"""Most values copied of one call."""
MAX_TEXT = 8192
"""Longest text copied; unit: characters. No less than attributes may have: one that was cut, perhaps in the middle of a secret,
is then too long to be sent at all."""
_MAX_DEPTH = 6


def parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's positional parameters, as far as they are known."""
    code = getattr(function, "__code__", None)
    return () if code is None else tuple(code.co_varnames[: code.co_argcount])


def arguments(names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a call's arguments by name; those without a name by number, the object of a method left out. Never raises."""
    budget = [MAX_NODES]
    out: dict[str, Any] = {}
    for i, value in enumerate(args):
        name = names[i] if i < len(names) else str(i)
        if i or name not in ("self", "cls"):
            out[name] = plain(value, budget)
    for name, value in kwargs.items():
        out[name] = plain(value, budget)
    return out


def message_of(error: BaseException) -> str:
    """The text of an exception; empty when it cannot say it."""
    try:
        return str(error)[:MAX_TEXT]
    except Exception:  # its own method
        return ""


def plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Copy a value as JSON's types; of other objects the name of their class, of too many or too deep ones an ellipsis."""
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH:
        return "..."
    kind = type(value)
    if kind is str:
        return value[:MAX_TEXT]
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        return value if value - value == 0 else str(value)
    if kind is dict:
        return {
            str(k) if type(k) in (str, int) else type(k).__name__: plain(v, budget, depth + 1)
            for k, v in _some(value.items(), budget)
        }
    if kind in (list, tuple):
        return [plain(item, budget, depth + 1) for item in _some(value, budget)]
    if kind is bytes:
        return f"<{len(value)} bytes>"
    return f"<{kind.__name__}>"


def _some(items: Any, budget: list[int]) -> list[Any]:
    """As many items as there is still room for, taken in one go: another thread may be changing them."""
    try:
        return list(items)[: max(0, budget[0])]
    except RuntimeError:
        return []
