"""Feedback as JSON: what is judged, how, once; and what is not understood is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from doors.feedback import MAX_ITEMS, SESSION, event_of_feedback, read_feedback
from doors.refused import Refused
from steersman.codec import Codec
from streams.events import validate
from tests.doors.payloads import SPAN, TRACE
from tests.streams.trace_events import POLICIES

CODEC = Codec("trace_event")
NOW_US = 1_800_000_000_000_000
DECISION = f"{TRACE}-{SPAN}"


def event(tenant: str = "acme", capture_content: bool = False, **fields: Any) -> dict[str, Any]:
    """The event of a feedback, as it will be read."""
    (feedback,) = read_feedback(json.dumps(fields).encode())
    made = event_of_feedback(feedback, tenant=tenant, capture_content=capture_content, now_us=NOW_US)
    found = CODEC.decode(CODEC.encode(made))
    validate(found, POLICIES)
    return found


def judged(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["metric"], found["value"], found["label"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"value": True}, ("quality", 1.0, None)),
        ({"value": False}, ("quality", 0.0, None)),
        ({"value": 0.75, "metric": "relevance"}, ("relevance", 0.75, None)),
        ({"value": 3}, ("quality", 3.0, None)),
        ({"value": "helpful"}, ("quality", None, "helpful")),
        ({"value": 0.5, "label": "so-so"}, ("quality", 0.5, "so-so")),
        ({"comment": "no good"}, ("comment", None, "commented")),
        ({"correction": "Paris"}, ("correction", None, "corrected")),
        ({"correction": {"city": "Paris"}, "metric": "quality", "value": 0}, ("quality", 0.0, None)),
    ],
)
def test_judgements(fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert judged(event(decision_id=DECISION, **fields)) == expected


def test_targets() -> None:
    by_decision = event(decision_id=DECISION, value=1, session_id="s")
    assert (by_decision["trace_id"], by_decision["target_decision_id"]) == (TRACE, DECISION)
    by_span = event(trace_id=TRACE, span_id=SPAN, value=1)
    assert (by_span["trace_id"], by_span["target_span_id"], by_span["target_decision_id"]) == (TRACE, SPAN, None)
    by_trace = event(trace_id=TRACE, value=1)
    assert (by_trace["trace_id"], by_trace["target_span_id"]) == (TRACE, None)
    first, second, other = (event(t, session_id="s", value=1) for t in ("acme", "acme", "other"))
    assert first["session_id"] == "s"
    assert first["trace_id"] == second["trace_id"] != other["trace_id"]
    assert json.loads(first["attributes"]) == SESSION, "v_session_feedback looks for it"
    assert by_decision["attributes"] is by_trace["attributes"] is None
    corrected = event(session_id="s", correction="a", capture_content=True)
    assert json.loads(corrected["attributes"]) == {**SESSION, "correction": "a"}


def test_the_same_id_is_the_same_event() -> None:
    first, again = (event(decision_id=DECISION, value=1, id="order-17") for _ in range(2))
    assert first == again
    assert event(decision_id=DECISION, value=1, id="order-18")["event_id"] != first["event_id"]
    assert event("other", decision_id=DECISION, value=1, id="order-17")["event_id"] != first["event_id"]
    assert event(decision_id=DECISION, value=1)["event_id"] != event(decision_id=DECISION, value=1)["event_id"]


def test_words_are_kept_only_where_content_is() -> None:
    words = {"comment": "a secret", "correction": "a secret", "value": 0, "decision_id": DECISION}
    assert "secret" not in json.dumps(event(**words))
    kept = event(capture_content=True, **words)
    assert (kept["comment"], json.loads(kept["attributes"])) == ("a secret", {"correction": "a secret"})


def test_when() -> None:
    assert event(trace_id=TRACE, value=1)["ts"] == NOW_US
    assert event(trace_id=TRACE, value=1, timestamp="2026-11-25T12:00:00.000001+01:00")["ts"] == 1795604400000001


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"value": 1}, "decision_id"),
        ({"decision_id": TRACE, "value": 1}, "decision_id"),
        ({"decision_id": DECISION, "trace_id": "ab" * 16, "value": 1}, "decision_id"),
        ({"span_id": SPAN, "value": 1}, "span_id"),
        ({"trace_id": "xyz", "value": 1}, "trace_id"),
        ({"trace_id": "00" * 16, "value": 1}, "trace_id"),
        ({"trace_id": TRACE, "span_id": "1", "value": 1}, "span_id"),
        ({"trace_id": TRACE}, "value"),
        ({"trace_id": TRACE, "value": float("nan")}, "value"),
        ({"trace_id": TRACE, "value": float("inf")}, "value"),
        ({"trace_id": TRACE, "value": 10**400}, "value"),
        ({"trace_id": TRACE, "value": [1]}, "value"),
        ({"trace_id": TRACE, "value": "a", "label": "b"}, "label"),
        ({"trace_id": TRACE, "value": 1, "metric": ""}, "metric"),
        ({"trace_id": TRACE, "value": 1, "sesion_id": "x"}, "sesion_id"),
        ({"trace_id": TRACE, "value": 1, "timestamp": "2026-11-25T12:00:00"}, "timestamp"),
        ({"trace_id": TRACE, "value": 1, "timestamp": "1960-11-25T12:00:00Z"}, "timestamp"),
        ({"trace_id": TRACE, "value": 1, "comment": "x" * 5000}, "comment"),
        ({"trace_id": 5, "value": 1}, "trace_id"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(Refused) as caught:
        event(**fields)
    assert (caught.value.status, caught.value.reason) == (400, "bad_feedback")
    assert str(caught.value).startswith(f"{names}: ")


def test_lists() -> None:
    good = {"trace_id": TRACE, "value": 1}
    assert len(read_feedback(json.dumps([good] * MAX_ITEMS).encode())) == MAX_ITEMS
    for bad in ([], [good] * (MAX_ITEMS + 1)):
        with pytest.raises(Refused, match="send 1 to 1000"):
            read_feedback(json.dumps(bad).encode())
    with pytest.raises(Refused, match=r"^item 1: metric: "):
        read_feedback(json.dumps([good, {**good, "metric": 5}]).encode())
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(Refused, match="no JSON"):
            read_feedback(body)
    with pytest.raises(Refused):
        read_feedback(b"5")
