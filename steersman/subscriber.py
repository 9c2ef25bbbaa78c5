"""Keeps a process's copy of the policies current, from the compacted policy topic."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from steersman import forks
from steersman.bad_batch import end_of_batch, is_bad, why
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.codec import SchemaIds
from steersman.headers import headers_of
from steersman.held import Held
from steersman.kafka_config import brokers_from_env, follower_config, kafka_logger
from steersman.policy_book import OnChange, PolicyBook
from steersman.policy_cache import PolicyCache
from steersman.policy_guard import PolicyGuard
from steersman.registry import from_environment
from steersman.signing import SignatureMode, verifier_for
from steersman.sink import merged
from steersman.throttle import Throttle
from steersman.topics import Topics
from steersman.watermarks import ask_watermarks

_POLL_S = 0.1
_ASK_TIMEOUT_S, _STEP_S = 5.0, 0.5
_CHORES_EVERY_US = 1_000_000
_RETRY_S = 0.5
_RESTART = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._FATAL}
)


class PolicySubscriber:
    """Follows the policy topic and holds the newest good snapshot of every policy of a tenant.

    At `start` the copies on disk are loaded; then a thread reads the whole topic up to where it ended at that moment
    (from then on `ready`), and goes on following it. Of a policy the highest (epoch, version) is held; a bad record, one
    without a good signature where keys are configured, and a bare tombstone change nothing and are counted. Without Kafka the copies stay in use; the thread keeps trying.

    Parameters
    ----------
    brokers : str, optional
        ``host:port`` list; ``STEERSMAN_BROKERS`` or ``127.0.0.1:9092`` when not given.
    policies : collection of str, optional
        Names of the policies this service asks; records of others are passed over undecoded. All when not given.
    topics : Topics, optional
        Topic names; the prefix of ``STEERSMAN_TOPIC_PREFIX`` or ``steersman`` when not given.
    tenant : str, optional
        Whose policies; ``STEERSMAN_TENANT`` or ``default`` when not given.
    cache_dir : Path, optional
        Folder of the copies on disk; none are kept when not given.
    registry : SchemaIds, optional
        Schema registry, needed only to read records written with one; that of ``STEERSMAN_REGISTRY_URL`` when not given.
    kafka : mapping, optional
        librdkafka settings that win over ours; TLS and SASL come from ``STEERSMAN_KAFKA_*`` (`steersman.kafka_security`).
    fetch_wait_ms : int
        Longest wait of a broker before it answers an empty fetch.
    confirm_every_s : float
        How often to ask Kafka whether the copies are still the newest; see `age_s`.
    policy_keys : sequence of Path, optional
        Files with the Ed25519 public keys whose signature makes a policy good, two of them while keys are changed;
        ``STEERSMAN_POLICY_KEYS`` (comma-separated) when not given. Needs ``steersman[signed]``.
    signatures : {"require", "warn", "off"}, optional
        What to do about a policy, from Kafka or from disk, without a good signature: refuse it, follow it and say so, or
        not even look. ``STEERSMAN_POLICY_SIGNATURES`` when not given, or else ``require`` as soon as there are keys.
    guard : PolicyGuard, optional
        What this service does not let a policy do, whoever signed it.
    clock : Clock
        Source of time.

    Raises
    ------
    ConfigError
        When a key, the registry or a setting ``STEERSMAN_KAFKA_*`` cannot be used, or signatures are asked for without keys.
    """

    def __init__(
        self,
        brokers: str | None = None,
        *,
        policies: Collection[str] | None = None,
        topics: Topics | None = None,
        tenant: str | None = None,
        cache_dir: Path | None = None,
        registry: SchemaIds | None = None,
        kafka: Mapping[str, Any] | None = None,
        fetch_wait_ms: int = 50,
        confirm_every_s: float = 30.0,
        policy_keys: Sequence[Path] | None = None,
        signatures: SignatureMode | None = None,
        guard: PolicyGuard | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._brokers = brokers_from_env(brokers)
        topics = topics or Topics(os.environ.get("STEERSMAN_TOPIC_PREFIX") or "steersman")
        self._topic = topics.policy
        self.tenant = tenant or os.environ.get("STEERSMAN_TENANT") or "default"
        self._config = follower_config(self._brokers, kafka, fetch_wait_ms)
        self._clock = clock
        self._confirm_every_us = int(confirm_every_s * 1e6)
        self._throttle = Throttle(clock=clock)
        cache = PolicyCache(cache_dir, self.tenant) if cache_dir is not None else None
        verifier = verifier_for(self._topic, policy_keys, signatures)
        registry = from_environment(topics) if registry is None else registry
        self._book = PolicyBook(self.tenant, policies, cache, registry, clock, self._throttle, verifier, guard)
        self._counts = self._book.counts
        self._confirmed_us = 0
        self._started = False
        self._closed = False
        self._reset()
        forks.watch(self)

    def _reset(self) -> None:
        """State of a process without a thread."""
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._throttle.reset()
        self._thread: threading.Thread | None = None
        self._consumer: Consumer | None = None
        self._behind = False
        self._chores_us = 0
        self._next_confirm_us = 0
        self._orphaned = False

    def start(self) -> PolicySubscriber:
        """Load the copies on disk and start to follow the topic; returns itself. Does nothing the second time."""
        with self._lock:
            if self._started or self._closed:
                return self
            self._started = True
        self._book.load()
        self._launch()
        return self

    def wait_ready(self, timeout_s: float = 10.0) -> bool:
        """Wait until the topic has been read to where it ended at the start; False when that takes longer."""
        if self._orphaned:
            self._adopt()
        return self._ready.wait(timeout_s)

    @property
    def ready(self) -> bool:
        """Whether the topic has been read to where it ended at the start."""
        return self._ready.is_set()

    def get(self, policy: str) -> Held | None:
        """The newest good snapshot of a policy, or None. A retired one is returned too: see its ``stage``."""
        if self._orphaned:
            self._adopt()
        return self._book.get(policy)

    def age_s(self, policy: str) -> float | None:
        """Seconds since a policy was last known to be the current one; None when none is held.

        That is when it came, or later: every `confirm_every_s` Kafka is asked whether anything newer exists. So a
        policy that nobody changes does not age while Kafka can be reached.
        """
        held = self._book.get(policy)
        if held is None:
            return None
        return (self._clock.now_us() - max(held.received_us, self._confirmed_us)) / 1e6

    def on_change(self, callback: OnChange) -> None:
        """Call `callback` with each newly held snapshot, on the subscriber's thread; its exceptions are counted."""
        self._book.callbacks.append(callback)

    def policies(self) -> list[str]:
        """Names of the policies held."""
        return list(self._book.held())

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and what is held.

        Returns
        -------
        dict
            ``ready``, ``counts`` by what happened, and ``policies``: name -> epoch, version, stage and ``age_s``.
        """
        return {
            "ready": self.ready,
            "counts": merged(dict(self._counts)),
            "policies": {
                name: {
                    "epoch": held.snapshot.epoch,
                    "version": held.snapshot.version,
                    "stage": held.snapshot.stage,
                    "age_s": self.age_s(name),
                }
                for name, held in self._book.held().items()
            },
        }

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop following; the policies held stay usable."""
        self._closed = True
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def __enter__(self) -> PolicySubscriber:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def after_fork_in_child(self) -> None:
        """Keep the policies, forget the thread and the consumer; the first `get` starts new ones."""
        if self._consumer is not None:
            forks.leak(self._consumer)
        running = self._thread is not None
        self._book.abandon()
        self._reset()
        self._orphaned = running and not self._closed

    def at_exit(self, timeout_s: float) -> None:
        """Stop in order, so that the last policy is on disk."""
        if self._thread is not None and not self._closed:
            self.close(timeout_s)

    # ---- the thread --------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        with self._lock:
            if not self._orphaned:
                return
            self._orphaned = False
        self._launch()

    def _launch(self) -> None:
        self._thread = threading.Thread(target=self._run, name="steersman-policies", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads to be had: what is held stays in use
            self._thread = None
            self._counts["no_thread"] += 1
            self._throttle.warn("the policy topic is not followed: %s", error)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except KafkaException as error:
                if self._stop.is_set():
                    return
                self._counts[f"kafka:{_name(error.args[0])}"] += 1
                self._throttle.warn(
                    "policies of %s cannot be read from %s: %s", self._topic, self._brokers, error.args[0]
                )
            except Exception as error:  # nothing may end this thread; what happened is counted and said
                self._counts[f"error:{type(error).__name__}"] += 1
                self._throttle.warn("following %s stumbled and starts over: %r", self._topic, error)
            finally:
                self._book.save()
                self._leave()
            self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        """Read the topic from its beginning and stay on it, until told to stop or until it has to be done anew."""
        self._counts["sessions"] += 1
        consumer = self._consumer = Consumer({**self._config, "error_cb": self._on_error}, logger=kafka_logger)
        partitions = self._await_partitions(consumer)
        if not partitions:
            self._counts["no_topic"] += 1
            return
        ends = {p: self._watermark(consumer, p) for p in partitions}
        consumer.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions])
        unread = set(partitions)
        self._book.collect()
        collecting = True
        self._behind = False
        self._next_confirm_us = self._clock.monotonic_us() + self._confirm_every_us
        while not self._stop.is_set():
            message = consumer.poll(_POLL_S)
            if message is not None:
                self._take(message, ends, unread)
            if collecting and not unread:
                collecting = False
                self._book.settle()
                self._confirmed_us = self._clock.now_us()
                self._ready.set()
            now = self._clock.monotonic_us()
            if now >= self._chores_us:
                self._chores_us = now + _CHORES_EVERY_US
                self._book.save()
            if now >= self._next_confirm_us and not unread:
                self._next_confirm_us = now + self._confirm_every_us
                if not self._confirm(consumer, partitions):
                    return

    def _await_partitions(self, consumer: Consumer) -> list[int]:
        """Partitions of the topic, asked for in short steps, so that `close` need not wait for an absent Kafka."""
        deadline = self._clock.monotonic_us() + int(_ASK_TIMEOUT_S * 1e6)
        while True:
            try:
                return self._partitions(consumer, _STEP_S)
            except KafkaException:
                if self._stop.is_set() or self._clock.monotonic_us() >= deadline:
                    raise

    def _partitions(self, consumer: Consumer, timeout_s: float = _ASK_TIMEOUT_S) -> list[int]:
        topic = consumer.list_topics(self._topic, timeout=timeout_s).topics.get(self._topic)
        return [] if topic is None or topic.error is not None else sorted(topic.partitions)

    def _watermark(self, consumer: Consumer, partition: int) -> int:
        return ask_watermarks(consumer, TopicPartition(self._topic, partition), _ASK_TIMEOUT_S)[1]

    def _take(self, message: Message, ends: Mapping[int, int], unread: set[int]) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                unread.discard(partition if partition is not None else -1)
            elif is_bad(error) and self._consumer is not None:
                base, end = end_of_batch(self._config, message)
                self._counts["bad_batch"] += 1
                self._throttle.warn("a batch of %s is passed over: %s", self._topic, why(base, end).decode())
                self._consumer.seek(TopicPartition(self._topic, partition or 0, end))
            elif error.code() in _RESTART or error.fatal():
                raise KafkaException(error)
            else:
                self._counts[f"kafka:{_name(error)}"] += 1
            return
        self._book.read(message.key(), message.value(), headers_of(message))
        if partition is not None and offset is not None and offset + 1 >= ends.get(partition, 0):
            unread.discard(partition)

    def _confirm(self, consumer: Consumer, partitions: list[int]) -> bool:
        """Ask Kafka whether we are at the end of the topic; False when the topic is no longer the one we read."""
        try:
            if self._partitions(consumer) != partitions:
                self._counts["partitions_changed"] += 1
                return False
            behind = False
            for partition in partitions:
                at = consumer.position([TopicPartition(self._topic, partition)])[0].offset
                end = self._watermark(consumer, partition)
                # The embedded broker (Tansu 0.6) answers with the first offset of its last batch; the end that came
                # with the last fetch is right, and is the lower one too where a topic was made anew.
                cached = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
                if at > (end if cached is None else max(end, cached[1])):
                    behind = True
                elif at < end and at >= 0:
                    return True  # more is on its way: not yet confirmed, not wrong either
        except KafkaException as error:
            self._counts[f"kafka:{_name(error.args[0])}"] += 1
            return True
        if behind:
            # The topic ends before where we are: it was made anew (a broker without disk was restarted). Twice in a
            # row, because a broker may report an end that lags a moment.
            again, self._behind = self._behind, True
            self._next_confirm_us = self._clock.monotonic_us() + min(self._confirm_every_us, 1_000_000)
            self._counts["topic_shorter"] += 1
            return not again
        self._behind = False
        self._confirmed_us = self._clock.now_us()
        self._counts["confirmed"] += 1
        self._book.touch(self._confirmed_us)
        return True

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._book.abandon()
        if consumer is not None:
            consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        self._counts[f"kafka:{error.name()}"] += 1
        self._throttle.warn("Kafka at %s: %s", self._brokers, error.str())


def _name(error: object) -> str:
    return error.name() if isinstance(error, KafkaError) else type(error).__name__
