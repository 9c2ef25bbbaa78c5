"""Feedback as JSON: how something turned out, from whoever has no tracer. Pure.

=============  ==========================================================================================
what is judged
=============  ==========================================================================================
decision       ``decision_id``
span           ``trace_id`` and ``span_id``: the decisions of that span
trace          ``trace_id``: every decision of the trace
session        ``session_id``: kept, and joined to its traces in SQL (`SESSION`); the loop learns by trace, so it moves no reward
=============  ==========================================================================================
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from doors import ids
from doors.refused import Refused
from steersman.errors import InvalidRecord
from steersman.events import MAX_VALUE, Kind
from steersman.finalize import finalize
from steersman.ids import is_span_id, is_trace_id, new_event_id, parse_decision_id
from steersman.redaction import Redactor

MAX_ITEMS: Final = 1000
"""Most feedbacks of one request."""
SESSION: Final = {"steersman.target": "session"}
"""Attributes of a judgement of a session, by which the view ``v_session_feedback`` finds it."""

_Name = Annotated[StrictStr, Field(min_length=1, max_length=256)]


class Feedback(BaseModel):
    """One feedback, as a client writes it.

    Attributes
    ----------
    id
        Give repeats of one feedback the same id, so that it counts once.
    decision_id, trace_id, span_id, session_id
        What is judged; see above.
    metric
        What was measured; ``quality`` unless told otherwise.
    value
        A truth value (counts as 0 or 1), a finite number, or a category.
    label
        A category beside a number.
    comment
        Free text; kept only where the door captures content.
    correction
        What the answer should have been; kept only where the door captures content. That there was one always is.
    source
        Who judged.
    timestamp
        When it was judged, with time zone; now unless told otherwise.
    tenant
        Whose it is; it decides nothing, but must be the sender's where it is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[StrictStr, Field(min_length=1, max_length=256)] | None = None
    decision_id: StrictStr | None = None
    trace_id: StrictStr | None = None
    span_id: StrictStr | None = None
    session_id: _Name | None = None
    metric: _Name | None = None
    value: StrictBool | StrictInt | StrictFloat | _Name | None = None
    label: _Name | None = None
    comment: Annotated[StrictStr, Field(max_length=4096)] | None = None
    correction: StrictStr | dict[str, Any] | list[Any] | None = None
    source: _Name | None = None
    timestamp: dt.datetime | None = None
    tenant: Annotated[StrictStr, Field(max_length=128)] | None = None


def read_feedback(body: bytes) -> list[Feedback]:
    """Read one feedback, or a list of up to `MAX_ITEMS`.

    Raises
    ------
    Refused
        400 with the reason ``bad_json`` or ``bad_feedback``; the message names item, field and what to write.
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad_json", f"the body is no JSON: {error}") from error
    items = parsed if isinstance(parsed, list) else [parsed]
    if not items or len(items) > MAX_ITEMS:
        raise Refused(400, "bad_feedback", f"{len(items)} feedbacks in one request; send 1 to {MAX_ITEMS}")
    out: list[Feedback] = []
    for index, item in enumerate(items):
        where = f"item {index}: " if isinstance(parsed, list) else ""
        try:
            out.append(Feedback.model_validate(item))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in problem["loc"][:1]) or "the feedback"
            raise Refused(400, "bad_feedback", f"{where}{name}: {problem['msg']}") from error
    return out


def event_of_feedback(
    feedback: Feedback, *, tenant: str, capture_content: bool, now_us: int, redactor: Redactor | None = None
) -> dict[str, Any]:
    """Make the FEEDBACK event.

    Parameters
    ----------
    feedback
        What came.
    tenant
        Tenant of the door.
    capture_content
        Whether comments and corrections are kept.
    now_us
        The time; unit: microseconds since 1970-01-01 UTC.
    redactor
        Takes secrets and personal data out of the texts.

    Raises
    ------
    Refused
        400, ``bad_feedback``: no target or several, an id that is none, nothing said.
    """
    event_id = ids.event_id("feedback", tenant, feedback.id) if feedback.id is not None else new_event_id()
    record = {
        "event_id": event_id,
        "tenant": tenant,
        "span_id": ids.span_id("feedback", event_id),
        "kind": Kind.FEEDBACK,
        "ts": _time_us(feedback.timestamp, now_us),
        "source": feedback.source,
        **_target(feedback, tenant),
        **_judgement(feedback),
    }
    if capture_content:
        record["comment"] = feedback.comment
        if feedback.correction is not None:
            record["attributes"] = {**record.get("attributes", {}), "correction": feedback.correction}
    try:
        return finalize(record, Counter(), redactor)
    except InvalidRecord as error:
        raise Refused(400, "bad_feedback", str(error)) from error


def _target(feedback: Feedback, tenant: str) -> dict[str, Any]:
    if feedback.decision_id is not None:
        decision = parse_decision_id(feedback.decision_id)
        if decision is None:
            raise _bad("decision_id", "a decision id is '<trace_id>-<span_id>', 32 and 16 lower-case hex digits")
        if feedback.trace_id not in (None, decision.trace_id) or feedback.span_id not in (None, decision.span_id):
            raise _bad("decision_id", "it is of another trace or span than trace_id and span_id say")
        return {
            "trace_id": decision.trace_id,
            "target_decision_id": feedback.decision_id,
            "session_id": feedback.session_id,
        }
    if feedback.trace_id is not None:
        if not is_trace_id(feedback.trace_id):
            raise _bad("trace_id", "write 32 lower-case hex digits that are not all zero")
        if feedback.span_id is not None and not is_span_id(feedback.span_id):
            raise _bad("span_id", "write 16 lower-case hex digits that are not all zero")
        return {
            "trace_id": feedback.trace_id,
            "target_span_id": feedback.span_id,
            "session_id": feedback.session_id,
        }
    if feedback.span_id is not None:
        raise _bad("span_id", "a span id is unique only within its trace: write trace_id as well")
    if feedback.session_id is not None:
        # Feedback is keyed by trace, and a session is none: all that is said of one session shares a trace id of its own.
        return {
            "trace_id": ids.trace_id("session", tenant, feedback.session_id),
            "session_id": feedback.session_id,
            "attributes": SESSION,
        }
    raise _bad("decision_id", "say what is judged: decision_id, trace_id (with or without span_id) or session_id")


def _judgement(feedback: Feedback) -> dict[str, Any]:
    value, label = feedback.value, feedback.label
    if isinstance(value, str):
        if label is not None:
            raise _bad("label", "value is a category already: write one of the two")
        value, label = None, value
    number = None if value is None else float(value) if abs(value) <= MAX_VALUE else float("nan")
    if number is not None and number != number:
        raise _bad("value", f"write a finite number of at most {MAX_VALUE:g}")
    metric = feedback.metric
    if number is None and label is None:
        # Words alone: that they were said is worth keeping even where they are not.
        if feedback.correction is not None:
            metric, label = metric or "correction", "corrected"
        elif feedback.comment:
            metric, label = metric or "comment", "commented"
        else:
            raise _bad("value", "say how it turned out: value, label, comment or correction")
    return {"metric": metric or "quality", "value": number, "label": label}


def _time_us(timestamp: dt.datetime | None, now_us: int) -> int:
    if timestamp is None:
        return now_us
    if timestamp.tzinfo is None:
        raise _bad("timestamp", "write it with its time zone, e.g. 2026-11-25T12:00:00Z")
    micros = round(timestamp.timestamp() * 1e6)
    if micros < 0:
        raise _bad("timestamp", "it is before 1970")
    return micros


def _bad(name: str, detail: str) -> Refused:
    return Refused(400, "bad_feedback", f"{name}: {detail}")
