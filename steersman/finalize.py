"""From what a caller handed over to a record that fits the trace event contract.

Runs on the sender's thread: the caller pays for a dict and nothing else. Nothing in here trusts a value: what cannot
be sent becomes null and is counted, what is too long is cut and the event says so.
"""

from __future__ import annotations

import json
import math
import operator
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from steersman.errors import InvalidRecord
from steersman.events import (
    BOOLEANS,
    DOUBLES,
    ENUMS,
    FLOAT_ARRAYS,
    INT_ARRAYS,
    LONGS,
    STRING_CAPS,
)
from steersman.features import FeatureSpec
from steersman.ids import is_span_id, is_trace_id
from steersman.prices import ToPrice
from steersman.redaction import RedactionFailed, Redactor

MAX_ITEMS = 10_000
"""Longest array sent; the reader's cap."""
REDACTED = frozenset(
    {
        "event_id", "session_id", "error", "operation", "provider", "reason", "context", "metric", "label", "comment",
        "source", "attributes",
    }
)  # fmt: skip
"""Fields that redaction looks at. The others are ids, hashes, and names that the operator gave: tenant, agent, policy, arm."""
_MAX_LONG = 2**63 - 1
_MAX_FLOAT32 = 3.4028234663852886e38


class LoggableContext:
    """A decision's context, whose JSON form is made only when the event is sent.

    Parameters
    ----------
    spec : FeatureSpec
        Says which entries may be logged (never text).
    context : mapping
        Copied here, one level deep, so that the caller may go on changing its own.
    """

    __slots__ = ("_context", "_spec")

    def __init__(self, spec: FeatureSpec, context: Mapping[str, object]) -> None:
        self._spec = spec
        self._context = dict(context)

    def text(self) -> str:
        """JSON object of the numeric and categorical entries."""
        return self._spec.loggable(self._context)


def finalize(record: Mapping[str, Any], problems: Counter[str], redactor: Redactor | None = None) -> dict[str, Any]:
    """Make a record that the trace event codec accepts.

    Parameters
    ----------
    record : mapping
        Fields of ``trace_event.avsc`` with whatever values came.
    problems : Counter
        Incremented under ``bad_value:<field>``, ``unknown_field``, ``truncated``, ``unpriced:<reason>`` and
        ``redaction_failed:<field>``: a text that could not be redacted is left out.
    redactor : Redactor, optional
        Takes secrets and personal data out of the texts; they stay as they are without one.

    Returns
    -------
    dict
        Only fields of the contract, each of its type; ``truncated`` is true when something was cut.

    Raises
    ------
    InvalidRecord
        ``trace_id`` or ``span_id`` when these are not W3C ids, ``empty_feedback`` when a feedback has neither a finite
        value nor a label: such an event could not be used by anyone.
    """
    out: dict[str, Any] = {}
    cut = record.get("truncated") is True
    pricing = record.get("cost_micro_usd")
    if not isinstance(pricing, ToPrice):
        pricing = None
    for name, value in record.items():
        if value is None or value is pricing:
            continue
        if name in STRING_CAPS:
            text, shorter = _safe_text(name, value, problems, redactor)
            cut |= shorter
            if text is not None:
                out[name] = text
            continue
        clean = _typed(name, value)
        if clean is None:
            problems["unknown_field" if name not in _KNOWN else f"bad_value:{name}"] += 1
        elif name in _ARRAYS and len(clean) > MAX_ITEMS:
            problems[f"bad_value:{name}"] += 1  # a cut array would be another array
        else:
            out[name] = clean
    if cut:
        problems["truncated"] += 1
    out["truncated"] = cut
    if pricing is not None:
        cost, reason = pricing.prices.cost(out)
        if cost is None:
            problems[f"unpriced:{reason}"] += 1
        else:
            out["cost_micro_usd"] = cost
    _check(out)
    return out


_ARRAYS = FLOAT_ARRAYS | INT_ARRAYS
_KNOWN = STRING_CAPS.keys() | LONGS | DOUBLES | BOOLEANS | ENUMS.keys() | _ARRAYS


def _check(out: dict[str, Any]) -> None:
    if not is_trace_id(out.get("trace_id")):
        raise InvalidRecord("trace_id", "not 32 lower-case hex digits")
    if not is_span_id(out.get("span_id")):
        raise InvalidRecord("span_id", "not 16 lower-case hex digits")
    if out.get("kind") == "FEEDBACK" and out.get("value") is None and out.get("label") is None:
        raise InvalidRecord("empty_feedback", "neither a finite value nor a label")


def _typed(name: str, value: Any) -> Any:
    """The value as the field's Avro type, or None when it cannot be."""
    if name in LONGS:
        return _long(value)
    if name in DOUBLES:
        return _double(value)
    if name in BOOLEANS:
        return bool(value) if isinstance(value, bool | int) or type(value).__name__ == "bool" else None
    if name in ENUMS:
        symbol = str(value.value if isinstance(value, Enum) else value)
        return symbol if symbol in ENUMS[name].__members__ else None
    if name in FLOAT_ARRAYS:
        return _items(value, _single)
    return _items(value, _int) if name in INT_ARRAYS else None


def _long(value: Any) -> int | None:
    try:
        # operator.index takes ints, bools and numpy's integers; round() of a float that is not finite raises.
        number = round(value) if isinstance(value, float) else operator.index(value)
    except (TypeError, ValueError, OverflowError):
        return _float_like_long(value)
    return number if -_MAX_LONG - 1 <= number <= _MAX_LONG else None


def _float_like_long(value: Any) -> int | None:
    number = _double(value)
    if number is None or isinstance(value, str):
        return None
    rounded = round(number)
    return rounded if -_MAX_LONG - 1 <= rounded <= _MAX_LONG else None


def _double(value: Any) -> float | None:
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _single(value: Any) -> float | None:
    number = _double(value)
    return number if number is not None and abs(number) <= _MAX_FLOAT32 else None


def _int(value: Any) -> int | None:
    number = _long(value)
    return number if number is not None and -(2**31) <= number < 2**31 else None


def _items(value: Any, convert: Any) -> list[Any] | None:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(plain, Iterable) or isinstance(plain, str | bytes):
        return None
    out = [convert(item) for item in plain]
    return None if any(item is None for item in out) else out


def _safe_text(name: str, value: Any, problems: Counter[str], redactor: Redactor | None) -> tuple[str | None, bool]:
    """The text to send, without what must not be sent, and whether it was cut."""
    if redactor is None or name not in REDACTED:
        return _text(name, value, problems, None)
    try:
        return _text(name, value, problems, redactor)
    except RedactionFailed:
        problems[f"redaction_failed:{name}"] += 1
        return None, True


def _redacted(name: str, text: str, cap: int, redactor: Redactor) -> str:
    if name == "event_id":
        return redactor.name_of(text)
    if name == "context":
        return text if redactor.clean(text) else redactor.text(text)
    return redactor.short(text) if len(text) <= cap else redactor.text(text, cap)


def _text(name: str, value: Any, problems: Counter[str], redactor: Redactor | None) -> tuple[str | None, bool]:
    """The text to send, and whether it was cut."""
    cap = STRING_CAPS[name]
    if isinstance(value, LoggableContext):
        value = value.text()
    if name == "attributes":
        return _json_object(value, cap, problems, redactor)
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        if not isinstance(value, bool | int | float | uuid.UUID):
            problems[f"bad_value:{name}"] += 1
            return None, False
        value = str(value)
    if name == "context" and len(value) > cap:
        return _json_object(value, cap, problems, redactor)
    text = value if redactor is None else _redacted(name, value, cap, redactor)
    return _encodable(text[:cap]), len(value) > cap


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _json_object(value: Any, cap: int, problems: Counter[str], redactor: Redactor | None) -> tuple[str | None, bool]:
    """JSON text of an object, of at most `cap` characters: entries that do not fit are left out, whole."""
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            parsed = {"value": value[:cap] if redactor is None else redactor.text(value, cap)[:cap]}
        value = parsed
    if not isinstance(value, Mapping):
        problems["bad_value:attributes"] += 1
        return None, False
    entries: list[str] = []
    cut = False
    for key, item in value.items():
        try:
            # JSON has no NaN, and its readers refuse one: such an entry is left out like any unencodable one.
            entry = json.dumps({str(key): item}, allow_nan=False, default=_scalar)[1:-1]
        except (TypeError, ValueError, RecursionError):
            problems["bad_value:attributes"] += 1
            continue
        if len(entry) + 4 > cap:
            cut = True
        else:
            entries.append(entry)
    if redactor is not None:
        entries = _redacted_entries(entries, redactor)
    parts: list[str] = []
    size = 2
    for entry in entries:
        if size + len(entry) + 2 > cap:
            cut = True
            continue
        size += len(entry) + 2
        parts.append(entry)
    return "{" + ", ".join(parts) + "}", cut


def _redacted_entries(entries: list[str], redactor: Redactor) -> list[str]:
    """Entries of a JSON object, redacted as the values that they are when anything is found in their text."""
    whole = ", ".join(entries[:MAX_ITEMS])
    # Other characters than ASCII's are escaped in there, and could hide an address.
    if len(entries) <= MAX_ITEMS and "\\u" not in whole and redactor.clean(whole):
        return entries
    return [json.dumps(redactor.value(json.loads("{" + entry + "}")))[1:-1] for entry in entries[:MAX_ITEMS]]


def _scalar(value: Any) -> Any:
    """What the json module does not know: enums, UUIDs, numpy's scalars and arrays."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
