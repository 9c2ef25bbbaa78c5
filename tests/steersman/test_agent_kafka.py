"""The agent package on Apache Kafka: events out, policy in."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker
from steersman.codec import Codec
from steersman.events import Kind, Mode
from steersman.kafka_config import producer_config
from steersman.router import Router
from steersman.snapshot import PolicySnapshot
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from steersman.tracer import Tracer

POLICY = "research/retrieval"


def test_decide_report_and_follow(kafka: Broker, make_snapshot: Callable[..., PolicySnapshot]) -> None:
    topics = Topics(f"agent-{uuid.uuid4().hex[:8]}")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    compacted = NewTopic(topics.policy, 1, 1, config={"cleanup.policy": "compact"})
    for future in admin.create_topics([NewTopic(topics.trace, 3, 1), compacted]).values():
        future.result(20)
    tracer = Tracer("retrieval", brokers=kafka.bootstrap, topics=topics)
    subscriber = PolicySubscriber(kafka.bootstrap, topics=topics).start()
    router = Router(subscriber, tracer, baselines={POLICY: {"model": "m", "top_k": 8}})
    producer = Producer(producer_config(kafka.bootstrap, {"linger.ms": 0}))
    codec = Codec("policy_snapshot")
    try:
        assert subscriber.wait_ready(20)
        with tracer.span(Kind.AGENT):
            assert router.choose(POLICY, {}).reason == "no_snapshot"
        versions: list[int] = []
        for version in range(1, 11):
            snapshot = make_snapshot(version=version)
            producer.produce(topics.policy, codec.encode(snapshot.to_record()), snapshot.key)
            assert producer.flush(20) == 0
            deadline = time.monotonic() + 20
            while (held := subscriber.get(POLICY)) is None or held.snapshot.version != version:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            with tracer.span(Kind.AGENT) as span:
                decision = router.choose(POLICY, {"complexity": 0.5})
                with tracer.span(Kind.TOOL_CALL, operation="search"):
                    pass
            assert tracer.feedback(decision, value=1.0)
            assert (decision.mode, decision.trace_id) == (Mode.LIVE, span.trace_id)
            versions.append(decision.policy_version or 0)
        assert versions == list(range(1, 11))
        assert tracer.flush(20) == 0
        assert kinds(kafka.bootstrap, topics.trace, 53) == {
            "DECISION": 11,
            "AGENT": 11,
            "END": 11,
            "TOOL_CALL": 10,
            "FEEDBACK": 10,
        }
    finally:
        subscriber.close()
        tracer.close()


def kinds(bootstrap: str, topic: str, count: int) -> dict[str, int]:
    """Events on a topic, by kind."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "x", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(3)])
    codec, found = Codec("trace_event"), {}
    deadline = time.monotonic() + 20
    while sum(found.values()) < count and time.monotonic() < deadline:
        message: Any = consumer.poll(0.2)
        if message is not None and message.error() is None:
            kind = codec.decode(message.value())["kind"]
            found[kind] = found.get(kind, 0) + 1
    consumer.close()
    return found
