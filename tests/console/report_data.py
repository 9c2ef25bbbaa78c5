"""A loop as it is stored: a policy that learns, hostile names, alerts, dead letters, a ledger."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np

from sinks.batch import Batch
from sinks.clickhouse import connect
from sinks.rows import rows_of
from sinks.tables import Message, tables
from steersman.arms import ArmSpace
from steersman.topics import Topics
from tests.page.served import EVIL, insert
from tests.sinks.records import record, value

START = dt.datetime(2026, 9, 21, 12, 0, tzinfo=dt.UTC)
START_US = int(START.timestamp() * 1e6)
SECOND = 1_000_000
POLICY = "research/answer"
KNOBS: dict[str, list[Any]] = {"model": ["small", "middle", "large"], "top_k": [2, 8]}
BASELINE = "model=large;top_k=8"


def fill(url: str, n: int = 1500, seed: int = 1) -> None:
    """Half an hour of two policies: one that moves from the large model to the middle one, and one with a hostile name."""
    rng = np.random.default_rng(seed)
    arms = ArmSpace(KNOBS)
    objective = [
        {"component": "quality", "weight": 1.0, "scale": 1.0}, {"component": "cost", "weight": -0.1, "scale": 10_000.0},
        {"component": "latency", "weight": -0.05, "scale": 1e6}, {"component": "failures", "weight": 0.0, "scale": 1.0},
    ]  # fmt: skip
    insert(
        url, "policies",
        [
            record(
                "policy_snapshot", tenant="default", policy=name, epoch=1, version=version, stage="LIVE", baseline=BASELINE, learner="linear",
                knobs=arms.to_record()["knobs"], applied_n=version, created_at=START_US + version * SECOND, objective=objective,
            )
            for name in (POLICY, f"team/{EVIL}")
            for version in (0, 100, 1000)
        ],
    )  # fmt: skip
    rewards = []
    for i in range(n):
        share = i / n
        at = START_US + int(share * 1800 * SECOND)
        holdout = rng.random() < 0.15
        chance = np.array([0.05 + 0.2 * share, 0.1, 0.1 + 0.35 * share, 0.1 + 0.25 * share, 0.05, 0.6 - 0.5 * share])
        chance = np.maximum(chance, 0.02) / np.maximum(chance, 0.02).sum()
        arm = 5 if holdout else int(rng.choice(6, p=chance))
        model, k = arm // 2, arm % 2
        quality = float(np.clip(0.6 + 0.12 * model - 0.03 * model * model + 0.05 * k + rng.normal(0, 0.12), 0, 1))
        cost = int((900 + 2600 * model * model + 700 * k) * np.exp(rng.normal(0, 0.2)))
        latency = int((0.7 + 0.9 * model + 0.4 * k) * 1e6 * np.exp(rng.normal(0, 0.25)))
        judged = rng.random() < 0.9
        rewards.append(
            record(
                "reward", tenant="default", policy=POLICY, decision_id=f"d{i}", trace_id=f"{i:032x}", ts=at + 3 * SECOND, decided_at=at,
                arm=arms.labels[arm], mode="HOLDOUT" if holdout else "FALLBACK" if i % 199 == 7 else "LIVE",
                propensity=1.0 if holdout else float(chance[arm]), policy_epoch=1, policy_version=i, quality=quality if judged else None,
                utility=quality - 0.1 * cost / 1e4 - 0.05 * latency / 1e6 if judged else None, cost_micro_usd=cost, latency_us=latency,
                failures=0, explored=bool(rng.random() < 0.3 * (1 - share)), agent="answer", features=[1.0], closed_by="COMPLETE",
            )
        )  # fmt: skip
    for i in range(60):
        rewards.append(
            record(
                "reward", tenant="default", policy=f"team/{EVIL}", decision_id=f"e{i}", trace_id=f"{i:032x}", ts=START_US + i * 9 * SECOND,
                decided_at=START_US + i * 9 * SECOND, arm=f"model={EVIL}", mode="LIVE", propensity=0.5, quality=0.5, utility=0.5,
                cost_micro_usd=10, latency_us=10, failures=0, features=[1.0],
            )
        )  # fmt: skip
    insert(url, "rewards", rewards)
    insert(
        url, "alerts",
        [
            record(
                "alert", tenant="default", alert_id=f"a{i}", ts=START_US + i * 60 * SECOND, detector="tool_loop" if i % 3 else "retry_storm",
                severity="CRITICAL" if i % 3 else "WARNING", policy=POLICY, agent=EVIL, trace_id=f"{i:032x}", message=f"7 times {EVIL}",
            )
            for i in range(26)
        ],
    )  # fmt: skip
    insert(
        url, "trace_events",
        [
            record(
                "trace_event", tenant="default", event_id=f"{i:032x}", trace_id=f"{i % 400:032x}", span_id=f"{i:016x}", kind="MODEL_CALL",
                status="ERROR" if i % 50 == 0 else "OK", ts=START_US + i * SECOND, cost_micro_usd=None if i % 80 == 3 else 10,
            )
            for i in range(1600)
        ],
    )  # fmt: skip
    _letters(url)


def _letters(url: str) -> None:
    table = next(t for t in tables(Topics()) if t.name == "dead_letters")
    batch = Batch("dead_letters", 0.0)
    for offset in range(3):
        body, headers = value("dead_letters", offset)
        at_ms = START_US // 1000 + offset
        batch.add(Message(table.topic, 0, offset, b"k", body, headers=headers, timestamp_ms=at_ms))
    rows, rejected = rows_of(table, batch.by_partition())
    assert rejected == []
    client = connect(url)
    rows.insert(client, 0, rows.count, {})
    client.close()
