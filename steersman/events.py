"""The symbols and field groups of a trace event (``trace_event.avsc``), as Python sees them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What an event reports; the symbols of the schema's enum ``Kind``."""

    UNKNOWN = "UNKNOWN"
    DECISION = "DECISION"
    MODEL_CALL = "MODEL_CALL"
    TOOL_CALL = "TOOL_CALL"
    RETRIEVAL = "RETRIEVAL"
    REASONING = "REASONING"
    AGENT = "AGENT"
    FEEDBACK = "FEEDBACK"
    END = "END"
    TICK = "TICK"


class Status(StrEnum):
    """Outcome of a span; the symbols of the schema's enum ``Status``."""

    UNKNOWN = "UNKNOWN"
    OK = "OK"
    ERROR = "ERROR"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"


class Mode(StrEnum):
    """How an arm came about; the symbols of the schema's enum ``Mode``."""

    UNKNOWN = "UNKNOWN"
    LIVE = "LIVE"
    CANARY = "CANARY"
    SHADOW = "SHADOW"
    FALLBACK = "FALLBACK"
    HOLDOUT = "HOLDOUT"


MAX_AMOUNT: Final = 10**13
"""Largest duration (115 days), cost (10 million dollars) or token count of one event: far above anything
real, and low enough that sums of a million of them still fit an Avro long."""
MAX_VALUE: Final = 1e12
"""Largest magnitude of a feedback value, so that sums and utilities stay finite."""
#: Strings, with the most characters kept of each. Ids and names are short by nature; a longer one is a
#: mistake that must not fill the topic. ``context`` and ``attributes`` are JSON and are cut by entries.
STRING_CAPS: Final[dict[str, int]] = {
    "event_id": 128,
    "tenant": 128,
    "trace_id": 32,
    "span_id": 16,
    "parent_span_id": 16,
    "session_id": 256,
    "agent": 256,
    "error": 256,
    "operation": 256,
    "provider": 256,
    "args_hash": 128,
    "decision_id": 49,
    "policy": 256,
    "arm": 2048,
    "reason": 256,
    "context": 8192,
    "metric": 256,
    "label": 256,
    "comment": 4096,
    "source": 256,
    "target_decision_id": 49,
    "target_span_id": 16,
    "attributes": 8192,
}
LONGS: Final = frozenset(
    {
        "ts",
        "duration_us",
        "input_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_micro_usd",
        "context_tokens",
        "context_limit",
        "policy_epoch",
        "policy_version",
    }
)
DOUBLES: Final = frozenset({"propensity", "value"})
BOOLEANS: Final = frozenset({"explored", "truncated"})
ENUMS: Final[dict[str, type[StrEnum]]] = {"kind": Kind, "status": Status, "mode": Mode}
FLOAT_ARRAYS: Final = frozenset({"features"})
INT_ARRAYS: Final = frozenset({"eligible"})
#: Fields that ``Span.set`` accepts: everything that does not say which event this is.
SETTABLE: Final = frozenset(
    (STRING_CAPS.keys() | LONGS | DOUBLES | {"explored", "status", "mode"})
    - {"event_id", "tenant", "trace_id", "span_id", "parent_span_id", "agent", "ts"}
)
