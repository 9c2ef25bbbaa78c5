"""`steersman trace tail`: trace events as they arrive."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from console.output import err, out, print_json
from console.target import Target, registry_of
from steersman.codec import Codec
from steersman.errors import DecodeError, SteersmanError
from steersman.headers import headers_of
from steersman.kafka_config import CONSUMER_LIMITS, FOLLOWERS, client_config
from steersman.topics import Topics

_DETAILS = (
    "operation", "policy", "arm", "mode", "policy_version", "propensity", "metric", "value", "label",
    "cost_micro_usd", "input_tokens", "output_tokens", "error",
)  # fmt: skip


def run(
    target: Target,
    *,
    kind: str | None,
    trace_id: str | None,
    from_beginning: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print events until `limit` or Ctrl-C.

    Raises
    ------
    SteersmanError
        When the trace topic does not exist.
    """
    topic = Topics(target.prefix).trace
    consumer = Consumer(
        {
            **client_config(target.brokers),
            **CONSUMER_LIMITS,
            "group.id": f"{FOLLOWERS}tail-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest" if from_beginning else "latest",
        }
    )
    codec = Codec("trace_event", registry=registry_of(Topics(target.prefix)))
    shown = 0
    try:
        partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
        if not partitions:
            raise SteersmanError(
                f"topic {topic} does not exist at {target.brokers}; create it with 'steersman topics --create'"
            )
        consumer.assign([TopicPartition(topic, p, 0 if from_beginning else -1) for p in partitions])
        while limit is None or shown < limit:
            message = consumer.poll(0.5)
            if message is None or message.error():
                continue
            try:
                event = codec.decode(message.value(), headers_of(message))
            except DecodeError as e:
                err.print(f"{topic}[{message.partition()}]@{message.offset()}: {e}", style="red", markup=False)
                continue
            if (kind and event["kind"] != kind.upper()) or (trace_id and event["trace_id"] != trace_id):
                continue
            shown += 1
            if as_json:
                print_json({k: v for k, v in event.items() if v is not None and v != []})
            else:
                out.print(_line(event), markup=False, highlight=False, soft_wrap=True)
    finally:
        consumer.close()


def _line(event: dict[str, Any]) -> str:
    at = dt.datetime.fromtimestamp(event["ts"] / 1e6, dt.UTC).strftime("%H:%M:%S.%f")[:-3]
    took = f"{event['duration_us'] / 1000:9.1f} ms" if event["duration_us"] is not None else " " * 12
    details = " ".join(f"{k}={event[k]}" for k in _DETAILS if event.get(k) is not None)
    return (
        f"{at} {event['trace_id'][:8]} {event['agent']:<14} {event['kind']:<10} {event['status']:<7} {took} {details}"
    )
