"""The thread that turns events into bytes and hands them to Kafka.

The caller appends a dict to a bounded queue; everything else happens here. When Kafka is away the queue fills, and
then events are dropped and counted: an agent never waits for its telemetry.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from steersman import forks
from steersman.codec import Codec, SchemaIds
from steersman.errors import InvalidRecord
from steersman.finalize import finalize
from steersman.kafka_config import producer_config
from steersman.outlet import MakeProducer, Outlet
from steersman.redaction import Redactor
from steersman.sink import merged
from steersman.throttle import Throttle, logger

Overflow = Literal["drop_oldest", "drop_new"]
_BATCH = 256
_PRODUCER_RETRY_S = 1.0
_SHORT_S, _LONG_S, _IDLE_S = 0.005, 0.1, 0.5
_AWAKE_S = 1.0
"""So long after an event the thread looks for more by itself: being woken costs the caller more than its event does."""


class Encoder(Protocol):
    """The one method of a codec that is used here."""

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Bytes of a record; ValueError when it does not fit."""
        ...


class Sender:
    """Sends trace events to Kafka from a thread of its own, which starts with the first event.

    Parameters
    ----------
    brokers : str
        ``host:port`` list.
    topic : str
        Topic of the trace events.
    registry : SchemaIds, optional
        Schema registry for the framing; none by default.
    max_queue : int
        Most events waiting for the thread; beyond it `overflow` decides.
    overflow : {"drop_oldest", "drop_new"}
        Which event to give up when the queue is full.
    kafka : mapping, optional
        librdkafka settings that win over ours, e.g. TLS and SASL.
    codec : Encoder, optional
        Replaces the trace event codec.
    redactor : Redactor, optional
        Takes secrets and personal data out of the texts, on this thread; they stay as they are without one.
    stall_s : float
        A producer that reports nothing for that long, while it has events, is replaced and its events are sent again;
        the wait doubles with every replacement without effect.
    make_producer : callable, optional
        Replaces confluent-kafka's producer.

    Notes
    -----
    In a forked child the queue starts empty (what was waiting is the parent's to send) and the first event makes a new
    thread and a new producer.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        registry: SchemaIds | None = None,
        max_queue: int = 10_000,
        overflow: Overflow = "drop_oldest",
        kafka: Mapping[str, Any] | None = None,
        codec: Encoder | None = None,
        redactor: Redactor | None = None,
        stall_s: float = 10.0,
        make_producer: MakeProducer | None = None,
    ) -> None:
        if max_queue < 1:
            raise ValueError(f"max_queue must be at least 1, not {max_queue}")
        if overflow not in ("drop_oldest", "drop_new"):
            raise ValueError(f"overflow must be drop_oldest or drop_new, not {overflow!r}")
        self._brokers = brokers
        self._topic = topic
        self._config = producer_config(brokers, kafka)
        self._codec: Encoder = codec if codec is not None else Codec("trace_event", registry=registry)
        self._redactor = redactor
        self._max_queue = max_queue
        self._drop_oldest = overflow == "drop_oldest"
        self._stall_s = stall_s
        self._make_producer = make_producer
        self._closed = False
        self._reset()
        forks.watch(self)

    def _reset(self) -> None:
        """State of a process that has sent nothing yet."""
        # Re-entrant, because a signal handler or a destructor may record an event while this thread holds the lock.
        self._lock = threading.RLock()
        self._queue: deque[dict[str, Any]] = deque()
        self._thread: threading.Thread | None = None
        # A lock that is released to wake the thread: an Event takes twice as long to set, on the caller's thread.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._done = threading.Condition(self._lock)
        self._sleeping = False
        self._stopping = self._closed
        self._remaining = 0
        self._enqueued = 0
        self._sent = 0
        self._dropped: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._warned_full = 0
        self._throttle = Throttle()
        self._outlet = Outlet(
            self._config,
            self._topic,
            finished=self._finish,
            note=self._count_problem,
            throttle=self._throttle,
            keep=self._max_queue,
            stall_s=self._stall_s,
            make_producer=self._make_producer,
        )

    # ---- the caller's side -------------------------------------------------------------------------------------

    def offer(self, record: dict[str, Any]) -> bool:
        """Queue a record; False when it was dropped (and counted). Never blocks, never raises."""
        with self._lock:
            if self._closed:
                self._dropped["closed"] += 1
                return False
            if len(self._queue) >= self._max_queue:
                self._dropped["queue_full"] += 1
                if not self._drop_oldest:
                    return False
                self._queue.popleft()
                self._remaining -= 1
            self._queue.append(record)
            self._enqueued += 1
            self._remaining += 1
            if self._thread is None:
                self._start()
        if self._sleeping:
            self._sleeping = False
            self._ring()
        return True

    def flush(self, timeout_s: float = 5.0) -> int:
        """Wait until every queued event is acknowledged by Kafka or given up; returns how many are not yet."""
        deadline = time.monotonic() + timeout_s
        if self._remaining:
            self._ring()
        with self._done:
            while self._remaining and (left := deadline - time.monotonic()) > 0:
                self._done.wait(left)
            return self._remaining

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush, refuse further events, stop the thread; returns how many events were left."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
        left = self.flush(timeout_s)
        self._stopping = True
        self._outlet.stop()
        self._ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.2, deadline - time.monotonic()))
        return left

    def stats(self) -> dict[str, Any]:
        """Counters since the start of the process (or its fork).

        Returns
        -------
        dict
            ``enqueued``, ``sent`` (acknowledged), ``remaining``, ``dropped`` by reason, ``problems`` by what was wrong
            with values, ``producers`` made.
        """
        with self._lock:
            return {
                "enqueued": self._enqueued,
                "sent": self._sent,
                "remaining": self._remaining,
                "dropped": merged(self._dropped),
                "problems": merged(self._problems),
                "producers": self._outlet.producers,
            }

    def after_fork_in_child(self) -> None:
        """Start over: queue, locks, thread and producer are the parent's."""
        self._outlet.leak()
        self._reset()

    def at_exit(self, timeout_s: float) -> None:
        """Last chance to deliver, when the process ends."""
        if self._thread is None or self._closed:
            return
        if left := self.close(timeout_s):
            logger.warning("%d trace events were not delivered to %s before the process ended", left, self._brokers)

    def _ring(self) -> None:
        """Wake the thread."""
        try:  # noqa: SIM105  # suppress() takes longer than the ringing
            self._bell.release()
        except RuntimeError:
            pass  # somebody has rung already

    def _start(self) -> None:
        """Start the thread; called with the lock held."""
        thread = threading.Thread(target=self._run, name="steersman-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had, or the interpreter is ending: the events stay queued
            self._problems["no_thread"] += 1
            return
        self._thread = thread
        forks.at_end_of_child()

    # ---- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause, before = _SHORT_S, 0
        quiet_at = 0.0
        while not self._stopping:
            try:
                usable = self._outlet.open()
                busy = usable and self._step()
            except Exception as error:  # nothing may end this thread; what happened is counted and said
                usable = busy = False
                self._count_problem(f"sender:{type(error).__name__}")
                self._throttle.warn("the sender of trace events stumbled: %r", error)
            self._warn_if_full()
            if not usable:
                self._bell.acquire(timeout=_PRODUCER_RETRY_S)
                continue
            # While reports are awaited: look often, and less so the longer nothing moves (Kafka is away).
            pause = _SHORT_S if busy or self._remaining != before else min(2 * pause, _LONG_S)
            before = self._remaining
            if busy:
                quiet_at = time.monotonic() + _AWAKE_S
            elif time.monotonic() < quiet_at:
                self._bell.acquire(timeout=_SHORT_S)
            else:
                self._rest(pause if before else _IDLE_S)
        self._outlet.close()

    def _warn_if_full(self) -> None:
        full = self._dropped["queue_full"]
        if full != self._warned_full and self._throttle.warn(
            "the queue of trace events is full (%d): %d events dropped so far. Is Kafka at %s reachable?",
            self._max_queue,
            full,
            self._brokers,
        ):
            self._warned_full = full

    def _rest(self, seconds: float) -> None:
        self._sleeping = True
        if not self._queue and not self._stopping:  # nothing came between looking and sleeping
            self._bell.acquire(timeout=seconds)
        self._sleeping = False

    def _step(self) -> bool:
        """Move what is waiting into the producer and serve its reports; False when there was nothing to do."""
        busy = False
        for _ in range(_BATCH):
            with self._lock:
                record = self._queue.popleft() if self._queue else None
            if record is None or self._stopping:
                break
            busy = True
            self._send(record)
        return not self._outlet.serve() or busy

    def _send(self, record: dict[str, Any]) -> None:
        problems: Counter[str] = Counter()
        try:
            clean = finalize(record, problems, self._redactor)
            self._outlet.produce(clean["trace_id"].encode("ascii"), self._codec.encode(clean), self._warn_if_full)
        except InvalidRecord as error:
            self._finish(f"invalid:{error.reason}")
        except Exception as error:  # a value whose own methods raise; the event is given up, the thread is not
            self._finish("unencodable")
            self._throttle.warn("a trace event could not be encoded and was dropped: %s", error)
        finally:
            if problems:
                with self._lock:
                    self._problems.update(problems)

    def _finish(self, dropped: str | None) -> None:
        with self._done:
            if dropped is None:
                self._sent += 1
            else:
                self._dropped[dropped] += 1
            self._remaining -= 1
            if not self._remaining:
                self._done.notify_all()

    def _count_problem(self, name: str) -> None:
        with self._lock:
            self._problems[name] += 1
