"""How much faster several workers are than one, by the clock and by what an event costs."""

from __future__ import annotations

import os

import pytest

from benchmarks.workers import POLICIES, Row, summed
from learners.policies_file import load_policies


def test_by_clock_and_by_cpu_are_medians_of_the_log_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rows = [Row("moving", 1, 5.0, 0, 0, behind_s=1.0)]
    for rate1, rate4 in ((10_000, 15_000), (11_000, 17_600), (50_000, 1_000)):
        rows += [
            Row("log", 1, rate1, 0, 0, cpu_us_per_event=30.0, broker_cores=0.3),
            Row("log", 2, 1.0, 0, 0, cpu_us_per_event=1.0, broker_cores=0.3),
            Row("log", 4, rate4, 0, 0, cpu_us_per_event=40.0, broker_cores=0.3),
        ]
    found = summed(rows)
    assert found["by_clock"] == pytest.approx(15_000 / 11_000, abs=0.01)
    assert found["by_cpu"] == 1.5, "two cores, each a third dearer"


def test_the_hot_policy_is_learned_in_shards() -> None:
    assert {spec.name: spec.shards for spec in load_policies(POLICIES)} == {
        "hot/answer": 4,
        "cool/search": 1,
        "cool/plan": 1,
    }
