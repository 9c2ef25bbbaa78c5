"""What is kept in memory about one trace: while it is open, and the little that stays once it is closed.

Both forms go to the state topic as JSON and come back equal, so that a restarted worker continues exactly.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from streams.ports import PolicyBook, PolicyRules

_MASK: Final = (1 << 64) - 1
_encode = msgspec.json.Encoder().encode

TraceKey = tuple[str, str]
"""(trace id, tenant): a tenant cannot touch another's traces even if it learns their ids."""

KEPT: Final = (
    "decision_id",
    "event_id",
    "tenant",
    "trace_id",
    "span_id",
    "parent_span_id",
    "agent",
    "operation",
    "policy",
    "policy_epoch",
    "policy_version",
    "arm",
    "propensity",
    "explored",
    "mode",
    "features",
    "eligible",
)
"""Fields of a DECISION event that its reward repeats or that credit needs."""


def fold_id(event_id: str) -> int:
    """Fold the 128 bits of an event id into 64, all of them counting, to remember it in little space."""
    number = int(event_id, 16)
    return (number >> 64) ^ (number & _MASK)


class SpanRecord(NamedTuple):
    """The part of a span or decision event that credit and detectors need; `ts` in microseconds since 1970-01-01 UTC."""

    span_id: str
    parent: str | None
    ts: int
    duration_us: int | None
    cost_micro_usd: int
    input_tokens: int
    output_tokens: int
    failed: bool
    work: bool
    """False for decisions: nodes of the tree, but not spans of work."""
    signs: int = 0
    """Bits of `streams.detect.signs`."""
    agent: str = ""
    operation: str = ""
    call: str | None = None
    """Hash of the arguments."""
    fill: float | None = None
    """Share of the context window in use."""


class Hit(NamedTuple):
    """What a detector found in a trace, as far as its decisions are charged with it."""

    span_id: str
    ts: int


class FeedbackRecord(NamedTuple):
    """The part of a feedback event that rewards need; `ts` and `event_id` come first because they sort it."""

    ts: int
    event_id: str
    metric: str
    value: float | None
    decision_id: str | None
    span_id: str | None
    source: str | None = None


class Split(NamedTuple):
    """A quality that was split between decisions: what it was, and decision id -> share."""

    total: float
    parts: dict[str, float]


class Decision:
    """A decision that waits for its reward.

    Parameters
    ----------
    event : mapping
        A DECISION event, or the fields `KEPT` of one.
    ts : int
        Event time of the decision; unit: microseconds since 1970-01-01 UTC.
    policy : PolicyRules
        The policy it asked.

    Attributes
    ----------
    fields : dict
        The fields `KEPT` of the event.
    window_end_us : int
        Feedback after this time no longer counts; unit: microseconds since 1970-01-01 UTC.
    judged : bool
        Whether feedback that counts for it has come.
    """

    __slots__ = ("fields", "first", "judged", "policy", "settle_us", "shares", "ts", "window_end_us")

    def __init__(self, event: Mapping[str, Any], ts: int, policy: PolicyRules) -> None:
        self.fields = {name: event[name] for name in KEPT}
        self.ts = ts
        self.policy = policy
        self.window_end_us = ts + round(policy.reward.window_s * 1_000_000)
        self.settle_us = policy.reward.settle_ms * 1000
        self.first = policy.reward.aggregation == "first"
        self.shares = policy.reward.quality_credit == "shared"
        self.judged = False

    def matches(self, feedback: FeedbackRecord) -> bool:
        """Whether a feedback event counts for this decision: its metric, with a value, in time, aimed at it.

        One that shares counts feedback on the whole trace only.
        """
        return (
            feedback.metric == self.policy.reward.metric
            and feedback.value is not None
            and feedback.ts <= self.window_end_us
            and not (self.shares and (feedback.decision_id or feedback.span_id))
            and targets(feedback, self.fields["decision_id"], self.fields["parent_span_id"])
        )


def targets(feedback: FeedbackRecord, decision_id: str, enclosing: str | None) -> bool:
    """Whether feedback is aimed at a decision: at its id, its own or enclosing span, or its whole trace."""
    if feedback.decision_id is not None:
        return feedback.decision_id == decision_id
    if feedback.span_id is not None:
        return feedback.span_id == enclosing or decision_id.endswith(feedback.span_id)
    return True


class Trace:
    """An open trace.

    Attributes
    ----------
    at : int
        Kafka offset of the last event applied, -1 before the first.
    last_ts : int
        Highest event time of its events; unit: microseconds since 1970-01-01 UTC.
    end_ts : int or None
        Event time of its END (the last of them, should there be several), None before it.
    closed_at : int
        Event time of the last reward, 0 before the first; unit: microseconds since 1970-01-01 UTC.
    seen : set of int
        Folded ids of the events applied.
    spans, feedback : list
        What was reported so far, in order of arrival.
    open : dict of str to Decision
        Decisions that wait, by decision id.
    closed : dict of str to (str or None)
        Rewarded decisions with their enclosing span, to tell late feedback from orphans.
    hits : dict of str to Hit
        What detectors have found, by their names: once each.
    team : list of (str, str)
        Policy and arm of rewarded decisions that others may have to know of (`streams.team`).
    splits : dict of str to Split
        Metric -> how the quality of the trace was split.
    wake : int
        The timer that is meant for this trace; derived, not part of the state.
    cost_micro_usd : int
        Sum over `spans`; derived.
    memory : dict or None
        What detectors remember; derived from `spans`, None when it has yet to be made again.
    """

    __slots__ = (
        "at",
        "closed",
        "closed_at",
        "cost_micro_usd",
        "end_ts",
        "feedback",
        "hits",
        "last_ts",
        "memory",
        "open",
        "seen",
        "spans",
        "splits",
        "team",
        "wake",
    )

    def __init__(self) -> None:
        self.at = -1
        self.last_ts = 0
        self.end_ts: int | None = None
        self.closed_at = 0
        self.seen: set[int] = set()
        self.spans: list[SpanRecord] = []
        self.feedback: list[FeedbackRecord] = []
        self.open: dict[str, Decision] = {}
        self.closed: dict[str, str | None] = {}
        self.hits: dict[str, Hit] = {}
        self.team: list[tuple[str, str]] = []
        self.splits: dict[str, Split] = {}
        self.wake = 0
        self.cost_micro_usd = 0
        self.memory: dict[Any, Any] | None = {}

    @property
    def finished(self) -> bool:
        """Whether an ended trace may be reduced: it was rewarded, or nothing waits for a decision of it."""
        return self.end_ts is not None and (bool(self.closed) or not self.feedback)

    @property
    def quiet_at(self) -> int:
        """Event time of its last event or reward; unit: microseconds since 1970-01-01 UTC."""
        return max(self.last_ts, self.closed_at)

    def orphans(self) -> int:
        """Count the feedback events that are aimed at no decision of this trace."""
        if not self.feedback:
            return 0
        decisions = self.closed.keys() | self.open.keys()
        spans = {decision_id[-16:] for decision_id in decisions} | set(self.closed.values())
        spans.update(decision.fields["parent_span_id"] for decision in self.open.values())
        count = 0
        for feedback in self.feedback:
            if feedback.decision_id is not None:
                count += feedback.decision_id not in decisions
            elif feedback.span_id is not None:
                count += feedback.span_id not in spans
            else:
                count += not decisions
        return count

    def dump(self) -> bytes:
        """JSON form; `load_trace` reads it."""
        waiting = [[[d.fields[name] for name in KEPT], d.ts, d.judged] for d in self.open.values()]
        parts: list[Any] = [
            "open", self.at, self.last_ts, self.end_ts, self.closed_at, sorted(self.seen), self.spans,
            self.feedback, waiting, list(self.closed.items()), self.hits,
        ]  # fmt: skip
        if self.team or self.splits:
            parts.append([self.team, self.splits])
        return to_json(parts)


class Marker:
    """What stays of a closed trace until nothing about it is expected any more.

    Attributes
    ----------
    at : int
        Kafka offset of the last event applied.
    quiet_at : int
        Event time of its last event or reward while open; unit: microseconds since 1970-01-01 UTC.
    seen : array of uint64
        Folded ids of its events.
    """

    __slots__ = ("at", "quiet_at", "seen")

    def __init__(self, at: int, quiet_at: int, seen: Iterable[int]) -> None:
        self.at = at
        self.quiet_at = quiet_at
        self.seen = array("Q", seen)

    def dump(self) -> bytes:
        """JSON form; `load_trace` reads it."""
        return to_json(["closed", self.at, self.quiet_at, self.seen.tolist()])


def load_trace(data: bytes, policies: PolicyBook) -> tuple[Trace | Marker, int]:
    """Read the JSON form of a trace.

    Parameters
    ----------
    data : bytes
        What ``dump`` wrote.
    policies : PolicyBook
        Policies for the decisions that wait.

    Returns
    -------
    trace : Trace or Marker
    dropped : int
        Waiting decisions whose policy no longer exists: nothing can say what they are worth.

    Raises
    ------
    ValueError
        When the data is not such a form.
    """
    parts = json.loads(data)
    if parts[0] == "closed":
        _, at, quiet_at, seen = parts
        return Marker(at, quiet_at, seen), 0
    if parts[0] != "open":
        raise ValueError(f"unknown form of a trace: {parts[0]!r}")
    trace = Trace()
    # Before there were detectors, spans were shorter and nothing followed the closed decisions.
    _, trace.at, trace.last_ts, trace.end_ts, trace.closed_at, seen, spans, feedback, waiting, closed = parts[:10]
    hits = parts[10:11]
    for team, splits in parts[11:]:
        trace.team = [(policy, arm) for policy, arm in team]
        trace.splits = {metric: Split(*made) for metric, made in splits.items()}
    trace.seen = set(seen)
    trace.spans = [SpanRecord(*span) for span in spans]
    trace.feedback = [FeedbackRecord(*one) for one in feedback]
    trace.closed = dict(closed)
    trace.hits = {name: Hit(*hit) for name, hit in hits[0].items()} if hits else {}
    trace.cost_micro_usd = sum(span.cost_micro_usd for span in trace.spans)
    trace.memory = None
    dropped = 0
    for values, ts, judged in waiting:
        fields = dict(zip(KEPT, values, strict=True))
        policy = policies.get(fields["tenant"], fields["policy"])
        if policy is None:
            dropped += 1
            continue
        decision = Decision(fields, ts, policy)
        decision.judged = judged
        trace.open[fields["decision_id"]] = decision
    return trace, dropped


def to_json(value: object) -> bytes:
    """Compact JSON of lists, tuples and objects of finite numbers, however long, and texts."""
    try:
        return _encode(value)
    except OverflowError:  # an integer of more than 64 bits
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
