"""Validation of decoded trace events: what cannot be right goes to the dead letters, not into the state.

Avro guarantees the types. What it cannot say is checked here: the form of ids, symbols this version does not
know, numbers without a meaning, and decisions that do not fit the policy they name. Nothing here looks at a
clock of the machine; whether an event time is plausible is judged by `streams.watermark`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from steersman.errors import InvalidRecord
from steersman.events import MAX_AMOUNT, MAX_VALUE
from streams.ports import Arms, PolicyBook, PolicyRules

SPAN_KINDS: Final = frozenset({"MODEL_CALL", "TOOL_CALL", "RETRIEVAL", "REASONING", "AGENT"})
"""Kinds that report a finished span."""
BAD_STATUSES: Final = frozenset({"ERROR", "TIMEOUT", "CANCELLED"})
"""Statuses that count as a failure."""
KINDS: Final = SPAN_KINDS | {"DECISION", "FEEDBACK", "END", "TICK"}
STATUSES: Final = BAD_STATUSES | {"OK"}
MODES: Final = frozenset({"LIVE", "CANARY", "SHADOW", "FALLBACK", "HOLDOUT"})

MAX_TS_US: Final = 253_402_300_799_999_999
"""Last microsecond of the year 9999; unit: microseconds since 1970-01-01 UTC."""

NAMES: Final = (("tenant", 128), ("agent", 256), ("operation", 256), ("policy", 256), ("arm", 2048), ("metric", 256))
"""Names that windows and traces are kept under, with the most characters of each (the caps of the tracer)."""
AMOUNTS: Final = (
    "duration_us",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_micro_usd",
    "context_tokens",
    "context_limit",
)
"""Fields that count something and are never negative."""

_EVENT_ID = re.compile(r"[0-9a-f]{32}").fullmatch
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}").fullmatch
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}").fullmatch


def validate(event: Mapping[str, Any], policies: PolicyBook) -> PolicyRules | None:
    """Check one decoded trace event.

    Parameters
    ----------
    event : mapping
        A record of ``trace_event.avsc`` with all its fields; timestamps in microseconds, enums as str.
    policies : PolicyBook
        The policies that decisions may name.

    Returns
    -------
    PolicyRules or None
        The policy of a DECISION event, None for other kinds.

    Raises
    ------
    InvalidRecord
        With a reason in ``malformed``, ``kind``, ``status``, ``ts``, ``event_id``, ``trace_id``, ``span_id``,
        ``parent_span_id``, ``too_long``, ``amount``, and of decisions ``decision_id``, ``unknown_policy``,
        ``unknown_arm``, ``propensity``, ``mode``, ``features``, ``eligible``, ``version``, and of feedback
        ``metric``, ``value``, ``no_judgement``, ``target_decision_id``, ``target_span_id``.
    """
    try:
        return _validate(event, policies)
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidRecord("malformed", f"{type(error).__name__}: {error}") from error


def validate_kind(event: Mapping[str, Any], policies: PolicyBook) -> PolicyRules | None:
    """Check what `validate` checks of DECISION and FEEDBACK events only, when all the rest has been checked.

    Parameters, result and errors are those of `validate`.
    """
    try:
        return _validate_kind(event, policies)
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidRecord("malformed", f"{type(error).__name__}: {error}") from error


def _validate(event: Mapping[str, Any], policies: PolicyBook) -> PolicyRules | None:
    kind = event["kind"]
    if kind not in KINDS:
        raise InvalidRecord("kind", f"{kind!r} is not a kind this version knows")
    if not 0 <= event["ts"] <= MAX_TS_US:
        raise InvalidRecord("ts", f"{event['ts']} is not between the years 1970 and 9999 in microseconds")
    if kind == "TICK":
        return None
    if not _EVENT_ID(event["event_id"]):
        raise InvalidRecord("event_id", f"{event['event_id']!r} is not 32 lower-case hex digits")
    if not _TRACE_ID(event["trace_id"]):
        raise InvalidRecord("trace_id", f"{event['trace_id']!r} is not a W3C trace id")
    if not _SPAN_ID(event["span_id"]):
        raise InvalidRecord("span_id", f"{event['span_id']!r} is not a W3C span id")
    parent = event["parent_span_id"]
    if parent is not None and not _SPAN_ID(parent):
        raise InvalidRecord("parent_span_id", f"{parent!r} is not a W3C span id")
    if event["status"] not in STATUSES:
        raise InvalidRecord("status", f"{event['status']!r} is not a status this version knows")
    for name, cap in NAMES:
        text = event[name]
        if text is None and name not in ("tenant", "agent"):
            continue
        if len(text) > cap:
            raise InvalidRecord("too_long", f"{name} has {len(text)} characters, more than {cap}")
    for name in AMOUNTS:
        amount = event[name]
        if amount is not None and not 0 <= amount <= MAX_AMOUNT:
            raise InvalidRecord("amount", f"{name} is {amount}, not between 0 and {MAX_AMOUNT}")
    return _validate_kind(event, policies)


def _validate_kind(event: Mapping[str, Any], policies: PolicyBook) -> PolicyRules | None:
    kind = event["kind"]
    if kind == "DECISION":
        return _decision(event, policies)
    if kind == "FEEDBACK":
        _feedback(event)
    return None


def _decision(event: Mapping[str, Any], policies: PolicyBook) -> PolicyRules:
    if event["decision_id"] != f"{event['trace_id']}-{event['span_id']}":
        raise InvalidRecord("decision_id", f"{event['decision_id']!r} is not '<trace_id>-<span_id>'")
    policy = policies.get(event["tenant"], event["policy"] or "")
    if policy is None:
        raise InvalidRecord("unknown_policy", f"{event['tenant']}/{event['policy']} is in no policy file")
    mode = event["mode"]
    if mode not in MODES:
        raise InvalidRecord("mode", f"{mode!r} is not a mode this version knows")
    arms = policy.arms
    chosen = _arm_index(event["arm"], arms)
    # A router without any baseline of its own falls back to the empty arm: nothing to learn, yet its cost is real.
    if chosen is None and not (event["arm"] == "" and mode == "FALLBACK"):
        raise InvalidRecord("unknown_arm", f"{event['arm']!r} is no arm of {event['tenant']}/{event['policy']}")
    propensity = event["propensity"]
    if propensity is None or not 0.0 < propensity <= 1.0:
        raise InvalidRecord("propensity", f"{propensity} is not above 0 and at most 1")
    for name in ("policy_epoch", "policy_version"):
        number = event[name]
        if number is not None and number < 0:
            raise InvalidRecord("version", f"{name} is {number}, below 0")
    features = event["features"]
    if features and (len(features) != policy.features.dim or not all(map(isfinite, features))):
        raise InvalidRecord("features", f"{len(features)} entries, not {policy.features.dim} finite ones (or none)")
    eligible = event["eligible"]
    if eligible:
        if min(eligible) < 0 or max(eligible) >= len(arms):
            raise InvalidRecord("eligible", f"an index is outside 0..{len(arms) - 1}")
        if chosen is not None and chosen not in eligible and mode not in ("FALLBACK", "HOLDOUT"):
            raise InvalidRecord("eligible", f"the arm {event['arm']!r} is not among the eligible ones")
    return policy


def _arm_index(label: str | None, arms: Arms) -> int | None:
    try:
        return None if label is None else arms.index(label)
    except ValueError:
        return None


def _feedback(event: Mapping[str, Any]) -> None:
    if not event["metric"]:
        raise InvalidRecord("metric", "feedback without the name of its metric")
    value = event["value"]
    if value is None:
        if event["label"] is None:
            raise InvalidRecord("no_judgement", "feedback with neither a value nor a label")
    elif not (isfinite(value) and abs(value) <= MAX_VALUE):
        raise InvalidRecord("value", f"{value} is not a finite number of at most {MAX_VALUE:g}")
    target = event["target_decision_id"]
    if target is not None:
        trace_id, dash, span_id = target.partition("-")
        if trace_id != event["trace_id"] or not dash or not _SPAN_ID(span_id):
            raise InvalidRecord("target_decision_id", f"{target!r} is no decision of trace {event['trace_id']}")
    span = event["target_span_id"]
    if span is not None and not _SPAN_ID(span):
        raise InvalidRecord("target_span_id", f"{span!r} is not a W3C span id")
