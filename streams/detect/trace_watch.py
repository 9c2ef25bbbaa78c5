"""Detectors of traces and decisions, as the join drives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from learners.detector_settings import DetectorSettings
from streams.credit import SpanTree
from streams.detect.catalog import DECISION, TRACE
from streams.detect.contract import DecisionDetector, Detector, Finding, Memory, TraceDetector
from streams.detect.runaway import EVERY, Runaway
from streams.detect.signs import CONTEXT
from streams.trace_state import Decision, Hit, SpanRecord, Trace, TraceKey

_ALL: Final = 128


class Found(NamedTuple):
    """A finding and where it was made; `policy` and `agent` may be empty, `ts` is event time in microseconds."""

    detector: Detector
    finding: Finding
    key: TraceKey
    policy: str
    agent: str
    ts: int


class TraceWatch:
    """The detectors of the traces of one partition.

    Parameters
    ----------
    settings : DetectorSettings
        Thresholds.

    Attributes
    ----------
    found : list of Found
        What was found and not yet taken: always the same list.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        self.found: list[Found] = []
        self._detectors = [make(settings) for make in TRACE if make.name not in settings.off]
        self._decision: list[DecisionDetector] = [make(settings) for make in DECISION if make.name not in settings.off]
        # What a span with these signs is shown to.
        self._by_signs = [tuple(one for one in self._detectors if one.signs & signs) for signs in range(_ALL)]
        self._peak = min(settings.context_overflow.peak, settings.context_overflow.full)
        self._runaway = next((one for one in self._detectors if isinstance(one, Runaway)), None)
        self._most_cost = self._runaway.cost_micro_usd if self._runaway else 1 << 62
        self._depth = self._runaway.depth if self._runaway else 1 << 62

    def see(self, key: TraceKey, trace: Trace, span: SpanRecord) -> None:
        """Look at the span that a trace has just got."""
        spans = trace.spans
        cost = trace.cost_micro_usd = trace.cost_micro_usd + span.cost_micro_usd
        memory = trace.memory
        # A context window of which much is free, and nothing remembered: what most spans with a sign are.
        plain = span.signs == CONTEXT and not memory and memory is not None and (span.fill or 0.0) < self._peak
        for detector in () if plain else self._by_signs[span.signs]:
            if detector.name not in trace.hits:
                if trace.memory is None:
                    trace.memory = self._recall(trace)
                finding = detector.add(span, spans, trace.memory)
                if finding is not None:
                    self._hit(detector, finding, key, trace, span)
        if cost > self._most_cost or (len(spans) > self._depth and not len(spans) % EVERY):
            self._look_at_size(key, trace)

    def ended(self, key: TraceKey, trace: Trace) -> None:
        """Look at a trace whose end has come."""
        if len(trace.spans) > self._depth:
            self._look_at_size(key, trace)

    def judge(self, key: TraceKey, trace: Trace, decision: Decision, reward: dict[str, Any], tree: SpanTree) -> None:
        """Look at a decision whose reward closes: say who hit it, and charge it with the penalties that its policy's reward spec names.

        A penalty is one more failure of the decision for each detector named that has hit a span it is charged with; utility
        follows.
        """
        fields, rules = decision.fields, decision.policy.reward
        enclosing = fields["parent_span_id"]
        found: set[str] = set()
        for detector in self._decision:
            finding = detector.judge(decision, reward, trace.feedback)
            if finding is not None:
                found.add(detector.name)
                self.found.append(Found(detector, finding, key, fields["policy"], fields["agent"], reward["ts"]))
        found.update(name for name, hit in trace.hits.items() if tree.covers(enclosing, rules.credit, hit.span_id))
        if not found:
            return
        reward["hits"] = " ".join(sorted(found))
        extra = sum(name in found for name in rules.penalties)
        if extra:
            reward["failures"] += extra
            if reward["utility"] is not None:
                reward["utility"] = float(
                    rules.utility(reward["quality"], reward["cost_micro_usd"], reward["latency_us"], reward["failures"])
                )

    def _look_at_size(self, key: TraceKey, trace: Trace) -> None:
        if self._runaway is None or self._runaway.name in trace.hits:
            return
        span = trace.spans[-1]
        finding = self._runaway.add(span, trace.spans, {})
        if finding is not None:
            self._hit(self._runaway, finding, key, trace, span)

    def _hit(self, detector: TraceDetector, finding: Finding, key: TraceKey, trace: Trace, span: SpanRecord) -> None:
        trace.hits[detector.name] = Hit(span.span_id, span.ts)
        policy = _policy_of(trace, span)
        self.found.append(Found(detector, finding, key, policy, span.agent, span.ts))

    def _recall(self, trace: Trace) -> Memory:
        """Make again what detectors remember of a trace that came back from the state topic."""
        memory: Memory = {}
        before: list[SpanRecord] = []
        for span in trace.spans[:-1]:
            before.append(span)
            for detector in self._by_signs[span.signs]:
                if detector.name not in trace.hits:
                    detector.add(span, before, memory)
        return memory


def _policy_of(trace: Trace, span: SpanRecord) -> str:
    """Policy of the waiting decision that a span most likely belongs to: one of its agent's, or else the first."""
    decisions = trace.open.values()
    for decision in decisions:
        if decision.fields["agent"] == span.agent:
            return str(decision.fields["policy"])
    return next((str(decision.fields["policy"]) for decision in decisions), "")


def evidence_of(found: Found) -> Mapping[str, Any]:
    """Evidence of a finding in a trace, with the trace."""
    return {"trace_ids": [found.key[0]], **found.finding.evidence}
