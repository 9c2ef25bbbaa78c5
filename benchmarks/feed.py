"""`python -m benchmarks.feed`: traces of many agents at a rate, until SIGTERM.

Prints how many it has sent as one JSON object at its end.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections.abc import Sequence

import numpy as np
from confluent_kafka import KafkaError, Producer

from benchmarks.payload import TraceMaker
from benchmarks.templates import Template, encoded_times, fill_in, fresh_ids, make_templates
from steersman.kafka_config import kafka_logger, producer_config

_TRACES = 2048
_AT_ONCE = 256
_EVERY_S = 0.005


class Feed:
    """Sends templates.

    Parameters
    ----------
    brokers, topic
        Where to.
    templates
        Sent in order, over and over; traces that have begun are brought to an end by `finish`.
    """

    def __init__(self, brokers: str, topic: str, templates: Sequence[Template]) -> None:
        self._topic = topic
        self._templates = templates
        self._traces = max(template.trace for template in templates) + 1
        self._next = 0
        self._first_id = random.SystemRandom().getrandbits(60)
        self._ids: list[bytes] = []
        self._errors: list[KafkaError] = []
        self._producer = Producer(
            producer_config(
                brokers,
                {"linger.ms": 5, "queue.buffering.max.messages": 200_000, "delivery.report.only.error": True},
            ),
            logger=kafka_logger,
        )
        self.sent = 0

    def send(self, count: int) -> None:
        """Send so many events, with the time of the machine."""
        now_us = time.time_ns() // 1000
        produce, topic, templates = self._producer.produce, self._topic, self._templates
        for moment in encoded_times(np.arange(now_us, now_us + count, dtype=np.int64)):
            if self._next == 0:
                self._ids = fresh_ids(self._first_id, self._traces)
                self._first_id += self._traces
            template = templates[self._next]
            self._next = (self._next + 1) % len(templates)
            key, value = fill_in(template, self._ids[template.trace], moment)
            while True:
                try:
                    produce(topic, value, key, on_delivery=self._failed)
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self.sent += count
        self._producer.poll(0)

    def finish(self) -> int:
        """Bring the traces to an end that have begun, and wait for the broker; returns how many events it lacks."""
        if self._next:
            self.send(len(self._templates) - self._next)
        return self._producer.flush(60) + len(self._errors)

    def _failed(self, error: KafkaError | None, message: object) -> None:
        if error is not None:
            self._errors.append(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Send; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    feed = Feed(options.brokers, options.topic, make_templates(TraceMaker(options.seed), _TRACES, _AT_ONCE))
    print(json.dumps({"ready": True}), flush=True)
    started = time.monotonic()
    while not stopping:
        due = int((time.monotonic() - started) * options.rate) - feed.sent
        if due > 0:
            # In small runs: after a stall it catches up without holding the signal back.
            feed.send(min(due, 2000))
        else:
            time.sleep(_EVERY_S)
    took = time.monotonic() - started
    missing = feed.finish()
    print(json.dumps({"sent": feed.sent, "missing": missing, "took_s": took}), flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
