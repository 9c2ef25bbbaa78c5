"""Routers under a guard: own choices, lanes, and propensities that are exact in every stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from steersman.events import Kind, Mode
from steersman.lanes import in_share
from steersman.snapshot import PolicySnapshot
from tests.steersman.test_router import CONTEXT, POLICY, Bench

Make = Callable[..., PolicySnapshot]
OWN = {"model": "s", "top_k": 8}


@pytest.fixture
def bench(sink: Any, tracer: Any, clock: Any) -> Callable[..., Bench]:
    return lambda *snapshots, **options: Bench(sink, tracer, clock, *snapshots, **options)


# ---- lanes -----------------------------------------------------------------------------------------------------------


def test_lanes_are_fixed_nested_and_independent_between_policies() -> None:
    # Routers of different versions, and the learner, must agree: these answers may never change.
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    shares = [i / 100 for i in range(1, 101)]
    assert next(s for s in shares if in_share(trace, "p", s)) == 0.52
    assert next(s for s in shares if in_share(trace, "q", s)) == 0.05
    traces = [f"{i:032x}" for i in range(4_000)]
    small, large = ({t for t in traces if in_share(t, "p", share)} for share in (0.1, 0.5))
    assert small < large
    assert len(small) / 4_000 == pytest.approx(0.1, abs=0.02)
    other = {t for t in traces if in_share(t, "q", 0.5)}
    assert len(large & other) / 4_000 == pytest.approx(0.25, abs=0.03)
    assert all(in_share(t, "p", 1.0) for t in traces)
    assert not any(in_share(t, "p", 0.0) for t in traces)


def test_live_with_a_share_keeps_a_control_group_of_its_own(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(canary_share=0.8))
    seen: Counter[Mode] = Counter()
    for _ in range(1_000):
        decision = b.router.choose(POLICY, CONTEXT)
        seen[decision.mode] += 1
        assert (decision.mode is Mode.LIVE) == in_share(decision.trace_id, POLICY, 0.8)
        if decision.mode is Mode.HOLDOUT:
            assert (decision.label, decision.propensity) == ("model=m;top_k=8", 1.0)
    assert seen[Mode.HOLDOUT] / 1_000 == pytest.approx(0.2, abs=0.05)
    assert bench(make_snapshot(stage="FROZEN", canary_share=0.0)).router.choose(POLICY, CONTEXT).mode is Mode.HOLDOUT


def test_a_trace_is_in_a_canary_or_not_for_all_its_decisions(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(stage="CANARY", canary_share=0.3))
    for _ in range(50):
        with b.tracer.span(Kind.AGENT) as span:
            labels = {b.router.choose(POLICY, CONTEXT).label for _ in range(20)}
        if not in_share(span.trace_id, POLICY, 0.3):
            assert labels == {"model=m;top_k=8"}


@pytest.mark.parametrize("own", [None, OWN, {"model": "x", "top_k": 8}])
@pytest.mark.parametrize("eligible", [None, {"top_k": [8]}])
def test_canary_propensities_are_those_of_the_mixture(
    bench: Callable[..., Bench], make_snapshot: Make, own: Any, eligible: Any
) -> None:
    share, n = 0.4, 2_000
    b = bench(make_snapshot(stage="CANARY", canary_share=share))
    held = b.source.get(POLICY)
    assert held is not None
    mask = None if eligible is None else held.masks.mask(eligible)
    alone = held.scorer.score(held.snapshot.features.encode(CONTEXT), mask).propensity
    control = "model=m;top_k=8" if own is None else f"model={own['model']};top_k=8"
    expected = {label: share * p for label, p in zip(held.snapshot.arms.labels, alone, strict=True)}
    expected[control] = expected.get(control, 0.0) + 1 - share
    drawn: Counter[str] = Counter()
    for _ in range(n):
        decision = b.router.choose(POLICY, CONTEXT, eligible, own=own)
        drawn[decision.label] += 1
        assert decision.mode is Mode.CANARY
        assert decision.propensity == pytest.approx(expected[decision.label])
    b.sink.records.clear()
    for label, p in expected.items():
        assert drawn[label] / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5 + 1e-9)


# ---- the service's own choice ----------------------------------------------------------------------------------------


def test_in_shadow_the_own_arm_is_used_and_it_shows_whether_the_policy_would_have_done_the_same(
    bench: Callable[..., Bench], make_snapshot: Make
) -> None:
    b = bench(make_snapshot(stage="SHADOW"))
    held = b.source.get(POLICY)
    assert held is not None
    greedy = held.scorer.score(held.snapshot.features.encode(CONTEXT)).greedy
    for arm, label in zip(held.snapshot.arms.arms, held.snapshot.arms.labels, strict=True):
        decision = b.router.choose(POLICY, CONTEXT, own=arm)
        assert (decision.label, decision.arm, decision.propensity, decision.mode) == (label, arm, 1.0, Mode.SHADOW)
        assert decision.explored == (held.snapshot.arms.index(label) != greedy)
        assert b.last()["features"]


def test_the_own_arm_takes_the_baselines_place_wherever_the_policy_does_not_decide(
    bench: Callable[..., Bench], make_snapshot: Make
) -> None:
    for b in (bench(make_snapshot(), holdout=1.0), bench(make_snapshot(stage="RETIRED")), bench(), bench(baselines={POLICY: {"model": "m"}})):  # fmt: skip
        decision = b.router.choose(POLICY, CONTEXT, own=OWN)
        assert (decision.label, dict(decision.arm), decision.propensity) == ("model=s;top_k=8", OWN, 1.0)
    live = bench(make_snapshot())
    assert {live.router.choose(POLICY, CONTEXT, own=OWN).mode for _ in range(20)} == {Mode.LIVE}
    assert bench(make_snapshot(stage="SHADOW")).router.choose(POLICY, CONTEXT, own={"model": "s"}).mode is Mode.FALLBACK


def test_observe_reports_what_the_service_did(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    for stage in ("SHADOW", "CANARY", "LIVE"):
        b = bench(make_snapshot(stage=stage))
        decision = b.router.observe(POLICY, CONTEXT, {"top_k": 8, "model": "s"}, {"top_k": [8]})
        event = b.last()
        assert (decision.label, decision.mode, decision.propensity) == ("model=s;top_k=8", Mode.SHADOW, 1.0)
        assert (event["mode"], event["arm"], event["propensity"]) == ("SHADOW", "model=s;top_k=8", 1.0)
        assert (event["policy_version"], event["features"], event["eligible"]) == (5, [0.5, 2.0, 1.0], [1, 3])
    assert b.router.observe(POLICY, CONTEXT, OWN, propensity=0.25).propensity == 0.25
    for nonsense in (0.0, 2.0, float("nan")):
        assert b.router.observe(POLICY, CONTEXT, OWN, propensity=nonsense).propensity == 1.0


@pytest.mark.parametrize("arm", [OWN, {"model": "s"}, None, 17])
def test_observe_never_raises(bench: Callable[..., Bench], make_snapshot: Make, arm: Any) -> None:
    for b in (bench(), bench(make_snapshot())):
        decision = b.router.observe(POLICY, {1: object()}, arm)
        assert decision.decision_id
        if decision.mode is Mode.FALLBACK:
            assert "features" not in b.last()


# ---- sessions --------------------------------------------------------------------------------------------------------


def chosen(b: Bench, session: str | None, context: Any = CONTEXT, times: int = 1, **options: Any) -> list[Any]:
    """Decisions of one trace."""
    with b.tracer.span(Kind.AGENT, session_id=session):
        return [b.router.choose(POLICY, context, **options) for _ in range(times)]


def test_without_a_cost_no_arm_is_kept(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(floor=1.0))
    assert len({d.label for d in chosen(b, "s", times=60)}) == 4


def test_a_trace_keeps_its_arm_whatever_the_advantage(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(floor=1.0, switch_cost=0.0))
    for session in ("s", None):
        first, *others = chosen(b, session, times=60)
        assert first.propensity == pytest.approx(0.25), "drawn"
        assert {(d.label, d.propensity) for d in others} == {(first.label, 1.0)}, "kept: not drawn, so not randomised"


def test_a_session_changes_its_arm_only_for_more_than_the_cost(
    bench: Callable[..., Bench], make_snapshot: Make
) -> None:
    snapshot = make_snapshot(floor=1.0)
    utility = bench(snapshot).source.get(POLICY).scorer.score(snapshot.features.encode(CONTEXT)).utility  # type: ignore[union-attr]
    order = np.argsort(utility)
    worst, gap = snapshot.arms.labels[order[0]], float(utility[order[-1]] - utility[order[0]])
    for cost, stays in ((gap * 1.01, True), (gap * 0.99, False)):
        b = bench(make_snapshot(floor=1.0, switch_cost=cost))
        chosen(b, "s", eligible=[worst])
        redrawn = 0
        for _ in range(60):
            [decision] = chosen(b, "s")
            redrawn += decision.propensity < 1.0
            if decision.label != worst:
                break
        assert (decision.label == worst) == stays
        assert (redrawn == 0) == stays


def test_what_is_not_allowed_any_more_is_not_kept(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(switch_cost=100.0))
    chosen(b, "s", eligible=["model=s;top_k=2"])
    [decision] = chosen(b, "s", eligible={"model": ["m"]})
    assert decision.arm["model"] == "m"
    b.source.put(make_snapshot(stage="SHADOW", switch_cost=100.0))
    assert chosen(b, "s")[0].label == "model=m;top_k=8", "a rollback wins over a session"
    b.source.put(make_snapshot(switch_cost=100.0))
    assert chosen(b, "s")[0].label == decision.label


def test_sessions_are_apart_by_policy_and_bounded(bench: Callable[..., Bench], make_snapshot: Make) -> None:
    b = bench(make_snapshot(floor=1.0, switch_cost=100.0))
    b.router._sessions._limit = 10
    first = {str(s): chosen(b, str(s))[0].label for s in range(30)}
    assert len(b.router._sessions) == 10
    assert all(chosen(b, str(s))[0].label == first[str(s)] for s in range(20, 30))
    assert all(chosen(b, str(s))[0].propensity == pytest.approx(0.25) for s in range(9)), "forgotten: drawn anew"


def test_drawn_decisions_of_sticky_sessions_answer_for_other_policies(
    bench: Callable[..., Bench], make_snapshot: Make
) -> None:
    """IPS over what was drawn gives the value of any arm; what was kept is left out by its propensity of 1."""
    b = bench(make_snapshot(floor=0.5, switch_cost=0.2))
    labels, worth = make_snapshot().arms.labels, {}
    for i, label in enumerate(labels):
        worth[label] = 0.2 * i
    sums, n = dict.fromkeys(labels, 0.0), 0
    for s in range(1_500):
        for _ in range(2):
            [decision] = chosen(b, str(s))
            if decision.propensity < 1.0:
                n += 1
                sums[decision.label] += worth[decision.label] / decision.propensity
    b.sink.records.clear()
    for label in labels:
        assert sums[label] / n == pytest.approx(worth[label], abs=0.15)
