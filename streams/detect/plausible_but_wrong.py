"""Nothing failed, and the evaluation says that it was wrong all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding
from streams.trace_state import Decision, FeedbackRecord, targets


class PlausibleButWrong:
    """A decision without a failed span whose evaluation lies below its threshold.

    Looked at when the reward closes, with all feedback there is: of the policy's reward metric its quality, of other metrics
    that have a threshold the worst value. A quality that is the spec's default is no evaluation.
    """

    name: ClassVar[str] = "plausible_but_wrong"
    severity: ClassVar[str] = "WARNING"

    def __init__(self, settings: DetectorSettings) -> None:
        self._below = settings.plausible_but_wrong.below
        self._metrics = settings.plausible_but_wrong.metrics

    def judge(
        self, decision: Decision, reward: Mapping[str, Any], feedback: Sequence[FeedbackRecord]
    ) -> Finding | None:
        """Look at a decision; see `streams.detect.contract.DecisionDetector`."""
        if reward["failures"]:
            return None
        metric = decision.policy.reward.metric
        if reward["quality"] is not None and not reward["quality_defaulted"]:
            threshold = self._metrics.get(metric, self._below)
            if reward["quality"] < threshold:
                return self._found(reward, metric, reward["quality"], threshold)
        for one in sorted(feedback):
            limit = self._metrics.get(one.metric)
            if limit is None or one.metric == metric or one.value is None or one.value >= limit:
                continue
            if one.ts <= decision.window_end_us and targets(
                one, reward["decision_id"], decision.fields["parent_span_id"]
            ):
                return self._found(reward, one.metric, one.value, limit)
        return None

    def _found(self, reward: Mapping[str, Any], metric: str, value: float, threshold: float) -> Finding:
        return Finding(
            value,
            threshold,
            f"{reward['agent'] or 'an agent'} finished without an error, and its {metric} is {value:g}, below {threshold:g}: look at "
            "the trace before its answer is trusted.",
            {
                "metric": metric,
                "decision_id": reward["decision_id"],
                "arm": reward["arm"],
                "closed_by": reward["closed_by"],
            },
        )
