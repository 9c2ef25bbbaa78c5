"""docs/sql.md: its columns are those of the views, and each of its queries gives what is known from the events."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from benchmarks.sql import Question, questions, timings_table
from doors.feedback import SESSION
from sinks.clickhouse import connect
from sinks.migrations import migrate
from streams.histogram import MAX_RELATIVE_ERROR
from tests.faults.gateway import Gateway
from tests.sinks.analyst_world import (
    APPLIED,
    BASELINE,
    JUDGED,
    POLICY,
    SINCE_US,
    TRACES,
    UNTIL_US,
    World,
    make,
    store,
    trace_of,
)
from tests.streams.trace_events import ARMS, S

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
TEXT = PAGE.read_text(encoding="utf-8")
QUESTIONS = questions(TEXT)
Rows = list[dict[str, Any]]
TRACE_NUMBERS = {trace_of(i): i for i in range(TRACES)}
SPAN = {
    "since": dt.datetime.fromtimestamp(SINCE_US / 1e6, dt.UTC),
    "until": dt.datetime.fromtimestamp(UNTIL_US / 1e6, dt.UTC),
}
PARAMETERS = {**SPAN, "tenant": "default", "policy": POLICY, "trace": trace_of(18), "session": "s7", "control": 0.1}
CALLS = {
    "v_ope": "tenant = '', policy = '', target = '', weights = [], since = '1970-01-01', until = '1970-01-02', switch_at = 1, z = 1",
    "v_ope_terms": "tenant = '', policy = '', target = '', weights = [], since = '1970-01-01', until = '1970-01-02'",
    "v_traces": "tenant = '', since = '1970-01-01', until = '1970-01-02'",
    "v_sessions": "tenant = '', since = '1970-01-01', until = '1970-01-02'",
    "v_session_feedback": "tenant = '', since = '1970-01-01', until = '1970-01-02'",
    "v_latency": "tenant = '', since = '1970-01-01', until = '1970-01-02'",
    "v_trace_tree": "tenant = '', trace = ''",
    "v_regret": "tenant = '', policy = '', since = '1970-01-01', until = '1970-01-02'",
    "v_propensity_arms": "tenant = '', policy = '', since = '1970-01-01', until = '1970-01-02'",
    "v_propensity_checks": "tenant = '', policy = '', since = '1970-01-01', until = '1970-01-02'",
    "v_sample_ratio": "tenant = '', control = 0.1, since = '1970-01-01', until = '1970-01-02'",
}
"""How views with parameters are called."""


@pytest.fixture(scope="module")
def world() -> World:
    return make()


@pytest.fixture(scope="module")
def filled(gateway_process: Gateway, world: World) -> Iterator[Client]:
    """A database that holds the world."""
    client = connect(f"{gateway_process.url}/t_sql_page", create_database=True)
    migrate(client)
    store(client, world)
    yield client
    client.command("DROP DATABASE t_sql_page", use_database=False)
    client.close()


def day(us: int) -> dt.date:
    return dt.datetime.fromtimestamp(us / 1e6, dt.UTC).date()


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9)


def mean(values: Any) -> float:
    return statistics.fmean(list(values))


def grouped(rows: Rows, key: Callable[[dict[str, Any]], Any]) -> dict[Any, Rows]:
    found: dict[Any, Rows] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


# --- what each query must say, by its number --------------------------------------------------------------------------
def spent_per_day(rows: Rows, w: World) -> None:
    for tenant in ("default", "acme"):
        calls = grouped(w.of("MODEL_CALL", "TOOL_CALL", tenant=tenant), lambda e: day(e["ts"]))
        got = {r["day"]: r for r in rows if r["tenant"] == tenant}
        assert got.keys() == calls.keys()
        for d, events in calls.items():
            assert got[d]["usd"] == near(sum(e["cost_micro_usd"] or 0 for e in events) / 1e6)
            assert (got[d]["calls"], got[d]["unpriced_calls"]) == (
                len(events),
                sum(e["cost_micro_usd"] is None for e in events),
            )
    assert sum(r["unpriced_calls"] for r in rows) == sum(i % 8 == 5 for i in range(TRACES))


def models(rows: Rows, w: World) -> None:
    calls = grouped(w.of("MODEL_CALL"), lambda e: e["operation"])
    assert [r["model"] for r in rows] == ["large", "small"]
    for row in rows:
        events = calls[row["model"]]
        assert row["usd"] == near(sum(e["cost_micro_usd"] or 0 for e in events) / 1e6)
        assert row["unpriced_share"] == near(sum(e["cost_micro_usd"] is None for e in events) / len(events))
        assert (row["input_tokens"], row["output_tokens"]) == (1000 * len(events), 100 * len(events))


def cached(rows: Rows, w: World) -> None:
    assert {r["model"]: r["cached_share"] for r in rows} == {"large": 0.4, "small": 0.0}


def dear_sessions(rows: Rows, w: World) -> None:
    costs = Counter[str]()
    for e in w.of("MODEL_CALL", "TOOL_CALL"):
        costs[e["session_id"]] += e["cost_micro_usd"] or 0
    assert len(rows) == 20
    for row, cost in zip(rows, sorted(costs.values(), reverse=True), strict=False):
        assert row["cost_usd"] == near(cost / 1e6)
        assert costs[row["session_id"]] == cost
        assert (row["traces"], row["model_calls"], row["agents"]) == (4, 4, ["agent", "planner", "retriever"])


def whole_traces(rows: Rows, w: World) -> None:
    costs = Counter[str]({trace_of(i): 0 for i in range(TRACES)})
    for e in w.of("MODEL_CALL", "TOOL_CALL"):
        costs[e["trace_id"]] += e["cost_micro_usd"] or 0
    ordered = sorted(costs.values())
    (row,) = rows
    assert (row["traces"], row["open"]) == (TRACES, 0)
    assert [ordered[TRACES // 2 - 1], ordered[TRACES // 2]].count(row["cost_micro_usd_p50_p95"][0])
    assert ordered[int(0.95 * TRACES) - 1] <= row["cost_micro_usd_p50_p95"][1] <= ordered[int(0.95 * TRACES)]
    durations = sorted(800 + 37 * (i % 50) for i in range(TRACES))
    assert row["duration_ms_p50_p95"][0] == durations[TRACES // 2 - 1]


def slowest(rows: Rows, w: World) -> None:
    longest = sorted((800 + 37 * (i % 50) for i in range(TRACES)), reverse=True)[:20]
    assert [r["duration_ms"] for r in rows] == longest
    assert rows[0]["spans"] in (3, 7)


def latencies(rows: Rows, w: World) -> None:
    for row in rows:
        events = [
            e for e in w.of(row["kind"]) if (e["agent"], e["operation"] or "") == (row["agent"], row["operation"])
        ]
        durations = sorted(e["duration_us"] for e in events)
        assert row["durations"] == len(durations)
        for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            exact = durations[max(1, math.ceil(q * len(durations))) - 1] / 1000
            assert abs(row[name] / exact - 1) <= MAX_RELATIVE_ERROR + 1e-9, (row, name)
        assert row["max_ms"] == durations[-1] / 1000
        assert row["error_rate"] == near(sum(e["status"] != "OK" for e in events) / len(events))
    assert {r["operation"] for r in rows} >= {"small", "large", "search"}


def latency_over_the_day(rows: Rows, w: World) -> None:
    hours = grouped(w.of("MODEL_CALL"), lambda e: e["ts"] // (3600 * S))
    assert [int(r["hour"].timestamp()) // 3600 for r in rows] == sorted(hours)
    for row in rows:
        durations = sorted(e["duration_us"] for e in hours[int(row["hour"].timestamp()) // 3600])
        exact = durations[math.ceil(0.95 * len(durations)) - 1] / 1000
        assert row["calls"] == len(durations)
        assert abs(row["p95_ms"] / exact - 1) <= MAX_RELATIVE_ERROR + 1e-9


def tree(rows: Rows, w: World) -> None:
    steps = [r["step"] for r in rows]
    assert steps[0] == "planner"
    assert steps[1:] == [f"  {POLICY}", *["  search"] * 5, rows[7]["step"]] or steps.count("  search") == 5
    assert Counter(r["kind"] for r in rows) == {"AGENT": 1, "DECISION": 1, "TOOL_CALL": 5, "MODEL_CALL": 1}
    root, decided = rows[0], next(r for r in rows if r["kind"] == "DECISION")
    assert (root["offset_ms"], root["duration_ms"]) == (0, 800 + 37 * 18)
    assert decided["arm"] in ARMS.labels
    assert decided["offset_ms"] == 10
    assert all(r["step"].startswith("  ") for r in rows[1:])


def session(rows: Rows, w: World) -> None:
    events = [e for e in w.events if e["session_id"] == "s7"]
    assert [int(r["ts"].timestamp() * 1e6 + 0.5) for r in rows] == sorted(e["ts"] for e in events)
    assert {r["trace_id"] for r in rows} == {trace_of(i) for i in range(28, 32)}


def failures(rows: Rows, w: World) -> None:
    (row,) = rows
    n = sum(i % 11 == 0 for i in range(TRACES))
    assert (row["operation"], row["error"], row["status"], row["failures"], row["traces"]) == (
        "search",
        "Timeout",
        "TIMEOUT",
        n,
        n,
    )


def repeated_calls(rows: Rows, w: World) -> None:
    assert {r["trace_id"] for r in rows} == {trace_of(i) for i in range(18, TRACES, 60)}
    assert {(r["times"], r["cost_micro_usd"]) for r in rows} == {(5, 50)}


def arms_by_day(rows: Rows, w: World) -> None:
    live = [e for e in w.of("DECISION") if e["mode"] == "LIVE"]
    twice = w.of("DECISION")[0]  # v_arm_share counts events: the repeated one too
    live += [twice] if twice["mode"] == "LIVE" else []
    days = grouped(live, lambda e: day(e["ts"]))
    assert {(r["day"], r["arm"]): r["chosen"] for r in rows} == {
        (d, arm): n for d, events in days.items() for arm, n in Counter(e["arm"] for e in events).items()
    }
    for row in rows:
        assert row["share"] == near(row["chosen"] / len(days[row["day"]]))


def explored(rows: Rows, w: World) -> None:
    days = grouped(w.rewards, lambda r: day(r["decided_at"]))
    assert [r["day"] for r in rows] == sorted(days)
    for row in rows:
        mine = days[row["day"]]
        live = [r for r in mine if r["mode"] == "LIVE"]
        assert (row["decisions"], row["drawn"], row["holdout"], row["fallback"]) == (
            len(mine),
            len(live),
            len(mine) - len(live),
            0,
        )
        assert row["explored_share"] == near(sum(r["explored"] for r in live) / len(live))
        assert row["mean_propensity"] == near(mean(r["propensity"] for r in live))
        shares = [n / len(live) for n in Counter(r["arm"] for r in live).values()]
        assert row["effective_arms"] == near(math.exp(-sum(p * math.log(p) for p in shares)))


def arms(rows: Rows, w: World) -> None:
    by_arm = grouped(w.rewards, lambda r: r["arm"])
    assert {r["arm"] for r in rows} == set(ARMS.labels)
    for row in rows:
        mine = by_arm[row["arm"]]
        assert row["decisions"] == len(mine)
        assert row["quality"] == near(mean(r["quality"] for r in mine))
        assert row["usd"] == near(mean(r["cost_micro_usd"] for r in mine) / 1e6)
        assert row["latency_ms"] == near(mean(r["latency_us"] for r in mine) / 1e3)
        assert row["utility"] == near(mean(r["utility"] for r in mine))
    assert [r["utility"] for r in rows] == sorted((r["utility"] for r in rows), reverse=True)


def drawn(w: World) -> Rows:
    return [r for r in w.rewards if r["mode"] == "LIVE"]


def snips(rows: Rows, value: str = "utility") -> float:
    return sum(r[value] / r["propensity"] for r in rows) / sum(1 / r["propensity"] for r in rows)


def levels(rows: Rows, w: World) -> None:
    assert [(r["knob"], r["level"]) for r in rows] == [
        ("model", "large"),
        ("model", "small"),
        ("top_k", "4"),
        ("top_k", "8"),
    ]
    for row in rows:
        mine = [r for r in drawn(w) if f"{row['knob']}={row['level']}" in r["arm"].split(";")]
        assert row["decisions"] == len(mine)
        assert row["utility"] == near(snips(mine))
        assert row["usd"] == near(snips(mine, "cost_micro_usd") / 1e6)


def worth(rows: Rows, w: World) -> None:
    (row,) = rows
    control = [r for r in w.rewards if r["mode"] == "HOLDOUT"]
    assert (row["decisions"], row["control_decisions"]) == (len(drawn(w)), len(control))
    assert row["utility_gain"] == near(mean(r["utility"] for r in drawn(w)) - mean(r["utility"] for r in control))
    assert row["cost_change"] == near(
        mean(r["cost_micro_usd"] for r in drawn(w)) / mean(r["cost_micro_usd"] for r in control) - 1
    )


def better(rows: Rows, w: World) -> None:
    days = grouped(w.rewards, lambda r: day(r["decided_at"]))
    assert [r["day"] for r in rows] == sorted(days)
    for row in rows:
        live = [r["utility"] for r in days[row["day"]] if r["mode"] == "LIVE"]
        control = [r["utility"] for r in days[row["day"]] if r["mode"] == "HOLDOUT"]
        assert (row["decisions"], row["control"], row["utility_gain"]) == (
            len(live),
            len(control),
            near(mean(live) - mean(control)),
        )


def regret(rows: Rows, w: World) -> None:
    values = {arm: snips(mine) for arm, mine in grouped(drawn(w), lambda r: r["arm"]).items() if len(mine) >= 30}
    best = max(values, key=lambda arm: values[arm])
    total = 0.0
    days = grouped(drawn(w), lambda r: day(r["decided_at"]))
    assert [r["day"] for r in rows] == sorted(days)
    for row in rows:
        mine = days[row["day"]]
        total += values[best] * len(mine) - sum(r["utility"] for r in mine)
        assert (row["best_arm"], row["decisions"]) == (best, len(mine))
        assert row["regret"] == near(values[best] - mean(r["utility"] for r in mine))
        assert row["cumulative_regret"] == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert total > 0


def propensities(rows: Rows, w: World) -> None:
    (row,) = rows
    n = len(drawn(w))
    assert (row["decisions"], row["mean_eligible_arms"]) == (n, 4)
    assert row["mean_inverse_propensity"] == near(sum(1 / r["propensity"] for r in drawn(w)) / n)
    assert 0.8 < row["ratio"] < 1.25
    assert (row["suspicious_arms"], row["arms_never_chosen"]) == (0, 0)


def propensity_arms(rows: Rows, w: World) -> None:
    n, by_arm = len(drawn(w)), grouped(drawn(w), lambda r: r["arm"])
    assert {r["arm"] for r in rows} == set(ARMS.labels)
    for row in rows:
        weights = [1 / r["propensity"] for r in by_arm[row["arm"]]]
        assert (row["eligible"], row["chosen"], row["weight_sum"]) == (n, len(weights), near(sum(weights)))
        spread = statistics.pstdev(weights + [0.0] * (n - len(weights)))
        assert row["z"] == near((sum(weights) / n - 1) / (spread / math.sqrt(n)))


def sample_ratio(rows: Rows, w: World) -> None:
    (row,) = rows
    control, live = 48, len(drawn(w))
    expected = 0.1 * (control + live)
    chi2 = (control - expected) ** 2 / expected + (live - 9 * expected) ** 2 / (9 * expected)
    assert (row["traces"], row["control_traces"], row["chi2"]) == (live, control, near(chi2))
    assert row["p_value"] == near(math.erfc(math.sqrt(chi2 / 2)))
    assert row["judged_share"] == near(mean(not r["quality_defaulted"] for r in drawn(w)))
    assert not row["mismatch"]


def other_policy(rows: Rows, w: World) -> None:
    value = {r["estimator"]: r["value"] for r in rows}
    assert list(value) == ["dr", "ips", "snips", "switch"]
    assert value["ips"] == near(mean(r["utility"] / 4 / r["propensity"] for r in drawn(w)))
    assert rows[0]["n"] == len(drawn(w))


def stages(rows: Rows, w: World) -> None:
    assert [(r["stage"], r["canary_share"], r["versions"]) for r in rows] == [
        ("SHADOW", 0.0, 3), ("CANARY", 0.1, 4), ("CANARY", 0.5, 2), ("LIVE", 1.0, 6),
    ]  # fmt: skip
    assert [r["until"] for r in rows] == [r["since"] for r in rows[1:]] + [None]
    assert rows[-1]["last_version"] == APPLIED


def learning(rows: Rows, w: World) -> None:
    buckets = grouped(drawn(w), lambda r: r["policy_version"] // 50 * 50)
    assert {r["from_version"]: r["decisions"] for r in rows} == {v: len(mine) for v, mine in buckets.items()}
    for row in rows:
        assert row["utility"] == near(mean(r["utility"] for r in buckets[row["from_version"]]))


def lag(rows: Rows, w: World) -> None:
    (row,) = rows
    times = [r["ts"] for r in w.waiting]
    assert (row["version"], row["applied"], row["waiting"]) == (APPLIED, APPLIED, len(w.waiting))
    assert row["lag_s"] == near((max(r["ts"] for r in w.rewards) - min(times)) / 1e6)


def coverage(rows: Rows, w: World) -> None:
    decided = Counter(day(e["ts"]) for e in w.of("DECISION"))
    rewards = grouped(w.rewards, lambda r: day(r["decided_at"]))
    assert {r["day"]: r["decisions"] for r in rows} == decided
    for row in rows:
        mine = rewards[row["day"]]
        judged = [r for r in mine if not r["quality_defaulted"]]
        assert (row["open"], row["defaulted"]) == (decided[row["day"]] - len(mine), len(mine) - len(judged))
        assert row["judged_share"] == near(len(judged) / len(mine))
        delays = sorted(r["feedback_delay_us"] for r in judged)
        assert delays[(len(delays) - 1) // 2] / 1e6 == near(row["feedback_delay_p50_s"])
    assert sum(r["open"] for r in rows) == len(w.of("DECISION")) - len(w.rewards) > 0


def judges(rows: Rows, w: World) -> None:
    said = grouped([e for e in w.of("FEEDBACK") if e["value"] is not None], lambda e: e["source"])
    assert {r["source"]: r["judgements"] for r in rows} == {s: len(mine) for s, mine in said.items()}
    for row in rows:
        assert row["mean_value"] == near(mean(e["value"] for e in said[row["source"]]))


def newest_decisions(rows: Rows, w: World) -> None:
    newest = sorted(w.of("DECISION"), key=lambda e: -e["ts"])[:100]
    rewards = {r["decision_id"]: r for r in w.rewards}
    assert [r["decision_id"] for r in rows] == [e["decision_id"] for e in newest]
    for row in rows:
        reward = rewards.get(row["decision_id"])
        assert row["rewarded"] == (reward is not None)
        assert row["utility"] == (reward and reward["utility"])
    assert {r["rewarded"] for r in rows} == {True, False}


def detected(rows: Rows, w: World) -> None:
    assert {(r["day"], r["detector"]): r["alerts"] for r in rows} == Counter(
        (day(a["ts"]), a["detector"]) for a in w.alerts
    )
    assert sum(r["alerts"] for r in rows) == 8


def alert_costs(rows: Rows, w: World) -> None:
    costs = Counter[str]()
    for e in w.of("MODEL_CALL", "TOOL_CALL"):
        costs[e["trace_id"]] += e["cost_micro_usd"] or 0
    assert {r["trace_id"]: r["cost_usd"] for r in rows} == {
        a["trace_id"]: near(costs[a["trace_id"]] / 1e6) for a in w.alerts
    }


def dead(rows: Rows, w: World) -> None:
    assert sum(r["letters"] for r in rows) == w.letters
    assert {(r["stage"], r["reason"]) for r in rows} == {("DESERIALIZE", "magic"), ("DESERIALIZE", "crc")}
    assert [r["message"] for r in rows if r["reason"] == "magic"] == ["magic: no 8"]


def fill(rows: Rows, w: World) -> None:
    found = grouped(w.rewards, lambda r: math.floor(r["context_fill"] * 5) / 5)
    assert {r["fill_from"]: r["decisions"] for r in rows} == {f: len(mine) for f, mine in found.items()}
    for row in rows:
        assert row["quality"] == near(mean(r["quality"] for r in found[row["fill_from"]]))


def arrived(rows: Rows, w: World) -> None:
    assert sum(r["accepted"] for r in rows) == len([e for e in w.events if e["tenant"] == "default"])
    # The one event that was sent twice is stored twice; every other minute agrees, to the hash.
    assert [r["same"] for r in rows].count(False) == 1
    assert sum(r["stored"] - r["accepted"] for r in rows) == 1


def judged_sessions(rows: Rows, w: World) -> None:
    said = {sid: value for sid, value in JUDGED.items() if value is not None}
    rewards = grouped(
        [(r, said[sid]) for r in w.rewards if (sid := f"s{TRACE_NUMBERS[r['trace_id']] // 4}") in said],  # type: ignore[misc]
        lambda pair: pair[0]["arm"],  # type: ignore[index]
    )
    assert {r["arm"] for r in rows} == rewards.keys()
    for row in rows:
        mine: list[Any] = rewards[row["arm"]]
        assert (row["policy"], row["metric"], row["decisions"]) == (POLICY, "solved", len(mine))
        assert row["sessions"] == len({TRACE_NUMBERS[r["trace_id"]] // 4 for r, _ in mine})
        assert row["value"] == near(mean(value for _, value in mine))


EXPECTED: list[Callable[[Rows, World], None]] = [
    spent_per_day, models, cached, dear_sessions, whole_traces, slowest, latencies, latency_over_the_day, tree, session, failures,
    repeated_calls, arms_by_day, explored, arms, levels, worth, better, regret, propensities, propensity_arms, sample_ratio,
    other_policy, stages, learning, lag, coverage, judges, newest_decisions, detected, alert_costs, dead, fill, arrived, judged_sessions,
]  # fmt: skip


def test_every_question_has_an_answer_that_is_known() -> None:
    assert [q.number for q in QUESTIONS] == list(range(1, len(EXPECTED) + 1))
    assert len(QUESTIONS) >= 25
    for question in QUESTIONS:
        assert question.why.endswith("."), question
        sources = set(re.findall(r"\b(?:FROM|(?<!ARRAY )JOIN) (\w+)", question.sql))
        assert all(source.startswith("v_") for source in sources), "views are the contract"


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.title)
def test_question(filled: Client, world: World, question: Question) -> None:
    asked = {name: PARAMETERS[name] for name in re.findall(r"\{(\w+):", question.sql)}
    rows = list(filled.query(question.sql, parameters=asked).named_results())
    assert rows
    EXPECTED[question.number - 1](rows, world)


def test_a_wrong_propensity_and_a_wrong_control_group_are_found(filled: Client, gateway_process: Gateway) -> None:
    asked = {**SPAN, "tenant": "default", "policy": POLICY, "control": 0.2}
    ratio = next(q for q in QUESTIONS if "v_sample_ratio" in q.sql)
    (row,) = filled.query(
        ratio.sql, parameters={k: asked[k] for k in ("tenant", "control", "since", "until")}
    ).named_results()
    assert row["p_value"] < 1e-6
    assert row["mismatch"]
    # Arms drawn more often than they say: a log in which every arm but one claims a third of its true probability.
    filled.command("CREATE DATABASE t_sql_wrong", use_database=False)
    try:
        filled.command("CREATE TABLE t_sql_wrong.rewards AS rewards")
        filled.command(
            "INSERT INTO t_sql_wrong.rewards SELECT * REPLACE (if(arm = {b:String}, propensity, propensity / 3) AS propensity) FROM rewards FINAL",
            parameters={"b": BASELINE},
        )
        query = "SELECT sum(1 / propensity) / count() FROM t_sql_wrong.rewards WHERE mode = 'LIVE'"
        assert filled.query(query).result_rows[0][0] > 5, "the test's own log is wrong"
        client = connect(f"{gateway_process.url}/t_sql_wrong")
        migrate(client)
        client.command("INSERT INTO policies SELECT * FROM t_sql_page.policies")
        check = next(q for q in QUESTIONS if "v_propensity_checks" in q.sql)
        (row,) = client.query(
            check.sql, parameters={k: asked[k] for k in ("tenant", "policy", "since", "until")}
        ).named_results()
        client.close()
        assert row["ratio"] > 1.4
        assert row["suspicious_arms"] == 3
    finally:
        filled.command("DROP DATABASE t_sql_wrong", use_database=False)


def test_judgements_of_sessions_meet_their_traces(filled: Client, world: World) -> None:
    rows = list(
        filled.query(
            "SELECT * FROM v_session_feedback(tenant = {tenant:String}, since = {since:DateTime64(6, 'UTC')}, "
            "until = {until:DateTime64(6, 'UTC')}) ORDER BY session_id, event_id, trace_id",
            parameters={k: PARAMETERS[k] for k in ("tenant", "since", "until")},
        ).named_results()
    )
    assert {r["session_id"] for r in rows} == set(JUDGED)
    for name, value in JUDGED.items():
        mine = [r for r in rows if r["session_id"] == name]
        number = int(name[1:])
        traces = sorted(trace_of(i) for i in range(4 * number, 4 * number + 4) if i < TRACES)
        assert [r["trace_id"] for r in mine] == (traces or [""])
        assert {(r["metric"], r["value"], r["label"], r["source"]) for r in mine} == {
            ("solved", value, "" if value is not None else "unsure", "survey")
        }
        for row in mine if traces else ():
            events = [e for e in world.events if e["trace_id"] == row["trace_id"]]
            assert row["decisions"] == 1
            assert row["cost_micro_usd"] == sum(e["cost_micro_usd"] or 0 for e in events)
            assert row["failed"] == sum(e["status"] != "OK" for e in events if e["kind"] in ("MODEL_CALL", "TOOL_CALL"))
            assert row["trace_started_at"] <= row["trace_ended_at"] <= row["ts"]
        if not traces:
            assert (mine[0]["trace_started_at"], mine[0]["decisions"]) == (None, 0)
    # As traces of their session they do not count; as judgements they do.
    counted = filled.query(
        "SELECT session_id, traces, feedbacks FROM v_sessions(tenant = 'default', since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}) "
        "WHERE session_id IN {names:Array(String)}",
        parameters={**SPAN, "names": list(JUDGED)},
    ).result_rows
    assert {name: n for name, n, _ in counted} == {name: 4 if int(name[1:]) * 4 < TRACES else 0 for name in JUDGED}
    assert all(n >= 1 for _, _, n in counted)


def test_a_judgement_that_came_twice_is_one(client: Client, record: Callable[..., dict[str, Any]]) -> None:
    from tests.sinks.test_views import START_US, insert

    told = {"tenant": "t", "session_id": "s", "kind": "FEEDBACK", "metric": "solved", "value": 1.0}
    mark = json.dumps(SESSION)
    made = [
        *(record("trace_event", event_id="1" * 32, trace_id="p", ts=START_US + i, attributes=mark, **told) for i in range(2)),
        record("trace_event", event_id="2" * 32, trace_id="x", ts=START_US, **told),  # of a trace that says its session
        record("trace_event", event_id="3" * 32, trace_id="x", tenant="t", session_id="s", kind="AGENT", ts=START_US),
        record("trace_event", event_id="4" * 32, trace_id="y", tenant="u", session_id="s", kind="AGENT", ts=START_US),
    ]  # fmt: skip
    insert(client, "trace_events", made)
    rows = client.query(
        "SELECT event_id, trace_id, value FROM v_session_feedback(tenant = 't', since = '2020-01-01', until = '2100-01-01')"
    ).result_rows
    assert rows == [("1" * 32, "x", 1.0)]


def test_tree_survives_circles_and_strangers(client: Client, record: Callable[..., dict[str, Any]]) -> None:
    from tests.sinks.test_views import START_US, insert

    spans = {"a": "b", "b": "a", "c": "c", "d": "gone", "e": "d", "f": ""}
    made = [
        record("trace_event", event_id=f"{i:032x}", tenant="t", trace_id="x", span_id=s, parent_span_id=p or None, kind="AGENT", agent=s, ts=START_US + i)
        for i, (s, p) in enumerate(spans.items())
    ]  # fmt: skip
    insert(client, "trace_events", made)
    rows = client.query(
        "SELECT span_id, depth, path FROM v_trace_tree(tenant = 't', trace = 'x') ORDER BY place"
    ).result_rows
    assert sorted(rows) == [("a", 1, ["b"]), ("b", 1, ["a"]), ("c", 0, []), ("d", 0, []), ("e", 1, ["d"]), ("f", 0, [])]


def described(client: Client, view: str) -> list[tuple[str, str]]:
    asked = f"(SELECT * FROM {view}({CALLS[view]}))" if view in CALLS else f"TABLE {view}"
    return [(row[0], row[1]) for row in client.query(f"DESCRIBE {asked}").result_rows]


def test_every_view_answers_when_there_is_nothing(client: Client) -> None:
    for view in (*listed(), *CALLS):
        asked = f"{view}({CALLS[view]})" if view in CALLS else view
        assert client.query(f"SELECT * FROM {asked}").result_rows == [], view


def listed() -> dict[str, list[tuple[str, str]]]:
    """View -> its columns and types, as the page lists them."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in re.split(r"^### (?=`v_)", TEXT, flags=re.M)[1:]:
        name = re.match(r"`(v_\w+)", part)
        assert name
        found[name.group(1)] = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| \S", part, flags=re.M)
    return found


def test_page_lists_every_column_of_every_view(filled: Client) -> None:
    views = filled.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View' AND name LIKE 'v\\_%'"
    ).result_columns[0]
    page = listed()
    assert set(page) == set(views)
    for view in views:
        assert page[view] == described(filled, view), view


def test_page_has_the_timings_that_were_measured() -> None:
    assert timings_table() in TEXT, "run python -m benchmarks sql --page"
