"""Traces of three days with known answers, through the real trace stage and the sink's rows into ClickHouse.

Every number of the world is made here, so that a test can count it again from the events, without SQL.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from clickhouse_connect.driver.client import Client

from doors.feedback import event_of_feedback, read_feedback
from learners.detector_settings import DetectorSettings
from learners.policies import Policies
from sinks.batch import Batch
from sinks.rows import rows_of
from sinks.tables import Message, tables
from steersman.codec import Codec
from steersman.dead_letter import failure_headers
from steersman.errors import DecodeError
from steersman.topics import Topics
from streams.trace_stage import TraceStage
from tests.sinks.records import record
from tests.streams.trace_events import ARMS, MS, T0, S, decision, event, feed, feedback, hex_id, policy, span_id, tick

POLICY = "research/retrieval"
BASELINE = ARMS.labels[0]
SINCE_US, UNTIL_US = T0 - 60 * S, T0 + 3 * 86_400 * S
TRACES, STEP_US = 480, 400 * S  # 53 hours: four days by the calendar, at most
USER = "user-17@example.org"
JUDGED: dict[str, float | None] = {"s3": 1.0, "s8": 0.0, "s40": 1.0, "s41": None, "s9999": 0.0}
"""Sessions that were judged as a whole, and how; of the last one there are no traces."""
APPLIED = 300
"""Rewards below this position in the order of provenance are in the newest snapshot."""
_CONTRACT = {
    "trace_events": "trace_event", "rewards": "reward", "rollups": "rollup", "alerts": "alert", "policies": "policy_snapshot",
    "ledger": "ledger",
}  # fmt: skip
_TABLES = {table.name: table for table in tables(Topics())}
_KNOBS = [{"name": name, "levels": [f'"{v}"' if isinstance(v, str) else str(v) for v in levels]} for name, levels in ARMS.knobs.items()]  # fmt: skip


@dataclass
class World:
    """What was written.

    Attributes
    ----------
    events, rewards, rollups, alerts, snapshots, ledger : list of dict
        Records, each once.
    waiting : list of dict
        Rewards that the newest snapshot has not learned from.
    letters : int
        Dead letters.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    rewards: list[dict[str, Any]] = field(default_factory=list)
    rollups: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    letters: int = 0

    def of(self, *kinds: str, tenant: str = "default") -> list[dict[str, Any]]:
        """Events of some kinds and one tenant."""
        return [e for e in self.events if e["kind"] in kinds and e["tenant"] == tenant]


def trace_of(i: int) -> str:
    """Id of the i-th trace."""
    return hex_id(f"analyst {i}", 32)


def make(seed: int = 11) -> World:
    """Make the world."""
    rng = random.Random(seed)
    made = World()
    for i in range(TRACES):
        made.events += _trace(i, rng)
    for i in range(20):  # another tenant, that nothing of the first one's may show
        at = T0 + i * 3600 * S
        other = {"trace": hex_id(f"acme {i}", 32), "tenant": "acme", "agent": "writer", "session_id": "s1"}
        made.events.append(
            event(
                "MODEL_CALL", at, "m", operation="large", cost_micro_usd=5000, input_tokens=10, duration_us=S, **other
            )
        )
    for name, value in JUDGED.items():
        said = {"value": value} if value is not None else {"label": "unsure"}
        judgement = {"id": f"survey {name}", "session_id": name, "metric": "solved", "source": "survey", **said}
        [one] = read_feedback(json.dumps(judgement).encode())
        after = T0 + 4 * STEP_US * (min(int(name[1:]), TRACES // 4 - 3) + 1)
        codec, written = (
            Codec("trace_event"),
            event_of_feedback(one, tenant="default", capture_content=False, now_us=after),
        )
        made.events.append(codec.decode(codec.encode(written)))
    made.events.sort(key=lambda e: e["ts"])
    stage = TraceStage(Policies.of(policy(POLICY, window_s=3600, default=0.25)), 0, detectors=DetectorSettings())
    for out in (feed(stage, made.events), feed(stage, [tick(T0 + TRACES * STEP_US)])):
        assert not out.rejected
        made.rewards += out.rewards
        made.rollups += out.rollups
        made.alerts += out.alerts
    made.ledger = stage.audit()
    ordered = sorted(made.rewards, key=lambda r: (r["source_offset"], r["seq"]))
    made.waiting = ordered[APPLIED:]
    last = ordered[APPLIED - 1]
    stages = [("SHADOW", 0.0)] * 3 + [("CANARY", 0.1)] * 4 + [("CANARY", 0.5)] * 2 + [("LIVE", 1.0)] * 6
    for version, (name, share) in enumerate(stages):
        newest = version == len(stages) - 1
        made.snapshots.append(
            record(
                "policy_snapshot", tenant="default", policy=POLICY, epoch=1, version=APPLIED if newest else version * 10, stage=name,
                canary_share=share, knobs=_KNOBS, baseline=BASELINE, reward_spec=last["reward_spec"], created_at=T0 + version * 3600 * S,
                applied_n=APPLIED if newest else version * 10,
                applied_sources=[{"partition": 0, "offset": last["source_offset"], "seq": last["seq"]}] if newest else [],
            )
        )  # fmt: skip
    return made


def _trace(i: int, rng: random.Random) -> list[dict[str, Any]]:
    """One interaction: a planner, a decision, a search, a model, mostly feedback."""
    start, trace = T0 + i * STEP_US, trace_of(i)
    own = {"trace": trace, "session_id": f"s{i // 4}"}
    long_ms = 800 + 37 * (i % 50)
    end = start + long_ms * MS
    holdout = i % 10 == 3
    weights = [0.7, 0.1, 0.1, 0.1] if i % 2 else [0.25, 0.25, 0.25, 0.25]
    index = 0 if holdout else rng.choices(range(4), weights)[0]
    model = str(ARMS.arms[index]["model"])
    who = {"attributes": f'{{"user.id":"{USER if i % 40 == 17 else f"user-{i}"}"}}'}
    made = [
        event("AGENT", end, "root", agent="planner", duration_us=long_ms * MS, **own, **who),
        decision(
            start + 10 * MS, policy=POLICY, arm=ARMS.labels[index], propensity=1.0 if holdout else weights[index], agent="retriever",
            mode="HOLDOUT" if holdout else "LIVE", explored=not holdout and index != 3, policy_version=i // 2,
            parent_span_id=span_id("root"), **own,
        ),
        event(
            "MODEL_CALL", end - 5 * MS, "model", agent="retriever", operation=model, provider="openai", parent_span_id=span_id("root"),
            duration_us=(long_ms - 100) * MS, input_tokens=1000, cached_input_tokens=400 if model == "large" else 0, output_tokens=100,
            cost_micro_usd=None if i % 8 == 5 else (3000 if model == "large" else 300), context_tokens=100 * (i % 10), context_limit=1000,
            **own,
        ),
    ]  # fmt: skip
    for k in range(5 if i % 60 == 18 else 1):  # a tool loop now and then
        failed = i % 11 == 0 and k == 0
        made.append(
            event(
                "TOOL_CALL", start + (20 + k) * MS, f"tool{k}", agent="retriever", operation="search", parent_span_id=span_id("root"),
                duration_us=5 * MS, cost_micro_usd=10, args_hash=hex_id(f"args {i}", 16), status="TIMEOUT" if failed else "OK",
                error="Timeout" if failed else None, **own,
            )
        )  # fmt: skip
    made.append(event("END", end, "root", agent="planner", **own))
    if i % 3:
        quality = 0.4 + 0.15 * index + 0.01 * (i % 10)
        made.append(feedback(end + (1 + i % 7) * S, quality, source="judge" if i % 2 else f"rater-{i % 5}", target_span_id=span_id("root"), **own))  # fmt: skip
    return made


def store(client: Client, world: World) -> None:
    """Insert the world as the sink does, half of it twice."""
    for name, records in (
        ("trace_events", world.events), ("rewards", world.rewards), ("rollups", world.rollups), ("alerts", world.alerts),
        ("policies", world.snapshots), ("ledger", world.ledger),
    ):  # fmt: skip
        codec = Codec(_CONTRACT[name])
        stamps = [made["ts"] // 1000 if "ts" in made else 1_790_000_000_000 for made in records]
        messages = [
            Message(_TABLES[name].topic, 0, i, b"k", codec.encode(made), timestamp_ms=at)
            for i, (made, at) in enumerate(zip(records, stamps, strict=True))
        ]
        insert(client, name, messages)
        insert(client, name, messages[: len(messages) // 2])  # a sink that was killed before it could commit
    # An event that its producer sent twice: two records, one decision.
    twice = world.of("DECISION")[0]
    insert(
        client,
        "trace_events",
        [Message("t", 1, 0, b"k", Codec("trace_event").encode(twice), timestamp_ms=twice["ts"] // 1000)],
    )
    letters = [_letter(i, b"x") for i in range(6)]
    letters.append(_letter(7, Codec("trace_event").encode(world.of("AGENT")[17]), key=trace_of(17)))
    letters.append(_letter(8, b'{"user.id":"' + USER.encode() + b'"}'))
    world.letters = len(letters)
    insert(client, "dead_letters", letters)


def insert(client: Client, name: str, messages: list[Message]) -> None:
    """Insert messages of a topic as the sink does."""
    batch = Batch(name, 0.0)
    for message in messages:
        batch.add(message)
    made, rejected = rows_of(_TABLES[name], batch.by_partition())
    assert rejected == []
    made.insert(client, 0, made.count, {"insert_deduplication_token": batch.token(_TABLES[name].topic)})


def _letter(i: int, value: bytes, key: str = "k") -> Message:
    reason = "magic" if i % 3 else "crc"
    headers = failure_headers(
        "steersman.trace.v1", 0, i, "DESERIALIZE", DecodeError(reason, f"no {i}"), connector="trace"
    )
    return Message(_TABLES["dead_letters"].topic, 0, i, key.encode(), value, headers, (T0 + i * S) // 1000)
