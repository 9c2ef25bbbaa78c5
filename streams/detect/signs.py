"""Signs: what of a span may interest a detector, as bits, so that all other spans cost next to nothing.

`signs_of` says it of a record; `streams.detect.sign_rows` says the same of many by columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

CALL: Final = 1
"""Went well and has the hash of its arguments."""
FAILED: Final = 2
"""A model call, tool call or retrieval that ended in ERROR or TIMEOUT."""
AGENT: Final = 4
"""An agent's own span."""
CONTEXT: Final = 8
"""Says how full its context window was."""
EMPTY: Final = 16
"""A model call that went well and whose output holds nothing but reasoning, if that."""
OVERFLOW: Final = 32
"""Failed with an error that names the context window."""
TOOL: Final = 64
"""A tool call or retrieval that went well: progress."""
TOOL_CALL: Final = -128
"""A tool call, however it ended: all bits from the seventh up. Negative, for tables by signs to stay at 128 entries: a worker of
an earlier release that takes over a trace finds there what it would have without it."""

MAX_ARGS: Final = 64
"""Longest hash of arguments that is looked at; unit: bytes."""
CALLS: Final = frozenset({"MODEL_CALL", "TOOL_CALL", "RETRIEVAL"})
TOOLS: Final = frozenset({"TOOL_CALL", "RETRIEVAL"})
FAILURES: Final = frozenset({"ERROR", "TIMEOUT"})


def names_context(error: str | None) -> bool:
    """Whether an error's name says that the context window was too small, e.g. ``ContextWindowExceededError``."""
    text = (error or "").lower()
    return "context" in text and any(word in text for word in ("length", "window", "exceed", "overflow", "too_long"))


def fill_of(used: int | None, limit: int | None) -> float | None:
    """Share of the context window in use, to four decimals."""
    return None if used is None or not limit else round(used / limit, 4)


def args_of(args_hash: str | None) -> str | None:
    """Hash of the arguments, None where there is none or it is no hash by its length."""
    return args_hash if args_hash and len(args_hash.encode()) <= MAX_ARGS else None


def signs_of(event: Mapping[str, Any]) -> int:
    """Signs of a span, of a record that has all the fields."""
    kind, status = event["kind"], event["status"]
    signs = 0
    if kind == "AGENT":
        signs |= AGENT
    if status == "OK":
        if args_of(event["args_hash"]) is not None:
            signs |= CALL
        if kind in TOOLS:
            signs |= TOOL
        output = event["output_tokens"]
        if kind == "MODEL_CALL" and output is not None and output <= (event["reasoning_tokens"] or 0):
            signs |= EMPTY
    elif status in FAILURES and kind in CALLS:
        signs |= FAILED
        if names_context(event["error"]):
            signs |= OVERFLOW
    if fill_of(event["context_tokens"], event["context_limit"]) is not None:
        signs |= CONTEXT
    return signs + TOOL_CALL if kind == "TOOL_CALL" else signs
