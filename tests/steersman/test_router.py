"""Deciding: draws, masks, stages, the control group, and every way in which a policy cannot be followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from steersman import router as router_module
from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.events import Kind, Mode
from steersman.fallback import label_of, parse_label
from steersman.held import StaticPolicies
from steersman.ids import new_trace_id
from steersman.router import Router
from steersman.sink import MemorySink
from steersman.snapshot import PolicySnapshot
from steersman.traceparent import TraceParent
from steersman.tracer import Tracer

POLICY = "research/retrieval"
CONTEXT = {"complexity": 0.5, "length": 2.0}
Make = Callable[..., PolicySnapshot]


class Bench:
    """A router over fixed policies, with its sink."""

    def __init__(
        self, sink: MemorySink, tracer: Tracer, clock: Any, *snapshots: PolicySnapshot, **options: Any
    ) -> None:
        self.sink, self.tracer = sink, tracer
        self.source = StaticPolicies(snapshots, clock=clock)
        self.router = Router(self.source, tracer, clock=clock, **{"seed": 1, **options})

    def last(self) -> dict[str, Any]:
        return self.sink.records[-1]


@pytest.fixture
def bench(sink: MemorySink, tracer: Tracer, clock: Any) -> Callable[..., Bench]:
    return lambda *snapshots, **options: Bench(sink, tracer, clock, *snapshots, **options)


def test_a_decision_and_its_event_agree(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot())
    with b.tracer.span(Kind.AGENT, session_id="s") as span:
        decision = b.router.choose(POLICY, CONTEXT)
    event = b.sink.records[0]
    assert decision.arm == {"model": decision.arm["model"], "top_k": decision.arm["top_k"]}
    assert decision.label == label_of(decision.arm)
    assert (decision.policy_epoch, decision.policy_version, decision.mode, decision.reason) == (1, 5, Mode.LIVE, None)
    assert decision.decision_id == f"{span.trace_id}-{event['span_id']}"
    assert decision.trace_id == span.trace_id
    assert (event["kind"], event["parent_span_id"], event["session_id"]) == ("DECISION", span.span_id, "s")
    assert (event["decision_id"], event["policy"], event["arm"]) == (decision.decision_id, POLICY, decision.label)
    assert (event["propensity"], event["explored"], event["mode"]) == (decision.propensity, decision.explored, "LIVE")
    assert (event["policy_epoch"], event["policy_version"]) == (1, 5)
    assert event["features"] == [0.5, 2.0, 1.0]
    assert event["context"] == '{"complexity": 0.5, "length": 2.0}'
    assert "eligible" not in event, "empty means all"


def test_the_logged_propensity_is_that_of_the_draw(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot())
    stated: dict[str, float] = {}
    drawn: Counter[str] = Counter()
    n = 4_000
    for _ in range(n):
        decision = b.router.choose(POLICY, CONTEXT)
        stated[decision.label] = decision.propensity
        drawn[decision.label] += 1
    b.sink.records.clear()
    assert sum(stated.values()) == pytest.approx(1.0, abs=1e-9), "every arm was drawn, so the floor holds"
    for label, p in stated.items():
        assert drawn[label] / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5 + 1e-9)


def test_a_seed_makes_decisions_repeatable(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    runs = [[bench(make_snapshot(), seed=s).router.choose(POLICY, CONTEXT).label for _ in range(1)] for s in (3, 3)]
    one, two = bench(make_snapshot(), seed=3), bench(make_snapshot(), seed=3)
    assert [one.router.choose(POLICY, CONTEXT).label for _ in range(50)] == [
        two.router.choose(POLICY, CONTEXT).label for _ in range(50)
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("eligible", "indices"),
    [
        ({"model": ["s"]}, [0, 1]),
        ({"model": "s"}, [0, 1]),
        ({"model": {"s", "m"}, "top_k": (8,)}, [1, 3]),
        (["model=s;top_k=2", "model=m;top_k=8"], [0, 3]),
        ("model=s;top_k=8", [1]),
    ],
)
def test_only_what_is_eligible_is_chosen(
    bench: Callable[..., Bench], make_snapshot: Make, eligible: Any, indices: list[int]
) -> None:
    snapshot = make_snapshot()
    b = bench(snapshot)
    for _ in range(50):
        decision = b.router.choose(POLICY, CONTEXT, eligible)
        assert snapshot.arms.index(decision.label) in indices
        assert decision.mode is Mode.LIVE
    assert b.last()["eligible"] == indices


def test_no_restriction_is_no_mask(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot())
    b.router.choose(POLICY, CONTEXT, {})
    assert "eligible" not in b.last()


def test_true_is_not_one(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    assert ArmSpace({"n": [1, 2]}).labels == ("n=1", "n=2")
    decision = bench(make_snapshot()).router.choose(POLICY, CONTEXT, {"top_k": [True]})
    assert decision.reason == "unknown_arm"


# ---- stages ----------------------------------------------------------------------------------------------------------


def test_shadow_acts_by_the_baseline_and_logs_the_features(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(stage="SHADOW"))
    decision = b.router.choose(POLICY, CONTEXT)
    assert (decision.label, decision.propensity, decision.mode) == ("model=m;top_k=8", 1.0, Mode.SHADOW)
    assert b.last()["features"]


def test_frozen_is_followed(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    assert bench(make_snapshot(stage="FROZEN")).router.choose(POLICY, CONTEXT).mode is Mode.LIVE


def test_canary_logs_the_propensity_of_the_mixture(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    share, n = 0.25, 4_000
    b = bench(make_snapshot(stage="CANARY", canary_share=share))
    held = b.source.get(POLICY)
    assert held is not None
    alone = held.scorer.score(held.snapshot.features.encode(CONTEXT)).propensity
    expected = share * alone
    expected[held.baseline] += 1 - share
    drawn = np.zeros(4)
    for _ in range(n):
        decision = b.router.choose(POLICY, CONTEXT)
        index = held.snapshot.arms.index(decision.label)
        drawn[index] += 1
        assert decision.mode is Mode.CANARY
        assert decision.propensity == pytest.approx(expected[index])
    assert drawn / n == pytest.approx(expected, abs=0.05)


# ---- the control group -----------------------------------------------------------------------------------------------


def test_the_control_group_is_a_share_of_the_traces(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(), holdout=0.2)
    modes = Counter(b.router.choose(POLICY, CONTEXT).mode for _ in range(2000))
    assert modes[Mode.HOLDOUT] / 2000 == pytest.approx(0.2, abs=0.03)
    event = next(e for e in b.sink.records if e["mode"] == "HOLDOUT")
    assert (event["arm"], event["propensity"]) == ("model=m;top_k=8", 1.0)
    assert event["features"]


def test_all_agents_of_a_trace_agree_on_the_control_group(
    bench: Callable[..., Bench], make_snapshot: Make, sink: MemorySink
) -> None:
    one = bench(make_snapshot(), holdout=0.5, seed=1)
    other = bench(make_snapshot(policy="research/synthesis"), holdout=0.5, seed=2)
    seen = set()
    for _ in range(100):
        trace_id = new_trace_id()
        modes = set()
        for b, policy in ((one, POLICY), (other, "research/synthesis"), (one, POLICY)):
            with b.tracer.span(parent=str(TraceParent(trace_id, "00f067aa0ba902b7"))):
                modes.add(b.router.choose(policy, CONTEXT).mode)
        assert len(modes) == 1
        seen |= modes
    assert seen == {Mode.LIVE, Mode.HOLDOUT}


def test_the_control_group_obeys_the_mask(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    decision = bench(make_snapshot(), holdout=1.0).router.choose(POLICY, CONTEXT, {"model": ["s"]})
    assert (decision.mode, decision.label) == (Mode.HOLDOUT, "model=s;top_k=2")


# ---- fallbacks -------------------------------------------------------------------------------------------------------


def _assert_fallback(b: Bench, decision: Any, reason: str, label: str) -> None:
    assert (decision.mode, decision.reason, decision.propensity) == (Mode.FALLBACK, reason, 1.0)
    assert decision.label == label
    assert (decision.policy_epoch, decision.policy_version, decision.explored) == (None, None, False)
    event = b.last()
    assert (event["mode"], event["reason"], event["propensity"], event["arm"]) == ("FALLBACK", reason, 1.0, label)
    assert "features" not in event
    assert b.router.stats() == {"FALLBACK": 1, f"FALLBACK:{reason}": 1}


def test_no_snapshot_yet(bench: Callable[..., Bench]) -> None:
    b = bench(baselines={POLICY: {"model": "m", "top_k": 8, "web": False}})
    decision = b.router.choose(POLICY, CONTEXT)
    _assert_fallback(b, decision, "no_snapshot", "model=m;top_k=8;web=false")
    assert decision.arm == {"model": "m", "top_k": 8, "web": False}
    with pytest.raises(TypeError):
        decision.arm["model"] = "s"  # type: ignore[index]


def test_a_policy_that_no_one_knows(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot())
    decision = b.router.choose("research/typo", CONTEXT)
    _assert_fallback(b, decision, "unknown_policy", "")
    assert decision.arm == {}


def test_stale(bench: Callable[..., Bench], make_snapshot: Make, clock: Any) -> None:
    b = bench(make_snapshot(), max_age_s=60)
    clock.advance(61)
    _assert_fallback(b, b.router.choose(POLICY, CONTEXT), "stale", "model=m;top_k=8")


def test_past_its_time(bench: Callable[..., Bench], make_snapshot: Make, clock: Any) -> None:
    b = bench(make_snapshot(not_after=clock.now_us() + 1_000_000))
    assert b.router.choose(POLICY, CONTEXT).mode is Mode.LIVE
    clock.advance(1.1)
    b = bench(make_snapshot(not_after=clock.now_us() - 1))
    _assert_fallback(b, b.router.choose(POLICY, CONTEXT), "expired", "model=m;top_k=8")


@pytest.mark.parametrize(("stage", "reason"), [("RETIRED", "retired"), ("UNKNOWN", "unsupported_stage")])
def test_stages_that_are_not_followed(
    bench: Callable[..., Bench], make_snapshot: Make, stage: str, reason: str
) -> None:
    b = bench(make_snapshot(stage=stage))
    _assert_fallback(b, b.router.choose(POLICY, CONTEXT), reason, "model=m;top_k=8")


@pytest.mark.parametrize(
    ("eligible", "label"),
    [
        ({"model": ["new"]}, "model=m;top_k=8"),
        ({"model": ["new", "s"]}, "model=s;top_k=2"),
        ({"web": [True]}, "model=m;top_k=8"),
        (["model=new;top_k=8"], "model=m;top_k=8"),
        ([5], "model=m;top_k=8"),
    ],
)
def test_an_unknown_arm_among_the_eligible(
    bench: Callable[..., Bench], make_snapshot: Make, eligible: Any, label: str
) -> None:
    b = bench(make_snapshot(), baselines={POLICY: {"model": "m", "top_k": 8}})
    decision = b.router.choose(POLICY, CONTEXT, eligible)
    assert (decision.mode, decision.reason) == (Mode.FALLBACK, "unknown_arm")
    if eligible == {"model": ["new"]}:
        assert decision.arm == {"model": "new", "top_k": 8}, "what is not allowed is not done"
    elif eligible in (["model=new;top_k=8"],):
        assert decision.arm == {"model": "new", "top_k": 8}
    elif eligible != [5]:
        assert decision.label == label


def test_nothing_eligible(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot())
    decision = b.router.choose(POLICY, CONTEXT, [])
    assert (decision.mode, decision.reason) == (Mode.FALLBACK, "no_eligible_arm")


@pytest.mark.parametrize(
    ("eligible", "arm"),
    [
        ({"model": ["s"]}, {"model": "s", "top_k": 8}),
        ({"model": ("x", "s")}, {"model": "x", "top_k": 8}),
        ({"model": {"x", "a"}}, {"model": "a", "top_k": 8}),
        ({"model": ["m", "s"], "other": [1]}, {"model": "m", "top_k": 8}),
        ({"model": []}, {"model": "m", "top_k": 8}),
        (["model=s;top_k=2"], {"model": "s", "top_k": 2}),
        (["model=s;top_k=2", "model=m;top_k=8"], {"model": "m", "top_k": 8}),
        ("model=s;top_k=2", {"model": "s", "top_k": 2}),
    ],
)
def test_a_configured_baseline_obeys_what_is_eligible(bench: Callable[..., Bench], eligible: Any, arm: Any) -> None:
    b = bench(baselines={POLICY: {"model": "m", "top_k": 8}})
    assert b.router.choose(POLICY, CONTEXT, eligible).arm == arm


def test_labels_are_read_back_as_they_were_written() -> None:
    arm = {"a": True, "b": 3, "c": 0.5, "d": "007", "e": "x=y", "f": -2, "g": 1e-07}
    assert parse_label(label_of(arm)) == arm


@pytest.mark.parametrize(
    ("policy", "context", "eligible"),
    [
        (POLICY, None, None),
        (POLICY, 17, None),
        (POLICY, CONTEXT, 17),
        (POLICY, CONTEXT, {"model": 17.5}),
        (POLICY, CONTEXT, {"model": None}),
        (POLICY, CONTEXT, [["a"]]),
        (["unhashable"], CONTEXT, None),
        (None, CONTEXT, None),
        (POLICY, {"complexity": float("nan"), "length": "x" * 10**6}, None),
        (POLICY, {1: object()}, None),
    ],
)
def test_no_argument_raises(
    bench: Callable[..., Bench], make_snapshot: Make, policy: Any, context: Any, eligible: Any
) -> None:
    for b in (bench(make_snapshot()), bench(baselines={POLICY: {"model": "m"}})):
        decision = b.router.choose(policy, context, eligible)
        assert decision.decision_id
        assert decision.propensity > 0


def test_broken_parts_do_not_raise(sink: MemorySink, tracer: Tracer, make_snapshot: Make, clock: Any) -> None:
    class Broken(StaticPolicies):
        def age_s(self, policy: str) -> float | None:
            raise RuntimeError("boom")

    router = Router(Broken([make_snapshot()], clock=clock), tracer, clock=clock)
    decision = router.choose(POLICY, CONTEXT)
    assert (decision.reason, decision.label) == ("error:RuntimeError", "model=m;top_k=8")


@pytest.mark.parametrize("options", [{"holdout": -0.1}, {"holdout": 1.5}, {"holdout": float("nan")}, {"max_age_s": 0}])
def test_settings_that_make_no_sense_are_refused(tracer: Tracer, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Router(StaticPolicies(), tracer, **options)


def test_the_hash_of_the_control_group_is_fixed() -> None:
    # Processes of different versions must agree, so this number may never change.
    assert router_module._hash("4bf92f3577b34da6a3ce929d0e0e4736") == 11545940278384855100
