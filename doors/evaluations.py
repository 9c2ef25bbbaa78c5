"""From a judgement in OTLP to a FEEDBACK event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from doors import ids
from doors.mapped import Mapped, Rules
from doors.values import number, text
from steersman.errors import InvalidRecord
from steersman.events import MAX_VALUE, Kind
from steersman.ids import is_span_id, is_trace_id

MAX_TS_US: Final = 253_402_300_799_999_999
"""End of the year 9999."""


def evaluation(
    found: Mapping[str, Any], trace_id: str, span_id: str, ts: int, which: str, rules: Rules, out: Mapped
) -> None:
    """Add the FEEDBACK that a ``gen_ai.evaluation.result`` is; nothing for one without a judgement.

    Parameters
    ----------
    found
        Its attributes.
    trace_id, span_id
        Where it hangs, in hex; a bad `span_id` makes it one about the trace.
    ts
        Its time, in microseconds since the epoch.
    which
        What tells it from others of the same metric, place and time.
    rules
        What to make of it.
    out
        Takes the event.

    Raises
    ------
    InvalidRecord
        When it cannot be attached.
    """
    metric = text(found.get("gen_ai.evaluation.name"))
    score = number(found.get("gen_ai.evaluation.score.value"))
    label = text(found.get("gen_ai.evaluation.score.label"))
    if metric is None:
        raise InvalidRecord("evaluation", "gen_ai.evaluation.name is missing")
    if score is not None and abs(score) > MAX_VALUE:
        raise InvalidRecord("evaluation", f"gen_ai.evaluation.score.value is {score:g}, beyond {MAX_VALUE:g}")
    if not is_trace_id(trace_id):
        raise InvalidRecord("trace_id", "the evaluation belongs to no trace")
    if score is None and label is None:
        out.counters["evaluation_without_score"] += 1
        return
    if not 0 < ts <= MAX_TS_US:
        raise InvalidRecord("time_unix_nano", f"{ts} is no time")
    explanation = text(found.get("gen_ai.evaluation.explanation"))
    target = span_id if is_span_id(span_id) else None
    key = ("evaluation", trace_id, target or "", metric, str(ts), which)
    out.add(
        {
            "event_id": ids.event_id(*key),
            "tenant": rules.tenant,
            "trace_id": trace_id,
            "span_id": ids.span_id(*key),
            "parent_span_id": target,
            "kind": Kind.FEEDBACK,
            "ts": ts,
            "metric": metric,
            "value": score,
            "label": label,
            "comment": explanation if rules.capture_content else None,
            "source": "otlp",
            "target_span_id": target,
        }
    )
