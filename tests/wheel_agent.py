"""An agent service that has nothing but the published package; `test_wheel.py` runs it in an empty environment.

Arguments: brokers, topic prefix. Prints one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

import steersman
from steersman import Codec, Kind, PolicySnapshot, PolicySubscriber, Router, Topics, Tracer
from steersman.arms import ArmSpace
from steersman.features import FeatureSpec
from steersman.kafka_config import producer_config
from steersman.layout import make_layout
from steersman.snapshot import COVARIANCE, HEADS, Term


def snapshot() -> PolicySnapshot:
    """A policy of two arms that likes the second one."""
    arms, features = ArmSpace({"top_k": [2, 8]}), FeatureSpec()
    layout = make_layout(arms, features)
    tensors = {f"weights.{head}": np.zeros(layout.size, np.float32) for head in HEADS}
    tensors["weights.quality"][-1] = 5.0
    tensors[COVARIANCE] = np.zeros(layout.arm_size * (layout.arm_size + 1) // 2, np.float32)
    return PolicySnapshot(
        tenant="default",
        policy="research/retrieval",
        epoch=1,
        version=42,
        arms=arms,
        features=features,
        baseline="top_k=2",
        tensors=tensors,
        objective=(Term("quality", 1.0, 1.0),),
        reward_spec="0" * 16,
        created_at=time.time_ns() // 1000,
        exploration="greedy",
        floor=0.0,
    )


def main(brokers: str, prefix: str) -> None:
    topics = Topics(prefix)
    tracer = Tracer("retrieval", brokers=brokers, topics=topics)
    subscriber = PolicySubscriber(brokers, topics=topics).start()
    router = Router(subscriber, tracer, baselines={"research/retrieval": {"top_k": 2}}, seed=1)
    decisions = []

    def answer() -> None:
        with tracer.span(Kind.AGENT, operation="answer"):
            decision = router.choose("research/retrieval", {"complexity": 0.5})
            with tracer.span(Kind.TOOL_CALL, operation="search") as span:
                span.set(cost_micro_usd=120)
        tracer.feedback(decision, value=1.0)
        decisions.append(decision)

    ready = subscriber.wait_ready(30)
    answer()
    producer = Producer(producer_config(brokers))
    record = snapshot()
    producer.produce(topics.policy, Codec("policy_snapshot").encode(record.to_record()), record.key)
    undelivered = producer.flush(30)
    deadline = time.monotonic() + 30
    while subscriber.get("research/retrieval") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    answer()
    remaining = tracer.flush(30)

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": prefix, "fetch.wait.max.ms": 50})
    consumer.assign([TopicPartition(topics.trace, 0, 0)])
    codec, deadline = Codec("trace_event"), time.monotonic() + 30
    events: list[dict[str, Any]] = []
    while len(events) < 10 and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            events.append(codec.decode(message.value()))
    consumer.close()
    subscriber.close()
    tracer.close()
    print(
        json.dumps(
            {
                "package": steersman.__file__,
                "platform": [n for n in ("streams", "schemas", "console") if importlib.util.find_spec(n)],
                "ready": ready,
                "undelivered": undelivered,
                "remaining": remaining,
                "decisions": [[d.mode, d.reason, dict(d.arm), d.propensity, d.policy_version] for d in decisions],
                "kinds": sorted(event["kind"] for event in events),
                "logged": sorted(event["mode"] for event in events if event["kind"] == "DECISION"),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
