"""What the page computes, without a store and without a browser."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import numpy as np
import pytest

from learners.why import explain
from page.history import diff, parse_version, share_changes
from page.hub import Full, Hub, running
from page.lag import read_lag
from page.overview import BINS, knob_shares, verdict
from page.sessions import LIFETIME_S, Sessions
from page.settings import load_settings
from page.waterfall import WIDTH, waterfall
from steersman.errors import ConfigError
from tests.page.policies import held

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def total(n: int, utility: float, se: float) -> dict[str, Any]:
    return {"n": n, "judged": n, "utility": utility, "utility_se": se}


@pytest.mark.parametrize(
    ("learned", "baseline", "word"),
    [
        (total(0, 0, 0), total(50, 0, 0.1), "idle"),
        (total(100, 0.9, 0.01), total(29, 0.1, 0.01), "no-control"),
        (total(100, 0.60, 0.03), total(50, 0.49, 0.04), "better"),
        (total(100, 0.60, 0.03), total(50, 0.51, 0.04), "level"),
        (total(100, 0.40, 0.03), total(50, 0.51, 0.04), "worse"),
    ],
)
def test_verdict_is_by_two_standard_errors(learned: dict[str, Any], baseline: dict[str, Any], word: str) -> None:
    assert verdict(learned, baseline)["word"] == word


def test_shares_of_levels_add_up_to_one_in_every_bin() -> None:
    rows = [
        {"t": 100, "arm": "model=a;k=1", "n": 3},
        {"t": 100, "arm": "model=b;k=1", "n": 1},
        {"t": 130, "arm": "model=b;k=2=x", "n": 5},
        {"t": 99, "arm": "model=a;k=1", "n": 7},
    ]
    shares = knob_shares(rows, 100, 15)
    assert set(shares) == {"model", "k"}
    assert (shares["model"]["a"][0], shares["model"]["b"][0], shares["k"]["2=x"][2]) == (0.75, 0.25, 1.0)
    for levels in shares.values():
        for i in range(BINS):
            sums = [line[i] for line in levels.values()]
            assert all(v is None for v in sums) or sum(v or 0 for v in sums) == 1.0
    assert set(knob_shares([{"t": 100, "arm": "plain", "n": 1}], 100, 15)) == {"arm"}


def event(span: str, parent: str, start: float, ms: float | None, **more: Any) -> dict[str, Any]:
    at = NOW + dt.timedelta(milliseconds=start)
    base = {
        "kind": "MODEL_CALL",
        "operation": "m",
        "agent": "a",
        "policy": "",
        "arm": "",
        "status": "OK",
        "cost_micro_usd": 5,
    }
    return {
        **base, "span_id": span, "parent_span_id": parent, "started_at": at, "ts": at + dt.timedelta(milliseconds=ms or 0),
        "duration_ms": ms, **more,
    }  # fmt: skip


def test_waterfall_is_in_the_order_of_the_tree_and_on_its_axis() -> None:
    flow = waterfall(
        [
            event("root", "", 0, 1000, kind="AGENT", cost_micro_usd=None),
            event("late", "root", 600, 400, cost_micro_usd=None, status="ERROR"),
            event("early", "root", 100, 200),
            event("below", "early", 150, 50),
            event("dec", "root", 990, None, kind="DECISION", policy="p", arm="k=1", cost_micro_usd=None),
            event("x", "", 1000, None, kind="END"),
        ]
    )
    assert [(b.row["span_id"], b.depth) for b in flow.bars] == [
        ("root", 0), ("dec", 1), ("early", 1), ("below", 2), ("late", 1),
    ]  # fmt: skip
    assert [(b.x, b.width) for b in flow.bars if b.row["span_id"] == "late"] == [(600.0, 400.0)]
    assert (flow.total_ms, flow.unpriced, flow.failed, flow.ended, flow.cost_usd) == (1000, 1, 1, True, 1e-5)


def test_a_circle_of_parents_and_a_deep_chain_are_shown_once_each() -> None:
    circle = [event("a", "b", 0, 1), event("b", "a", 1, 1), event("c", "c", 2, 1), event("d", "gone", 3, 1)]
    chain = [event(f"s{i}", f"s{i - 1}", i, 1) for i in range(990)]
    flow = waterfall([*circle, *chain])
    assert sorted(b.row["span_id"] for b in flow.bars) == sorted(e["span_id"] for e in [*circle, *chain])
    assert all(b.x >= 0 and b.x + b.width <= WIDTH + 0.01 for b in flow.bars)


def test_why_adds_up_to_the_difference_to_the_average_arm() -> None:
    policy = held()
    x = [0.5, 1.0, 0.0, 1.0]
    for why in explain(policy, x, "model=large;k=2"):
        assert sum(p.adds for p in why.parts) + why.rest == pytest.approx(why.expected - why.mean, rel=1e-4, abs=1e-9)
        assert all(p.adds == pytest.approx(p.value * p.weight) for p in why.parts)
    quality = explain(policy, x, "model=large;k=2")[0]
    assert {p.feature for p in quality.parts} == {"size", "kind = a", "(always)"}, "what is 0 adds nothing"
    expected = policy.scorer.components(np.array(x, dtype=np.float32)).quality
    assert quality.expected == pytest.approx(expected[policy.snapshot.arms.index("model=large;k=2")])
    with pytest.raises(ValueError, match="no arm"):
        explain(policy, x, "model=other")
    with pytest.raises(ValueError, match="shape"):
        explain(policy, [1.0], "model=large;k=2")


def test_diff_names_what_changed_and_shares_split_at_the_version() -> None:
    old: dict[str, Any] = dict.fromkeys(
        ("stage", "canary_share", "baseline", "learner", "exploration", "exploration_scale", "floor", "objective",
         "multipliers", "squares", "reward_spec", "signed", "pinned", "acts"), "same")  # fmt: skip
    old |= {"applied_n": 1000, "arms": ["a", "b"], "sha256": "1"}
    new = {**old, "applied_n": 1200, "stage": "FROZEN", "arms": ["b", "c"], "sha256": "2"}
    changes = {c.what: (c.old, c.new) for c in diff(old, new)}
    assert changes["rewards applied"] == ("1,000", "1,200")
    assert changes["stage"] == ("same", "FROZEN")
    assert changes["arms"] == ("1 gone: a", "1 new: c")
    assert diff(old, old) == []
    chosen = [
        {"epoch": 1, "version": v, "arm": arm, "n": n}
        for v, arm, n in ((5, "a", 3), (9, "b", 1), (10, "a", 1), (99, "a", 9))
    ]
    shares = {s["arm"]: (s["before"], s["after"]) for s in share_changes(chosen, (1, 9), (1, 10))}
    assert shares == {"a": (0.75, 1.0), "b": (0.25, 0.0)}
    assert [parse_version(t) for t in ("1.20", "1", "1.x", "-1.2", "", "9" * 50 + ".1")] == [(1, 20), *[None] * 5]


def test_lag_is_summed_over_partitions() -> None:
    text = (
        "# HELP steersman_consumer_lag_records x\n# TYPE steersman_consumer_lag_records gauge\n"
        'steersman_consumer_lag_records{partition="0",topic="t"} 3.0\nsteersman_consumer_lag_records{partition="1",topic="t"} 4.0\n'
        'other{topic="t"} 9\n'
    )
    assert read_lag(text) == {"t": 7}
    assert read_lag("") == {}


def test_sessions_open_for_the_token_only_and_end() -> None:
    now = [0.0]
    sessions = Sessions("t" * 16, lambda: now[0])
    assert sessions.open("t" * 15) is None
    assert sessions.open("é" * 16) is None
    session = sessions.open("t" * 16)
    assert session is not None
    assert (sessions.knows(session), sessions.knows(None), sessions.knows("x")) == (True, False, False)
    now[0] = LIFETIME_S + 1
    assert not sessions.knows(session)
    again = sessions.open("t" * 16)
    sessions.close(again)
    assert not sessions.knows(again)
    assert Sessions(None).knows(None)


def test_settings_refuse_to_be_open_to_the_network() -> None:
    with pytest.raises(ConfigError, match="STEERSMAN_PAGE_TOKEN"):
        _ = load_settings(page_host="0.0.0.0").token
    with pytest.raises(ConfigError, match="15 characters"):
        _ = load_settings(page_token="x" * 15).token
    assert load_settings(page_host="0.0.0.0", page_token="x" * 16).token == "x" * 16
    with pytest.raises(ConfigError, match="name=http"):
        _ = load_settings(page_metrics="worker").endpoints
    with pytest.raises(ConfigError, match="page_port"):
        load_settings(page_port=70000)


def test_one_computation_serves_all_and_none_runs_while_nobody_looks() -> None:
    async def run() -> None:
        made = 0

        async def compute() -> bytes:
            nonlocal made
            made += 1
            return b"%d" % made

        hub = Hub(compute, 20, period_s=0.0)
        async with running(hub):
            for _ in range(20):
                await asyncio.sleep(0)
            assert made == 0
            viewers = [hub.follow() for _ in range(20)]
            frames = await asyncio.gather(*(anext(v) for v in viewers))
            assert frames == [b"1"] * 20
            with pytest.raises(Full):
                await anext(hub.follow())
            for viewer in viewers:
                await viewer.aclose()
            assert hub.viewers == 0
            for _ in range(5):
                await asyncio.sleep(0)
            before = made
            for _ in range(20):
                await asyncio.sleep(0)
            assert made == before

    asyncio.run(run())
