"""What every detector must do: find what it is for, leave the look-alikes alone, and forget nothing over a restart."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from benchmarks.detector_policies import POLICY_CASES, PolicyCase, policy_case
from benchmarks.detector_quality import Score, score_policies, score_traces
from benchmarks.detector_traces import TRACE_CASES, TraceCase, trace_case
from learners.detector_settings import NAMES, DetectorSettings
from learners.policies import Policies
from learners.policies_file import parse_policies
from steersman.codec import Codec
from streams.detect.catalog import DECISION, POLICY, TRACE
from streams.detect.policy_watch import PolicyWatch
from streams.trace_stage import TraceStage

SETTINGS = DetectorSettings()
POLICIES = parse_policies(
    '[[policy]]\nname = "cases"\nbaseline = { side = "left" }\n[policy.knobs]\nside = ["left", "right"]\n[policy.reward]\nwindow_s = 60.0\n'
)
T0 = 1_790_000_000_000_000
_CODEC = Codec("trace_event")


def spec() -> Any:
    return next(iter(POLICIES))


def test_the_catalog_the_thresholds_and_the_names_are_of_the_same_detectors() -> None:
    listed = [make.name for make in (*TRACE, *DECISION, *POLICY)]
    assert sorted(listed) == sorted(NAMES)
    assert set(NAMES) == set(DetectorSettings.model_fields) - {"off", "brakes", "brake", "alerts_per_minute"}
    assert set(TRACE_CASES) | set(POLICY_CASES) == set(NAMES)
    assert all(
        make.__doc__ and make.severity in ("INFO", "WARNING", "CRITICAL") for make in (*TRACE, *DECISION, *POLICY)
    )


@pytest.mark.parametrize("detector", TRACE_CASES)
def test_traces_recall_and_precision(detector: str) -> None:
    rng = random.Random(f"traces {detector}")
    cases = [trace_case(rng, spec(), detector, positive=i % 2 == 0) for i in range(60)]
    check(score_traces(cases, POLICIES, SETTINGS), detector)


@pytest.mark.parametrize("detector", POLICY_CASES)
def test_policies_recall_and_precision(detector: str) -> None:
    rng = random.Random(f"policies {detector}")
    check(score_policies([policy_case(rng, detector, positive=i % 2 == 0) for i in range(24)], SETTINGS), detector)


def check(scores: dict[str, Score], detector: str) -> None:
    score = scores[detector]
    assert score.recall >= 0.95, score
    assert score.precision >= 0.90, score
    others = {name: one for name, one in scores.items() if name != detector}
    assert sum(one.false for one in others.values()) <= 3, others


def log_of(cases: list[TraceCase]) -> list[tuple[int, int, dict[str, Any]]]:
    """Cases side by side, as a stage reads them."""
    timed = []
    for number, case in enumerate(cases):
        at = T0 + number * 30_000
        for event in case.events:
            at += event["after_us"]
            timed.append((at, {name: value for name, value in event.items() if name != "after_us"}))
    timed.sort(key=lambda one: one[0])
    tick = {
        "event_id": "f" * 32,
        "trace_id": "f" * 32,
        "span_id": "f" * 16,
        "kind": "TICK",
        "tenant": "default",
        "agent": "",
    }
    timed.append((timed[-1][0] + 3_600_000_000, tick))
    return [(n, at, _CODEC.decode(_CODEC.encode({**fields, "ts": at}))) for n, (at, fields) in enumerate(timed)]


def play(log: list[Any], restarts: set[int], policies: Policies = POLICIES, **settings: Any) -> list[dict[str, Any]]:
    """Alerts and rewards of a log, with restarts from a checkpoint before some offsets."""
    thresholds = DetectorSettings.model_validate({"alerts_per_minute": 100_000, **settings})
    stage, out, saved = TraceStage(policies, 2, detectors=thresholds), [], {}
    for offset, at, event in log:
        if offset in restarts:
            for key, value in stage.dump_dirty().items():
                saved[key] = value
            stage = TraceStage(policies, 2, detectors=thresholds)
            stage.restore([(key, value) for key, value in saved.items() if value is not None])
        made = stage.process([(offset, at, event)])
        out += made.alerts + made.rewards
    return out


def test_a_restart_anywhere_changes_no_alert() -> None:
    rng = random.Random("restarts")
    cases = [trace_case(rng, spec(), detector, positive=True) for detector in TRACE_CASES for _ in range(3)]
    log = log_of(cases)
    whole = play(log, set())
    assert {one["detector"] for one in whole if "detector" in one} == set(TRACE_CASES)
    for _ in range(3):
        assert play(log, set(rng.sample(range(len(log)), 40))) == whole


def test_repeated_events_count_once_and_a_trace_has_one_alert_of_each_detector() -> None:
    rng = random.Random("repeats")
    case = trace_case(rng, spec(), "tool_loop", positive=False)
    case.events = [event for event in case.events for _ in range(6)]
    assert not [one for one in play(log_of([case]), set()) if one.get("detector") == "tool_loop"]
    case = trace_case(rng, spec(), "retry_storm", positive=True)
    (alert,) = [one for one in play(log_of([case]), set()) if one.get("detector") == "retry_storm"]
    assert alert["trace_id"] == case.events[0]["trace_id"]
    assert alert["policy"] == "cases"
    assert (alert["source_partition"], alert["source_offset"] >= 0, alert["seq"]) == (2, True, 0)
    assert json.loads(alert["evidence"])["trace_ids"] == [alert["trace_id"]]
    assert _alert_codec().decode(_alert_codec().encode(alert)) == alert


def _alert_codec() -> Codec:
    return Codec("alert")


def test_off_and_the_cap_on_alerts() -> None:
    rng = random.Random("cap")
    log = log_of([trace_case(rng, spec(), "empty_output", positive=True) for _ in range(12)])
    assert not [one for one in play(log, set(), off=["empty_output"]) if one.get("detector") == "empty_output"]
    few = [one for one in play(log, set(), alerts_per_minute=5) if one.get("detector") == "empty_output"]
    assert len(few) == 5
    stage = TraceStage(POLICIES, 2, detectors=DetectorSettings(alerts_per_minute=5))
    counters: Counter[str] = Counter()
    later = trace_case(rng, spec(), "empty_output", positive=True)
    (first, *_), alerts = later.events, []
    first["after_us"] = 7_200_000_000
    for offset, at, event in log_of(
        [*(trace_case(rng, spec(), "empty_output", positive=True) for _ in range(12)), later]
    ):
        out = stage.process([(offset, at, event)])
        counters += out.counters
        alerts += out.alerts
    assert (counters["alerts_empty_output"], counters["alerts_suppressed"]) == (6, 7)
    assert json.loads(alerts[-1]["evidence"])["suppressed"] == 7


PENALTIES = """
[[policy]]
name = "cases"
baseline = {{ side = "left" }}
[policy.knobs]
side = ["left", "right"]
[policy.reward]
window_s = 60.0
weights = {{ quality = 1.0, failures = 0.25 }}
penalties = {names}
"""


@pytest.mark.parametrize("detector", TRACE_CASES)
def test_a_hit_is_one_more_failure_where_the_reward_spec_says_so(detector: str) -> None:
    case = trace_case(random.Random(f"penalty {detector}"), spec(), detector, positive=True)
    rewards = []
    for names in ([], [detector], list(TRACE_CASES)):
        policies = parse_policies(PENALTIES.format(names=json.dumps(names)))
        (reward,) = [one for one in play(log_of([case]), {3, 9}, policies) if "utility" in one]
        rewards.append(reward)
    without, one, every = rewards
    assert all(detector in reward["hits"].split() for reward in rewards), "said whether it is a penalty or not"
    assert one["failures"] == without["failures"] + 1
    assert one["utility"] == pytest.approx(without["utility"] - 0.25)
    assert every["failures"] >= one["failures"]
    assert without["reward_spec"] != one["reward_spec"]


def test_a_hit_outside_a_decisions_subtree_is_not_charged_to_it() -> None:
    case = trace_case(random.Random("subtree"), spec(), "empty_output", positive=True)
    for event in case.events:
        if event["kind"] == "DECISION":
            event["parent_span_id"] = "e" * 16
    policies = parse_policies(PENALTIES.format(names='["empty_output"]'))
    (reward,) = [one for one in play(log_of([case]), set(), policies) if "utility" in one]
    assert (reward["failures"], reward["hits"]) == (0, "")


def watch_all(
    case: PolicyCase, settings: DetectorSettings, restart_every: int = 0, **kwargs: Any
) -> tuple[list[Any], bytes]:
    watch, saved, alerts = PolicyWatch(settings, 4, Counter(), **kwargs), {}, []
    for offset, reward in enumerate(case.rewards):
        if restart_every and offset and offset % restart_every == 0:
            saved.update(watch.dump_dirty())
            watch = PolicyWatch(settings, 4, Counter(), **kwargs)
            for item, state in saved.items():
                watch.restore(item, state)
            # Read again after the restart: passed over.
            assert not watch.add("default/case", offset - 1, case.rewards[offset - 1])
        alerts += watch.add("default/case", offset, reward)
    saved.update(watch.dump_dirty())
    return alerts, saved["detect:default/case"]


@pytest.mark.parametrize("detector", POLICY_CASES)
def test_state_of_a_policys_detectors_comes_back_equal(detector: str) -> None:
    case = policy_case(random.Random(f"state {detector}"), detector, positive=True)
    alerts, state = watch_all(case, SETTINGS)
    assert detector in {alert["detector"] for alert in alerts}
    assert watch_all(case, SETTINGS, restart_every=37) == (alerts, state)
    assert len(state) < 20_000
    for alert in alerts:
        assert alert["source_partition"] == 4
        assert _alert_codec().decode(_alert_codec().encode(alert)) == alert


def test_the_alerts_of_a_brake_are_told_and_say_so() -> None:
    case = policy_case(random.Random("brake"), "feedback_collapse", positive=True)
    told: list[tuple[str, Any]] = []
    settings = DetectorSettings(brakes=["feedback_collapse"])
    alerts, _ = watch_all(case, settings, brake=lambda key, alert: told.append((key, alert["alert_id"])))
    assert told == [("default/case", alert["alert_id"]) for alert in alerts if alert["detector"] == "feedback_collapse"]
    assert told
    assert all(
        json.loads(one["evidence"]).get("brake", False) == (one["detector"] == "feedback_collapse") for one in alerts
    )
