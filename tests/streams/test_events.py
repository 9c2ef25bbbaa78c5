"""What is no trace event, and why."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.codec import Codec
from steersman.errors import InvalidRecord
from steersman.events import MAX_AMOUNT
from streams.events import validate
from tests.streams.trace_events import POLICIES, T0, TRACE, decision, event, feedback, tick

NAN, INF = float("nan"), float("inf")


def reason(record: dict[str, Any]) -> str:
    with pytest.raises(InvalidRecord) as caught:
        validate(record, POLICIES)
    return caught.value.reason


def test_good_events_pass() -> None:
    assert validate(decision(T0), POLICIES) is POLICIES.get("default", "p")
    for record in (event("MODEL_CALL", T0), event("END", 0), feedback(T0, 0.5), tick(T0)):
        assert validate(record, POLICIES) is None
    assert validate(feedback(T0, None, label="good"), POLICIES) is None
    assert validate({"kind": "TICK", "ts": 1}, POLICIES) is None


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("kind", "UNKNOWN", "kind"),
        ("kind", "NEW_KIND", "kind"),
        ("status", "UNKNOWN", "status"),
        ("ts", -1, "ts"),
        ("ts", 9_000_000_000_000_000_000, "ts"),
        ("ts", None, "malformed"),
        ("event_id", "", "event_id"),
        ("event_id", "A" * 32, "event_id"),
        ("event_id", "a" * 32 + "\n", "event_id"),
        ("event_id", None, "malformed"),
        ("trace_id", "0" * 32, "trace_id"),
        ("trace_id", "a" * 31, "trace_id"),
        ("span_id", "0" * 16, "span_id"),
        ("parent_span_id", "xyz", "parent_span_id"),
        ("duration_us", -1, "amount"),
        ("input_tokens", -5, "amount"),
        ("cost_micro_usd", MAX_AMOUNT + 1, "amount"),
        ("context_limit", -1, "amount"),
        ("agent", "a" * 257, "too_long"),
        ("operation", "a" * 257, "too_long"),
        ("agent", 5, "malformed"),
        ("agent", None, "malformed"),
    ],
)
def test_any_event(field: str, value: Any, expected: str) -> None:
    assert reason(event("MODEL_CALL", T0) | {field: value}) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"decision_id": None}, "decision_id"),
        ({"decision_id": "a"}, "decision_id"),
        ({"policy": "nobody"}, "unknown_policy"),
        ({"policy": None}, "unknown_policy"),
        ({"tenant": "other"}, "unknown_policy"),
        ({"arm": "model=huge;top_k=4"}, "unknown_arm"),
        ({"arm": None}, "unknown_arm"),
        ({"arm": ""}, "unknown_arm"),
        ({"propensity": None}, "propensity"),
        ({"propensity": 0.0}, "propensity"),
        ({"propensity": 1.1}, "propensity"),
        ({"propensity": NAN}, "propensity"),
        ({"mode": None}, "mode"),
        ({"mode": "UNKNOWN"}, "mode"),
        ({"policy_epoch": -1}, "version"),
        ({"policy_version": -1}, "version"),
        ({"features": [1.0, 2.0]}, "features"),
        ({"features": [NAN]}, "features"),
        ({"features": [INF]}, "features"),
        ({"eligible": [4]}, "eligible"),
        ({"eligible": [-1]}, "eligible"),
        ({"eligible": [1, 2]}, "eligible"),
    ],
)
def test_decisions(fields: dict[str, Any], expected: str) -> None:
    assert reason(decision(T0, **fields)) == expected


def test_fallbacks_may_have_no_arm_and_any_decision_no_features() -> None:
    fallback: dict[str, Any] = {"mode": "FALLBACK", "propensity": 1.0, "policy_epoch": None, "policy_version": None}
    assert validate(decision(T0, arm="", features=[], **fallback), POLICIES) is not None
    assert validate(decision(T0, eligible=[1, 2], **fallback), POLICIES) is not None
    assert validate(decision(T0, eligible=[0, 2]), POLICIES) is not None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"metric": None}, "metric"),
        ({"metric": ""}, "metric"),
        ({"value": None}, "no_judgement"),
        ({"value": NAN}, "value"),
        ({"value": -INF}, "value"),
        ({"value": 1e300}, "value"),
        ({"target_decision_id": "x"}, "target_decision_id"),
        ({"target_decision_id": TRACE}, "target_decision_id"),
        ({"target_decision_id": "b" * 32 + "-" + "c" * 16}, "target_decision_id"),
        ({"target_span_id": "x"}, "target_span_id"),
    ],
)
def test_feedback(fields: dict[str, Any], expected: str) -> None:
    assert reason(feedback(T0, 0.5) | fields) == expected


def test_events_pass_as_the_codec_decodes_them() -> None:
    codec = Codec("trace_event")
    for record in (decision(T0), feedback(T0, 0.5), event("TOOL_CALL", T0, duration_us=5), event("END", T0)):
        validate(codec.decode(codec.encode(record)), POLICIES)


JUNK = st.none() | st.integers() | st.floats() | st.text(max_size=40) | st.lists(st.floats(), max_size=3)


@settings(max_examples=300, derandomize=True)
@given(
    base=st.sampled_from([decision(T0), feedback(T0, 0.5), event("AGENT", T0)]),
    junk=st.dictionaries(st.sampled_from(sorted(decision(T0))), JUNK, max_size=5),
)
def test_junk_is_refused_with_a_reason_or_passes(base: dict[str, Any], junk: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRecord):
        validate({**base, **junk}, POLICIES)
