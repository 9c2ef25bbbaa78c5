"""librdkafka's own broker, in this process and on a real port: for what a broker passes on unseen, at no cost.

It keeps batches as they come and looks at nothing in them, as brokers that are not Apache Kafka's may. It stands in for no
other behaviour of Kafka's: `tests/trust/part_bombs.py` does the same on Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer


@contextmanager
def mock_kafka() -> Iterator[str]:
    """Its address; it ends with the block."""
    owner = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in owner.list_topics(timeout=10).brokers.values())
    del owner
