"""Kafka to ClickHouse: one consumer for all topics, one writer per table."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import structlog
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from serving.health import Health
from serving.lag import LagBook
from sinks.clickhouse import connect
from sinks.dead_letters import DeadLetters
from sinks.folding import FoldLoop
from sinks.inserter import Inserter
from sinks.intake import Intake
from sinks.metrics import SinkMetrics
from sinks.migrations import migrate
from sinks.settings import SinkSettings
from sinks.tables import tables
from sinks.writer import Backoff, Writer
from sinks.writers import Writers
from steersman.errors import ConfigError, Unreachable
from steersman.fault_points import reach
from steersman.kafka_config import CONSUMER_LIMITS, client_config, kafka_logger
from steersman.registry import Registry
from steersman.topics import Topics

log = structlog.get_logger("steersman.sink")

_POLL_S = 0.05
# Messages. A table has two batches at most, each with up to `flush_rows` and one poll more: the bound of memory while
# ClickHouse is slow or away.
_MAX_POLL = 5_000
_MEASURE_S = 1.0
# Seconds after the last failed attempt to reach any broker; the client makes one every ten at least.
_AWAY_S = 30.0
_REPORT_S = 10.0
# More than an insert under way, and a commit, take where all is well; less than supervisors wait before they kill.
_LEAVE_S = 30.0
LEAVING = "leave"
"""Name of the thread that leaves the group; alive at the end only where Kafka does not answer."""


class Sink:
    """The sink process.

    An offset is stored for commit only once the rows up to it are in ClickHouse and the dead letters up to it in Kafka.
    Inserts have a thread of their own (`sinks.inserter`); all else, every call of the consumer included, is done on the
    thread of `run`, which polls Kafka while ClickHouse works, or hangs.

    Parameters
    ----------
    settings
        What to read and where to write.
    clock
        Monotonic time; unit: seconds.

    Attributes
    ----------
    metrics, health
        What the endpoint for operators shows.
    """

    def __init__(self, settings: SinkSettings, clock: Callable[[], float] = time.monotonic):
        topics = Topics(settings.topic_prefix)
        registry = Registry(settings.registry_url, topics=topics) if settings.registry_url else None
        rng = random.Random()  # noqa: S311
        self._settings = settings
        self._clock = clock
        self._stopping = False
        self.metrics, self.health = SinkMetrics(), Health(stall_s=settings.stall_s)
        dead_letters = DeadLetters(settings.brokers, topics.dead_letter)
        self.writers = {
            table.topic: Writer(
                table,
                Backoff(rng, max_s=settings.sink_retry_max_s),
                dead_letters.send,
                flush_s=settings.sink_flush_s,
                flush_rows=settings.sink_flush_rows,
                flush_bytes=settings.sink_flush_mib << 20,
                timed=self.metrics.insert_seconds.labels(table.name).observe,
            )
            for table in tables(topics, registry)
        }
        self._first_partition, self._first_is_mine = (topics.trace, 0), False
        self._inserter = Inserter(self._connect, background=not self._in_process)
        self._writers = Writers(self.writers, self._inserter, self._stored, clock)
        self._paused: set[str] = set()
        self._kafka_away_at = float("-inf")
        config = {**_consumer_config(settings), "error_cb": self._on_error}
        self._consumer: Any = Consumer(config, logger=kafka_logger)
        self._lag = LagBook(self._consumer, self.metrics.lag)
        self._intake = Intake(self._consumer, settings.brokers, self._writers.add, {topics.trace, topics.reward})
        self._assigned_once = False
        self.health.check(self._unready)

    def stop(self) -> None:
        """Ask `run` to write what it has and return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Read and write until `stop`.

        Raises
        ------
        Unreachable
            Kafka or ClickHouse does not answer at the start. Later outages are waited out.
        ConfigError
            The tables are not there.
        """
        reported = measured = self._clock()
        folding: FoldLoop | None = None
        try:
            self._check()
            self._consumer.subscribe(
                list(self.writers), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            folding = self._fold()
            while not self._stopping:
                self.turn()
                now = self._clock()
                if now - measured >= _MEASURE_S:
                    measured = now
                    self._measure()
                if now - reported >= _REPORT_S:
                    reported = now
                    log.info("sink", **self.stats())
            self._writers.drain(self.writers)
        finally:
            if folding is not None:
                folding.stop()
            self.leave()
            self._inserter.stop()
        log.info("sink_stopped", **self.stats())

    def leave(self, longest_s: float = _LEAVE_S) -> bool:
        """Commit the offsets stored and leave the group, in some seconds or not at all; returns whether it has.

        librdkafka waits for a broker that has gone silent, and offers no limit. A group gets over a member that just stops, and
        what was not committed is read again, and stored once.
        """
        left: Future[None] = Future()

        def close() -> None:
            try:
                left.set_result(self._consumer.close())
            except Exception as e:
                left.set_exception(e)

        threading.Thread(target=close, name=LEAVING, daemon=True).start()
        try:
            left.result(longest_s)
        except TimeoutError:
            log.warning("group_not_left", brokers=self._settings.brokers, waited_s=longest_s)
            return False
        return True

    def turn(self) -> None:
        """Read what there is, and see to the inserts; waits for Kafka a little, and for no insert."""
        self._intake.take_all(self._consumer.consume(_MAX_POLL, _POLL_S))
        self._writers.turn()
        self._hold_back()

    def stats(self) -> dict[str, dict[str, int]]:
        """Counts by table: rows, inserts, rejected, skipped, waiting; failed_attempts, code_<ClickHouse's>, halved."""
        return {
            w.table.name: {**w.counters, "waiting": w.waiting} for w in self.writers.values() if w.counters or w.waiting
        }

    def _fold(self) -> FoldLoop | None:
        """Fold in the background; of several sinks the one that has the first partition of the events does."""
        every_s = self._settings.sink_fold_every_s
        if not every_s or self._in_process:
            return None
        loop = FoldLoop(
            self._settings.clickhouse_url,
            every_s=every_s,
            settle_s=self._settings.sink_fold_settle_s,
            mine=lambda: self._first_is_mine,
            tell=self.metrics.folded,
        )
        loop.start()
        return loop

    def _check(self) -> None:
        try:
            self._consumer.list_topics(timeout=10)
        except KafkaException as e:
            raise Unreachable(f"Kafka at {self._settings.brokers}", "start it, or set STEERSMAN_BROKERS") from e
        with closing(self._connect()) as client:
            if migrate(client, dry_run=True, ahead=True):
                raise ConfigError("the tables of this version are not there: run 'python -m sinks migrate'")

    def _hold_back(self) -> None:
        """Read only the topics whose tables have room."""
        full = self._writers.full
        if full != self._paused:
            mine = self._consumer.assignment()
            self._consumer.pause([tp for tp in mine if tp.topic in full - self._paused])
            self._consumer.resume([tp for tp in mine if tp.topic in self._paused - full])
            self._paused = full

    def _measure(self) -> None:
        self.metrics.update(self.writers.values())
        away = any(writer.last_error for writer in self.writers.values())
        self.health.beat(lag=self._lag.measure(), done=self._lag.commits, outage=away)

    def _unready(self) -> str | None:
        """Return why rows do not get into the tables; asked on the threads of the endpoint."""
        for writer in self.writers.values():
            if error := writer.last_error:
                return f"table {writer.table.name} waits for ClickHouse: {error}"
        if not self._assigned_once:
            return "the group has not assigned partitions yet"
        # Not asked here: on the consumer's connection an answer waits behind its fetches.
        if time.monotonic() - self._kafka_away_at < _AWAY_S:
            return f"Kafka at {self._settings.brokers} does not answer"
        return None

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._kafka_away_at = time.monotonic()

    def _stored(self, topic: str, positions: dict[int, int]) -> None:
        self._lag.committed(topic, positions)
        for partition, offset in positions.items():
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset)])
            except KafkaException as e:
                # The partition went to another member meanwhile. It reads these messages again, and the tables keep
                # one row of each.
                log.warning("offset_not_stored", topic=topic, partition=partition, offset=offset, error=str(e))
        reach("sink.offsets_stored")

    @property
    def _in_process(self) -> bool:
        """Whether ClickHouse is in this process, where data have one connection."""
        return self._settings.clickhouse_url.startswith("chdb:")

    def _connect(self) -> Any:
        return connect(self._settings.clickhouse_url)

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._assigned_once = True
        self._first_is_mine |= self._first_partition in {(tp.topic, tp.partition) for tp in partitions}
        log.info("assigned", partitions=[f"{tp.topic}/{tp.partition}" for tp in partitions])
        for tp in partitions:
            # Records of a partition that has left may have been taken after it had: where it begins now is no gap behind them.
            self._intake.forget(tp.topic, tp.partition)
        full = self._writers.full
        consumer.assign(
            [
                TopicPartition(tp.topic, tp.partition, tp.offset if tp.offset >= 0 else OFFSET_INVALID)
                for tp in partitions
            ]
        )
        # A pause outlives the assignment: what was paused before the partitions went away still is.
        consumer.resume([tp for tp in partitions if tp.topic not in full])
        consumer.pause([tp for tp in partitions if tp.topic in full])
        self._paused = full

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._writers.drain({tp.topic for tp in partitions})
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as e:
            if e.args[0].code() != KafkaError._NO_OFFSET:
                log.warning("commit_failed", error=str(e))
        self._lost(consumer, partitions)

    def _lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._lag.revoked((tp.topic, tp.partition) for tp in partitions)
        self._first_is_mine &= self._first_partition not in {(tp.topic, tp.partition) for tp in partitions}
        for tp in partitions:
            self._writers.drop(tp.topic, tp.partition)
            self._intake.forget(tp.topic, tp.partition)
        log.info("revoked", partitions=[f"{tp.topic}/{tp.partition}" for tp in partitions])


def _consumer_config(settings: SinkSettings) -> dict[str, Any]:
    return {
        **client_config(settings.brokers),
        **CONSUMER_LIMITS,
        "group.id": settings.group,
        "client.id": "steersman-sink",
        **({"group.instance.id": settings.group_instance_id} if settings.group_instance_id else {}),
        "auto.offset.reset": "earliest",
        # Stored by hand once the rows are in ClickHouse; what is stored is committed in the background.
        "enable.auto.offset.store": False,
        "enable.auto.commit": True,
        "auto.commit.interval.ms": 500,
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 10_000,
        "queued.min.messages": 20_000,
        # Rows wait for their insert anyway: few full fetches are cheaper for everybody.
        "fetch.wait.max.ms": 250,
        "fetch.min.bytes": 262_144,
        # The shortest that Kafka's default allows. A thread of the client's own sends the heartbeats, so a slow insert
        # does not matter; and the embedded broker lets a new member wait for half of it.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
        "max.poll.interval.ms": 300_000,
    }
