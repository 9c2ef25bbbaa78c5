"""The detectors of policies as the learning stage runs them."""

from __future__ import annotations

from typing import Any

from learners.detector_settings import DetectorSettings
from learners.policies_file import parse_policies
from steersman.codec import Codec
from streams.learning_stage import LearningOutput, LearningStage

POLICIES = parse_policies(
    """
[[policy]]
name = "a/one"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
"""
)
SPEC = next(iter(POLICIES))
DETECTORS = DetectorSettings.model_validate(
    {"brakes": ["feedback_collapse"], "feedback_collapse": {"window": 20}, "behaviour_drift": {"warm_up": 10}}
)
_CODEC = Codec("reward")


def reward(offset: int, **changes: Any) -> dict[str, Any]:
    """A reward of a policy that tries nothing but one arm; its cost jumps at the 40th."""
    record = {
        "decision_id": f"d{offset}", "tenant": "default", "policy": SPEC.name, "trace_id": f"{offset:032x}", "ts": 1_000_000 * offset,
        "decided_at": 1, "policy_epoch": 1, "policy_version": 0, "arm": "model=small", "propensity": 1.0, "mode": "LIVE",
        "features": [1.0], "quality": 0.5, "utility": 0.5, "cost_micro_usd": 100 if offset < 40 else 90_000, "latency_us": 20,
        "failures": 0, "reward_spec": SPEC.reward_hash, "source_partition": 0, "source_offset": offset, "closed_by": "COMPLETE",
        **changes,
    }  # fmt: skip
    return _CODEC.decode(_CODEC.encode(record))


def stage(saved: dict[str, bytes | None] | None = None) -> LearningStage:
    made = LearningStage(POLICIES, 0, 1, detectors=DETECTORS)
    if saved is not None:
        made.restore([(key, value) for key, value in saved.items() if value is not None])
    return made


def feed(one: LearningStage, first: int, end: int) -> LearningOutput:
    return one.process([(n, 0, reward(n)) for n in range(first, end)], now_us=1, monotonic_us=0)


def test_rewards_that_are_applied_raise_alerts_with_provenance_and_brakes_act() -> None:
    output = feed(stage(), 0, 80)
    assert [alert["detector"] for alert in output.alerts] == ["feedback_collapse", "behaviour_drift"]
    collapse, drift = output.alerts
    assert (collapse["source_partition"], collapse["source_offset"], collapse["policy"]) == (0, 19, "a/one")
    assert collapse["ts"] == 19_000_000
    assert "cost" in drift["message"]
    assert [(act["act"], act["who"], act["policy"]) for act in output.acts] == [
        ("ROLLBACK", "detector feedback_collapse", "a/one")
    ]
    assert (output.counters["alerts"], output.counters["alerts_behaviour_drift"]) == (2, 1)


def test_repeats_and_rewards_that_are_skipped_are_not_shown() -> None:
    one = stage()
    feed(one, 0, 19)
    again = one.process([(n, 0, reward(n % 19)) for n in range(19, 60)], now_us=1, monotonic_us=0)
    assert not again.alerts
    unknown = one.process([(n, 0, reward(n, arm="model=other")) for n in range(60, 100)], now_us=1, monotonic_us=0)
    assert not unknown.alerts


def test_a_restart_in_the_middle_changes_no_alert_and_a_torn_checkpoint_repeats_none() -> None:
    whole = feed(stage(), 0, 80).alerts
    one = stage()
    alerts = feed(one, 0, 30).alerts
    saved = one.dump_dirty()
    two = stage(saved=saved)
    assert alerts + feed(two, 30, 80).alerts == whole
    # Of the next checkpoint only what comes before the learners was written: they read again what the detectors have seen.
    newer = two.dump_dirty()
    torn = saved | {key: value for key, value in newer.items() if key.startswith(("detect:", "ledger"))}
    assert list(newer).index("detect:default/a/one") < list(newer).index("default/a/one")
    assert not feed(stage(saved=torn), 30, 80).alerts


def test_without_thresholds_nothing_runs() -> None:
    one = LearningStage(POLICIES, 0, 1)
    assert not feed(one, 0, 80).alerts
    assert not [key for key in one.dump_dirty() if key.startswith("detect:")]
