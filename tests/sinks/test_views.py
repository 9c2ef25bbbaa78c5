"""Every view, on generated data, against the same numbers computed in Python."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
import statistics
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from learners.policy_learner import PolicyLearner
from sinks.batch import Batch
from sinks.clickhouse import connect
from sinks.rows import rows_of
from sinks.tables import Message, tables
from steersman.codec import Codec
from steersman.errors import InvalidRecord
from steersman.fingerprint import Fingerprint, signed
from steersman.snapshot import CHARGED
from steersman.squares import SQUARES
from steersman.topics import Topics
from streams.histogram import MAX_RELATIVE_ERROR, bucket_of
from tests.faults.gateway import Gateway
from tests.learners.test_steady import FULL
from tests.sinks.conftest import TEMPLATE

START_US = 1_790_000_040_000_000  # a full minute
CONTRACT = {
    "trace_events": "trace_event",
    "rewards": "reward",
    "rollups": "rollup",
    "alerts": "alert",
    "policies": "policy_snapshot",
    "ledger": "ledger",
    "policy_acts": "policy_act",
}
TABLES = {table.name: table for table in tables(Topics())}
ALL = ("v_events", "v_rewards", "v_rollups", "v_policies", "v_policy_latest", "v_alerts", "v_dead_letters", "v_decisions", "v_arm_share", "v_uplift", "v_ledger", "v_policy_records", "v_policy_acts")  # fmt: skip


def insert(client: Client, name: str, records: list[dict[str, Any]], first: int = 0) -> None:
    """Insert records as the sink does, with offsets from `first`."""
    table, codec = TABLES[name], Codec(CONTRACT[name])
    batch = Batch(name, 0.0)
    for offset, made in enumerate(records, first):
        message = Message(table.topic, 0, offset, b"k", codec.encode(made), timestamp_ms=1_790_000_000_000 + offset)
        batch.add(message)
    made, rejected = rows_of(table, batch.by_partition())
    assert rejected == []
    made.insert(client, 0, made.count, {"insert_deduplication_token": batch.token(table.topic)})


def rows(client: Client, sql: str) -> list[dict[str, Any]]:
    return list(client.query(sql).named_results())


@pytest.mark.parametrize("view", ALL)
@pytest.mark.usefixtures("migrated")
def test_every_view_selects_on_empty_tables(gateway_process: Gateway, view: str):
    """In the database that the others are copied from: nobody writes there."""
    with closing(connect(f"{gateway_process.url}/{TEMPLATE}")) as client:
        assert client.query(f"SELECT * FROM {view}").result_rows == []


def test_repeated_insert_with_its_token_is_dropped_by_the_server(client: Client, record: Callable[..., Any]):
    made = [record("alert", alert_id=f"a{i}") for i in range(3)]
    insert(client, "alerts", made)
    insert(client, "alerts", made)
    assert client.command("SELECT count() FROM alerts") == 3
    insert(client, "alerts", [record("alert", alert_id=f"b{i}") for i in range(3)])
    assert client.command("SELECT count() FROM alerts") == 6, "same offsets, other records: a topic created anew"


def test_events_read_deduplicated_when_batches_overlap(client: Client, record: Callable[..., Any]):
    made = [
        record(
            "trace_event",
            event_id=f"{i:032x}",
            kind="MODEL_CALL",
            ts=START_US + i,
            duration_us=1500,
            cost_micro_usd=None if i else 7,
        )
        for i in range(10)
    ]
    insert(client, "trace_events", made[:6])
    insert(client, "trace_events", made[3:], first=3)
    got = rows(client, "SELECT * FROM v_events ORDER BY kafka_offset")
    assert [r["event_id"] for r in got] == [m["event_id"] for m in made]
    assert (got[0]["cost_usd"], got[1]["cost_usd"], got[0]["duration_ms"]) == (7e-6, None, 1.5)
    assert got[0]["ts"] == dt.datetime.fromtimestamp(START_US / 1e6, dt.UTC)
    assert got[0]["ts"] - got[0]["started_at"] == dt.timedelta(microseconds=1500)
    assert (got[0]["parent_span_id"], got[0]["input_tokens"], got[0]["features"]) == ("", None, [])


def test_rollups_latest_version_merged_over_partitions(client: Client, record: Callable[..., Any]):
    rng = random.Random(7)
    made, durations = [], []
    for partition in range(3):
        drawn: list[int] = []
        for version in range(1, 5):  # each version of a window replaces the one before
            drawn += [int(rng.lognormvariate(12, 1)) for _ in range(400)]
            histogram: dict[int, int] = {}
            for d in drawn:
                histogram[bucket_of(d)] = histogram.get(bucket_of(d), 0) + 1
            index = sorted(histogram)
            made.append(
                record(
                    "rollup",
                    window_start=START_US,
                    window_us=10_000_000,
                    tenant="t",
                    agent="a",
                    policy="p",
                    arm="k=1",
                    operation="o",
                    kind="DECISION",
                    version=100 * version,
                    source_partition=partition,
                    source_offset=100 * version - 1,
                    closed=partition > 0 or version == 4,
                    events=len(drawn),
                    errors=version,
                    input_tokens=10,
                    output_tokens=5,
                    cost_micro_usd=123 * len(drawn),
                    duration_count=len(drawn),
                    duration_sum_us=sum(drawn),
                    duration_max_us=max(drawn),
                    histogram_index=index,
                    histogram_count=[histogram[i] for i in index],
                    context_fill_sum=0.5,
                    context_fill_count=2,
                    rewards=4,
                    quality_count=2,
                    utility_sum=3.0,
                    quality_sum=1.0,
                )
            )
        durations += drawn
    # The same version published again when the window closes: the later output holds.
    made.append({**made[3], "closed": True, "source_offset": 400, "late": 9})
    shuffled = made[:]
    rng.shuffle(shuffled)
    for i, one in enumerate(shuffled):
        insert(client, "rollups", [one], first=i)
    (got,) = rows(client, "SELECT * FROM v_rollups")
    assert (got["events"], got["errors"], got["duration_count"], got["late"]) == (4800, 12, 4800, 9)
    assert got["cost_micro_usd"] == 123 * 4800
    assert got["cost_usd"] == pytest.approx(123 * 4800 / 1e6)
    assert got["closed"] is True
    assert got["mean_ms"] == pytest.approx(statistics.fmean(durations) / 1000)
    assert got["max_ms"] == max(durations) / 1000
    assert (got["mean_utility"], got["mean_quality"], got["mean_context_fill"], got["rewards"]) == (1.5, 0.5, 0.25, 12)
    assert got["error_rate"] == 12 / 4800
    durations.sort()
    for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        exact = durations[max(1, -(-int(q * 100) * len(durations) // 100)) - 1] / 1000
        assert abs(got[name] / exact - 1) <= MAX_RELATIVE_ERROR, name
    empty = record("rollup", window_start=START_US, kind="END", events=1, duration_count=0)
    insert(client, "rollups", [empty], first=99)
    (got,) = rows(client, "SELECT * FROM v_rollups WHERE kind = 'END'")
    assert (got["p50_ms"], got["mean_ms"], got["mean_utility"], got["mean_context_fill"]) == (None, None, None, None)


def test_policies_and_the_latest_of_each(client: Client, record: Callable[..., Any]):
    knobs = [{"name": "k", "levels": ["1", "2", "3"]}]
    made = [
        record(
            "policy_snapshot",
            tenant="t",
            policy=p,
            epoch=e,
            version=v,
            stage=stage,
            knobs=knobs,
            created_at=START_US,
            signature=b"s",
        )
        for p, e, v, stage in [("a", 1, 900, "LIVE"), ("a", 2, 5, "LIVE"), ("b", 1, 3, "LIVE"), ("b", 1, 3, "FROZEN")]
    ]
    insert(client, "policies", made)
    assert client.command("SELECT count() FROM v_policies") == 3
    got = rows(client, "SELECT policy, epoch, version, stage, arm_count, signed FROM v_policy_latest ORDER BY policy")
    assert [tuple(r.values()) for r in got] == [("a", 2, 5, "LIVE", 3, True), ("b", 1, 3, "FROZEN", 3, True)]


def test_what_steady_ceilings_charge_is_stored_and_a_snapshot_that_no_agent_takes_is_not(client: Client):
    def published(version: int, weight: float) -> dict[str, Any]:
        snapshot = PolicyLearner(FULL).snapshot(START_US + version)
        made = snapshot.to_record()
        charged = np.zeros((1 + len(snapshot.tenants), len(CHARGED), 2), np.float32)
        charged[1 + snapshot.tenants.index("acme"), CHARGED.index("tool_calls")] = weight, 1.5
        tensors = [t for t in made["tensors"] if t["name"] != SQUARES]
        tensors.append({"name": SQUARES, "shape": list(charged.shape), "data": charged.tobytes()})
        return made | {"version": version, "tensors": tensors}

    plain = PolicyLearner(FULL).snapshot(START_US).to_record()
    insert(client, "policies", [plain | {"policy": "plain"}, published(1, 0.0), published(2, 0.25)])
    got = rows(client, "SELECT policy, version, squares FROM v_policies ORDER BY policy DESC, version")
    assert [(r["policy"], r["version"], json.loads(r["squares"])) for r in got] == [
        ("plain", 0, []), (FULL.name, 1, []),
        (FULL.name, 2, [{"tenant": "acme", "component": "tool_calls", "weight": 0.25, "centre": 1.5}]),
    ]  # fmt: skip
    client.command("INSERT INTO policies (policy) VALUES ('of before the column')")
    assert client.command("SELECT squares FROM v_policy_latest WHERE policy = 'of before the column'") == "[]"
    batch = Batch("policies", 0.0)
    batch.add(Message(TABLES["policies"].topic, 0, 9, b"k", Codec("policy_snapshot").encode(published(3, -1.0))))
    [refused] = rows_of(TABLES["policies"], batch.by_partition())[1]
    assert isinstance(refused.error, InvalidRecord)
    assert refused.error.reason == "bad_snapshot"
    assert "must not be negative" in str(refused.error)


def test_ledger_minutes_are_the_latest_version_of_each_entry_added_up(client: Client, record: Callable[..., Any]):
    rng = random.Random(5)
    ids = [f"{rng.getrandbits(128):032x}" for _ in range(400)]
    made, whole = [], {p: Fingerprint() for p in range(2)}
    for i in range(0, len(ids), 100):  # entries of 100 records; each grows from version to version
        partition, grown = i // 200, Fingerprint()
        for version in (i + 1, i + 40, i + 100):
            for j in range(i + grown.n, version):
                grown.add(ids[j], j)
            made.append(
                record(
                    "ledger", stage="trace", outcome="accepted", tenant="t", minute=START_US, source_partition=partition,
                    first_offset=i, version=version, n=grown.n, id_sum=signed(grown.total), id_xor=signed(grown.xor),
                    amount=grown.amount,
                )
            )  # fmt: skip
        whole[partition].merge(grown)
    made.append(record("ledger", stage="trace", outcome="rejected", reason="magic", minute=0, n=1, policy=""))
    rng.shuffle(made)
    for offset in range(0, len(made), 3):
        insert(client, "ledger", made[offset : offset + 3], first=offset)
    insert(client, "ledger", made[1:7], first=900)  # a worker that repeated its entries after a restart
    got = rows(client, "SELECT * FROM v_ledger ORDER BY outcome, source_partition")
    assert [(r["n"], r["id_sum"], r["id_xor"], r["amount"]) for r in got[:2]] == [
        (whole[p].n, whole[p].total, whole[p].xor, whole[p].amount) for p in range(2)
    ]
    assert [(r["first_offset"], r["version"]) for r in got[:2]] == [(0, 200), (200, 400)]
    assert (got[2]["reason"], got[2]["minute"], got[2]["tenant"]) == ("magic", dt.datetime.fromtimestamp(0, dt.UTC), "")
    insert(
        client,
        "trace_events",
        [record("trace_event", event_id=e, kind="END", ts=START_US, cost_micro_usd=i) for i, e in enumerate(ids[:200])],
    )
    same = client.query(
        "SELECT count(), sum(h), groupBitXor(h), sum(cost_micro_usd) FROM "
        "(SELECT reinterpretAsUInt64(substring(SHA256(event_id), 1, 8)) AS h, cost_micro_usd FROM v_events)"
    ).first_row
    assert same == (whole[0].n, whole[0].total, whole[0].xor, whole[0].amount), "events in SQL, entries in Python"
    times = client.query(
        "SELECT toUnixTimestamp64Milli(min(kafka_timestamp)), uniqExact(kafka_timestamp) FROM v_events"
    )
    assert times.first_row == (1_790_000_000_000, 200)


def test_kafka_timestamp_of_another_age_is_none(client: Client, record: Callable[..., Any]):
    table, codec = TABLES["alerts"], Codec("alert")
    for stamp in (-1, 0, 946_684_799_999, 4_102_444_800_000, 2**62):
        message = Message(table.topic, 0, 0, None, codec.encode(record("alert")), timestamp_ms=stamp)
        assert table.row(message)["kafka_timestamp"] == 0  # type: ignore[index]


def test_dead_letters_show_any_bytes(client: Client):
    table = TABLES["dead_letters"]
    batch = Batch("dead_letters", 0.0)
    for offset, value in enumerate([b"\xff\x00\xfe", b"plain", None]):
        message = Message(table.topic, 0, offset, b"\xff", value, [("tenant", b"t\xff")], 1_790_000_000_000)
        batch.add(message)
    made, _ = rows_of(table, batch.by_partition())
    made.insert(client, 0, made.count, {})
    got = rows(client, "SELECT * FROM v_dead_letters ORDER BY kafka_offset")
    assert [(r["value_base64"], r["value_bytes"], r["tombstone"]) for r in got] == [
        ("/wD+", 3, False),
        ("cGxhaW4=", 5, False),
        ("", 0, True),
    ]
    assert [(r["error_topic"], r["error_offset"], r["key_base64"]) for r in got] == [
        (table.topic, i, "/w==") for i in range(3)
    ]


def test_decisions_arm_share_and_uplift(client: Client, record: Callable[..., Any]):
    rng = random.Random(3)
    decisions, rewards = [], []
    for i in range(200):
        mode = ("LIVE", "HOLDOUT", "FALLBACK", "LIVE")[i % 4]
        arm = "k=1" if mode != "LIVE" or i % 8 == 0 else "k=2"
        ids = {
            "tenant": "t",
            "policy": "p",
            "trace_id": f"{i:032x}",
            "decision_id": f"{i:032x}-{i:016x}",
            "arm": arm,
            "mode": mode,
        }
        decisions.append(
            record(
                "trace_event",
                event_id=f"{i:032x}",
                kind="DECISION",
                ts=START_US + i * 500_000,
                propensity=0.5,
                explored=i % 8 == 0,
                **ids,
            )
        )
        if i % 10 != 9:
            quality = None if i % 10 == 4 else rng.random()
            rewards.append(
                record(
                    "reward",
                    ts=START_US + i * 500_000 + 99,
                    decided_at=START_US + i * 500_000,
                    propensity=0.5,
                    quality=quality,
                    utility=None if quality is None else quality - (0.1 if mode == "LIVE" else 0.5),
                    cost_micro_usd=1000 + i,
                    latency_us=2_000_000 - i,
                    failures=1,
                    closed_by="COMPLETE",
                    reward_spec="0" * 16,
                    **ids,
                )
            )
    repeated = {**decisions[0]}  # a producer that sent an event twice
    insert(client, "trace_events", [*decisions, repeated])
    insert(client, "rewards", rewards)
    insert(client, "rewards", rewards[:50], first=1000)  # a worker that repeated its outputs after a restart
    got = rows(client, "SELECT * FROM v_decisions ORDER BY decided_at")
    assert len(got) == 200
    assert sum(r["rewarded"] for r in got) == len(rewards) == client.command("SELECT count() FROM v_rewards")
    open_one = got[9]
    assert [
        open_one[n]
        for n in ("rewarded_at", "cost_micro_usd", "cost_usd", "latency_ms", "quality", "failures", "closed_by")
    ] == [None] * 7
    assert (got[1]["cost_micro_usd"], got[1]["cost_usd"], got[1]["latency_ms"], got[1]["utility"]) == (
        1001,
        0.001001,
        1999.999,
        rewards[1]["utility"],
    )

    share = rows(client, "SELECT * FROM v_arm_share ORDER BY minute, arm")
    assert sum(r["decisions"] for r in share) == 100 + 1  # the share counts events, the repeated one too
    for minute in {r["minute"] for r in share}:
        assert sum(r["share"] for r in share if r["minute"] == minute) == pytest.approx(1)
    assert {r["arm"]: r["mean_propensity"] for r in share} == {"k=1": 0.5, "k=2": 0.5}

    (uplift,) = rows(client, "SELECT * FROM v_uplift")
    live = [r for r in rewards if r["mode"] == "LIVE"]
    control = [r for r in rewards if r["mode"] != "LIVE"]
    utilities = [[r["utility"] for r in side if r["utility"] is not None] for side in (live, control)]
    assert (uplift["decisions"], uplift["control_decisions"]) == (len(live), len(control))
    assert uplift["control_holdout"] == sum(r["mode"] == "HOLDOUT" for r in control)
    assert uplift["latency_ms"] == pytest.approx(statistics.fmean(r["latency_us"] for r in live) / 1e3)
    assert uplift["control_cost_usd"] == pytest.approx(statistics.fmean(r["cost_micro_usd"] for r in control) / 1e6)
    assert uplift["cost_change"] == pytest.approx(uplift["cost_usd"] / uplift["control_cost_usd"] - 1)
    assert uplift["utility_gain"] == pytest.approx(statistics.fmean(utilities[0]) - statistics.fmean(utilities[1]))
    error = sum(statistics.variance(u) / len(u) for u in utilities) ** 0.5
    assert uplift["utility_gain_se"] == pytest.approx(error)


def test_uplift_without_control_is_null_not_an_error(client: Client, record: Callable[..., Any]):
    insert(client, "rewards", [record("reward", decision_id="d", mode="LIVE", quality=None, utility=None)])
    (got,) = rows(client, "SELECT * FROM v_uplift")
    assert (
        got["decisions"],
        got["control_decisions"],
        got["control_latency_ms"],
        got["cost_change"],
        got["utility_gain"],
    ) == (1, 0, None, None, None)


def test_acts_are_one_row_each_with_what_became_of_them(client: Client, record: Callable[..., Any]):
    asked = {
        "act_id": "a",
        "ts": START_US,
        "policy": "p",
        "act": "PIN",
        "who": "ann",
        "why": "so",
        "epoch": 1,
        "version": 7,
    }
    insert(
        client,
        "policy_acts",
        [record("policy_act", **asked, expected="live"), record("policy_act", **{**asked, "act_id": "b"})],
    )
    told = {**asked, "outcome": "REFUSED", "reason": "no", "at_epoch": 2, "at_version": 9, "standing": "live"}
    insert(client, "policy_acts", [record("policy_act", **told)], 2)
    insert(
        client, "policy_acts", [record("policy_act", **asked, expected="live")], 3
    )  # asked for again, after the answer
    one, two = rows(client, "SELECT * FROM v_policy_acts ORDER BY act_id")
    assert (one["act"], one["outcome"], one["reason"], one["standing"]) == ("PIN", "REFUSED", "no", "live")
    assert (one["at_epoch"], one["at_version"], one["epoch"], one["version"], one["expected"]) == (2, 9, 1, 7, "live")
    assert one["answered_at"] >= one["asked_at"]
    assert (two["outcome"], two["answered_at"], two["at_version"]) == ("ASKED", None, -1)


def test_records_of_policies_are_kept_once_a_minute_and_after_each_change(client: Client, record: Callable[..., Any]):
    arms = {"knobs": [{"name": "k", "levels": ["1"]}], "policy": "p", "epoch": 1}
    minute = 60_000_000
    made = [
        record("policy_snapshot", **arms, version=1, created_at=START_US, signature=b"s"),
        record("policy_snapshot", **arms, version=2, created_at=START_US + 1),
        record("policy_snapshot", **arms, version=2, created_at=START_US + 2, acts=1, pinned="1.1"),
        record("policy_snapshot", **arms, version=3, created_at=START_US + 3, acts=1, pinned="1.1"),
        record("policy_snapshot", **arms, version=4, created_at=START_US + minute, acts=1),
    ]
    insert(client, "policies", made)
    seen = rows(client, "SELECT version, acts, pinned, kept FROM v_policies ORDER BY version, acts")
    assert [(r["version"], r["acts"], r["pinned"], r["kept"]) for r in seen] == [
        (1, 0, "", 1), (2, 0, "", 0), (2, 1, "1.1", 1), (3, 1, "1.1", 0), (4, 1, "", 1)
    ]  # fmt: skip
    [first] = rows(client, "SELECT record_base64 FROM v_policy_records WHERE version = 1")
    assert Codec("policy_snapshot").decode(base64.b64decode(first["record_base64"])) == made[0], "signature and all"
    [latest] = rows(client, "SELECT version, acts FROM v_policy_latest")
    assert (latest["version"], latest["acts"]) == (4, 1)
