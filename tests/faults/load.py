"""`python -m tests.faults.load`: seeded load on the trace topic, and a ledger of what became of each record.

The ledger is JSON Lines, one line a record, written when its outcome is known:
``{"event_id", "kind", "tenant", "trace_id", "amount", "poison", "what", ..., "outcome", "partition", "offset"}``.
``outcome`` is ``acked`` (it is at this partition and offset; the offset is -1 where the broker answered only to a
repetition of the request, that it has the record already), ``refused`` (it is nowhere) or ``unknown`` (either);
``what`` is ``event``, ``undecodable`` (the same as ``poison``) or ``invalid`` (decodes, but is no judgement).
A decision has its ``decision_id`` and ``policy``, a span the decision that it is ``charged_to``, a feedback its
``value``, ``target`` and ``ts``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from confluent_kafka import KafkaError, Producer

from learners.policies_file import load_policies
from steersman.kafka_config import kafka_logger, producer_config
from steersman.topics import Topics
from tests.faults.traces import Mix, Sent, Traffic

POLICIES = Path(__file__).with_name("policies.toml")
_POLL_EVERY = 100  # records
_FLUSH_EVERY_S = 0.2
_REFUSED = frozenset(
    {
        KafkaError._PURGE_QUEUE, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.INVALID_MSG, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
    }
)  # fmt: skip
"""Errors after which a record is certainly not in the log."""


class Load:
    """Sends records and keeps the ledger.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    topic
        Where to.
    ledger
        File of the ledger, open for writing.
    """

    def __init__(self, brokers: str, topic: str, ledger: TextIO):
        self._topic = topic
        self._ledger = ledger
        self._flushed = time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.partitions: set[int] = set()
        self.stopping = False
        self.hurrying = False
        self._producer = Producer(
            producer_config(
                brokers,
                {"queue.buffering.max.messages": 50_000, "delivery.timeout.ms": 600_000, "linger.ms": 5},
            ),
            logger=kafka_logger,
        )

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: send no more."""
        self.stopping = True

    def hurry(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: send the rest as fast as possible."""
        self.hurrying = True

    def send(self, record: Sent) -> None:
        """Hand a record to the producer, waiting while its queue is full."""
        on_delivery: Callable[[KafkaError | None, Any], None] = partial(self._delivered, record.line)
        while True:
            try:
                self._producer.produce(self._topic, record.value, record.key, on_delivery=on_delivery)
                return
            except BufferError:
                self._producer.poll(0.1)
                if self.stopping:
                    return self._write(record.line, "refused", None, None)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve deliveries."""
        self._producer.poll(timeout_s)
        if time.monotonic() - self._flushed > _FLUSH_EVERY_S:
            self._ledger.flush()
            self._flushed = time.monotonic()

    def settle(self) -> None:
        """Wait for the outcomes of all that was sent; once told to stop, only a moment."""
        while len(self._producer) and not self.stopping:
            self.poll(0.1)
        if len(self._producer):
            self._producer.flush(3)
            self._producer.purge()
            self._producer.flush(3)
        self._ledger.flush()

    def _delivered(self, line: str, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.partitions.add(message.partition())
            offset = message.offset()
            return self._write(line, "acked", message.partition(), -1 if offset is None else offset)
        return self._write(line, "refused" if error.code() in _REFUSED else "unknown", None, None)

    def _write(self, line: str, outcome: str, partition: int | None, offset: int | None) -> None:
        self.outcomes[outcome] += 1
        place = "null" if partition is None else partition, "null" if offset is None else offset
        self._ledger.write(f'{line},"outcome":"{outcome}","partition":{place[0]},"offset":{place[1]}}}\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.load", description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--prefix", required=True, help="prefix of the topics")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--events", type=int, required=True, help="about so many records")
    parser.add_argument("--rate", type=float, default=0, help="records a second until SIGUSR1, 0: no limit")
    parser.add_argument("--ledger", type=Path, required=True, help="file of the ledger, replaced")
    parser.add_argument("--policies", type=Path, default=POLICIES)
    parser.add_argument("--partitions", type=int, default=0, help="close so many partitions at the end (0: none)")
    parser.add_argument("--close-ahead-s", type=float, default=240.0, help="event time of the closing events, from now")
    for name, default in (("duplicates", 0.0), ("poison", 0.0), ("bombs", 0.0), ("garbage", 0.0), ("disorder", 0.0)):
        parser.add_argument(f"--{name}", type=float, default=default, metavar="SHARE")
    args = parser.parse_args(argv)
    mix = Mix(args.duplicates, args.poison, args.bombs, args.garbage, args.disorder)
    traffic = Traffic(args.seed, load_policies(args.policies), mix)
    with args.ledger.open("w") as ledger:
        load = Load(args.brokers, Topics(args.prefix).trace, ledger)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, load.stop)
        signal.signal(signal.SIGUSR1, load.hurry)
        started = time.monotonic()
        sent = _send(load, traffic, args.events, args.rate, started)
        load.settle()
        took, cpu = time.monotonic() - started, time.process_time()
        load.partitions.clear()
        while len(load.partitions) < args.partitions and not load.stopping:
            load.send(traffic.closing(args.close_ahead_s))
            load.settle()
    # One that comes while the interpreter goes down would kill it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    summary = {"seed": args.seed, "records": sent, "took_s": round(took, 3), "cpu_s": round(cpu, 3), **load.outcomes}
    print(json.dumps(summary), flush=True)
    return 0


def _send(load: Load, traffic: Traffic, events: int, rate: float, started: float) -> int:
    sent = 0
    for record in traffic.records(events):
        load.send(record)
        sent += 1
        if sent % _POLL_EVERY == 0:
            load.poll()
        if rate and not load.hurrying:
            # In small runs, as real traffic comes; it catches up after a stall of the broker.
            while (ahead := sent / rate - (time.monotonic() - started)) > 0.005 and not (
                load.stopping or load.hurrying
            ):
                load.poll(min(ahead, 0.1))
        if load.stopping:
            break
    return sent


if __name__ == "__main__":
    sys.exit(main())
