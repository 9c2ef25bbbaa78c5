"""Recall and precision of the detectors on labelled cases: the stages as they run, without Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.detector_policies import PolicyCase
from benchmarks.detector_traces import TraceCase
from learners.detector_settings import DetectorSettings
from learners.policies import Policies
from steersman.codec import Codec
from streams.detect.policy_watch import PolicyWatch
from streams.trace_stage import TraceStage

_T0 = 1_790_000_000_000_000
_CODEC = Codec("trace_event")


@dataclass
class Score:
    """Counts of one detector.

    Attributes
    ----------
    hits, misses, false
        Cases with the failure that were found, and that were not; alerts on cases without it.
    by_case
        Description of a case -> how often it was judged wrongly.
    """

    hits: int = 0
    misses: int = 0
    false: int = 0
    by_case: Counter[str] = field(default_factory=Counter)

    @property
    def recall(self) -> float:
        """Share of the failures that were found."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def precision(self) -> float:
        """Share of the alerts that were right."""
        return self.hits / max(1, self.hits + self.false)

    def count(self, what: str, *, labelled: bool, found: bool) -> None:
        """Count a case."""
        self.hits += labelled and found
        self.misses += labelled and not found
        self.false += found and not labelled
        if labelled != found:
            self.by_case[what] += 1


def score_traces(cases: Iterable[TraceCase], policies: Policies, settings: DetectorSettings) -> dict[str, Score]:
    """Run traces through a trace stage, many at a time, and compare its alerts with their labels.

    The cap on alerts is lifted: what it holds back is counted by the stage, and is not what is measured here.
    """
    settings = settings.model_copy(update={"alerts_per_minute": 100_000})
    stage = TraceStage(policies, 0, detectors=settings)
    listed = list(cases)
    found: dict[str, set[str]] = {}
    timed = []
    for number, case in enumerate(listed):
        at = _T0 + number * 50_000
        for event in case.events:
            at += event["after_us"]
            timed.append((at, {name: value for name, value in event.items() if name != "after_us"}))
    timed.sort(key=lambda one: one[0])
    end = timed[-1][0] + 3_600_000_000
    tick = {
        "event_id": "f" * 32,
        "trace_id": "f" * 32,
        "span_id": "f" * 16,
        "kind": "TICK",
        "tenant": "default",
        "agent": "",
    }
    timed.append((end, tick))
    for offset, (at, fields) in enumerate(timed):
        event = _CODEC.decode(_CODEC.encode({**fields, "ts": at}))
        out = stage.process([(offset, at, event)])
        if out.rejected:
            raise RuntimeError(f"a case holds an event that is no event: {out.rejected[0][1]}")
        for alert in out.alerts:
            found.setdefault(alert["trace_id"], set()).add(alert["detector"])
    scores: dict[str, Score] = {}
    for case in listed:
        hit = found.get(case.events[0]["trace_id"], set())
        for detector in {case.looks_like, *hit}:
            scores.setdefault(detector, Score()).count(
                case.what, labelled=case.label == detector, found=detector in hit
            )
    return scores


def score_policies(cases: Iterable[PolicyCase], settings: DetectorSettings) -> dict[str, Score]:
    """Show rewards to the detectors of policies, and compare their alerts with the labels; one before its failure is false."""
    scores: dict[str, Score] = {}
    for case in cases:
        watch = PolicyWatch(settings, 0, Counter())
        hit: set[str] = set()
        for offset, reward in enumerate(case.rewards):
            for alert in watch.add("default/case", offset, reward):
                if alert["detector"] == case.label and offset < case.begins:
                    score = scores.setdefault(case.label, Score())
                    score.false += 1
                    score.by_case[f"{case.what}, too early"] += 1
                else:
                    hit.add(alert["detector"])
        for detector in {case.looks_like, *hit}:
            scores.setdefault(detector, Score()).count(
                case.what, labelled=case.label == detector, found=detector in hit
            )
    return scores


def added(parts: Iterable[Mapping[str, Score]]) -> dict[str, Score]:
    """Add up scores of several seeds."""
    made: dict[str, Score] = {}
    for part in parts:
        for name, score in part.items():
            whole = made.setdefault(name, Score())
            whole.hits += score.hits
            whole.misses += score.misses
            whole.false += score.false
            whole.by_case.update(score.by_case)
    return made


def as_record(score: Score) -> dict[str, Any]:
    """Return a score as it is printed and stored."""
    return {
        "recall": round(score.recall, 4),
        "precision": round(score.precision, 4),
        "positives": score.hits + score.misses,
        "alerts": score.hits + score.false,
    }
