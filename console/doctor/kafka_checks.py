"""Checks of the broker: is it there, are the topics right, may we use them, who reads them and how far are they."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from console.doctor.access_checks import Rights
from console.doctor.finding import Finding, fine, problem, warning
from console.doctor.topic_rules import TopicState, topic_findings
from console.verify.catch_up import end_of
from steersman.errors import SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.kafka_config import client_config, follower_config, group_config, kafka_logger
from steersman.topics import Topics
from streams.access import Role, allowed
from streams.topics import topic_specs

MAX_SKEW_S = 5.0
"""Difference of two clocks that is worth a finding; unit: seconds."""
_TIMEOUT_S = 8.0
_AT_WORK = frozenset(
    {
        ConsumerGroupState.STABLE,
        ConsumerGroupState.PREPARING_REBALANCING,
        ConsumerGroupState.COMPLETING_REBALANCING,
    }
)
_COORDINATOR = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE}
)


class KafkaChecks:
    """Checks of one deployment's broker.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    topics
        Names.
    groups
        (what it is, consumer group, its topics).
    max_lag
        Records that a group may be behind.
    role
        Role of whoever asks: no more is looked at than it may see.
    now_s
        Clock; unit: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        brokers: str,
        topics: Topics,
        groups: Sequence[tuple[str, str, Sequence[str]]],
        max_lag: int,
        role: Role,
        now_s: Any = time.time,
    ) -> None:
        self._brokers = brokers
        self._topics = topics
        self._groups = groups
        self._max_lag = max_lag
        self._now_s = now_s
        self._admin = KafkaAdmin(brokers)
        self._role = role
        self._rights = Rights(self._admin, brokers, role)
        self._found: dict[str, TopicState] = {}

    def run(self, *, probe: bool) -> Iterator[Finding]:
        """Look at everything; with `probe` also write to a topic that is made for it and deleted again."""
        try:
            metadata = self._admin.list_topics(timeout=4.0)
        except KafkaException as error:
            why = self._admin.unreachable(
                "start it ('steersman up' runs a local one), or correct --brokers or STEERSMAN_BROKERS"
            )
            yield problem("kafka.reachable", f"no broker answers at {self._brokers} ({error.args[0].str()})", why.hint)
            return
        count = len(metadata.brokers)
        yield fine("kafka.reachable", f"{self._brokers}: {count} brokers, {len(metadata.topics)} topics")
        specs = [spec for spec in topic_specs(self._topics, 1) if self._may(spec.name)]
        lacking = list(self._rights.topics([spec.name for spec in specs]))
        specs = [spec for spec in specs if spec.name not in self._rights.hidden]
        configs: dict[str, dict[str, str]] = {}
        present = [spec.name for spec in specs if spec.name in metadata.topics]
        try:
            configs = self._configs([name for name in present if "DESCRIBE_CONFIGS" in self._may(name)])
        except KafkaException as error:
            yield warning(
                "topic.config",
                f"the broker does not tell the topics' settings ({error.args[0].str()})",
                "allow this principal DESCRIBE_CONFIGS on the topics of the prefix",
            )
        for name, topic in metadata.topics.items():
            parts = list(topic.partitions.values())
            self._found[name] = TopicState(
                len(parts),
                min((len(p.replicas) for p in parts), default=0),
                min((len(p.isrs) for p in parts), default=0),
                sum(p.leader < 0 for p in parts),
                configs.get(name, {}),
            )
        wrong = list(topic_findings(specs, self._found, self._topics, self._brokers, count))
        yield from wrong or [
            fine("topic.config", f"{len(specs)} topics of {self._topics.prefix} are as they should be")
        ]
        yield from lacking
        yield from self._rights.others()
        for what, group, names in self._groups:
            if allowed(self._role, "GROUP", group):
                yield from self._group(what, group, [name for name in names if name in self._found])
        yield from self._newest()
        if probe:
            yield from self._probe()

    def _may(self, name: str) -> tuple[str, ...]:
        return allowed(self._role, "TOPIC", name)

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        for resource, future in self._admin.describe_configs(resources).items() if resources else ():
            entries = future.result(_TIMEOUT_S)
            found[resource.name] = {key: e.value for key, e in entries.items() if e.value is not None}
        return found

    def _group(self, what: str, group: str, names: Sequence[str]) -> Iterator[Finding]:
        try:
            described = self._admin.describe_consumer_groups([group])[group].result(_TIMEOUT_S)
            members, working = len(described.members), described.state in _AT_WORK
        except (KafkaException, ValueError):
            members, working = 0, False
        consumer = Consumer(
            group_config(self._brokers, group),
            logger=kafka_logger,
        )
        lag = waiting = 0
        started = False
        try:
            places = [TopicPartition(name, p) for name in names for p in range(self._found[name].partitions)]
            ends: dict[str, Mapping[int, int]] = {}
            for place in _committed(consumer, places):
                low, high = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
                if place.offset > high:  # the embedded broker names an end that is up to one batch too low
                    ends.setdefault(place.topic, _ends(self._brokers, place.topic))
                    high = max(high, ends[place.topic].get(place.partition, 0))
                where = f"{place.topic}[{place.partition}]"
                started = started or place.offset >= 0
                if place.offset > high:
                    yield problem(
                        "group.offset",
                        f"group {group} has committed {place.offset} of {where}, which ends at {high}: the topic was made anew",
                        f"stop the {what}, delete the group (kafka-consumer-groups.sh --delete --group {group}), start again",
                    )
                elif 0 <= place.offset < low:
                    yield problem(
                        "group.offset",
                        f"group {group} is at {place.offset} of {where}, which begins at {low}: {low - place.offset} records are lost to it",
                        f"start the {what} (it goes on at {low}), and raise retention.ms of {place.topic} or add workers",
                    )
                waiting += max(0, high - low)
                lag += max(0, high - max(place.offset, low))
        except KafkaException as error:
            yield problem(
                "group.lag",
                f"the offsets of group {group} cannot be read ({error.args[0].str()})",
                f"allow this principal DESCRIBE on group {group}",
            )
            return
        finally:
            consumer.close()
        # The embedded broker says that a group is at work, and names none of its members.
        who = "members at work" if working and not members else f"{members} members"
        idle = not (members or working)
        state = f"{what} (group {group}): {who}, {lag} records behind"
        if idle and lag > 0:
            yield problem("group.members", f"{state}: nobody works on them", f"start the {what}")
        elif idle:
            yield warning("group.members", f"{state}{'' if started else ', and it never ran'}", f"start the {what}")
        elif lag > self._max_lag:
            fix = f"look at its log and /readyz; add another {what}, or raise --max-lag"
            yield problem("group.lag", f"{state}; at most {self._max_lag} are expected", fix)
        else:
            yield fine("group.lag", state)

    def _newest(self) -> Iterator[Finding]:
        """Whether records come from the future: then a producer's clock, or ours, is wrong."""
        name = self._topics.trace
        if name not in self._found or "READ" not in self._may(name):
            return
        consumer = Consumer(follower_config(self._brokers), logger=kafka_logger)
        try:
            newest = 0
            for p in range(self._found[name].partitions):
                low, high = consumer.get_watermark_offsets(TopicPartition(name, p), timeout=_TIMEOUT_S)
                if high <= low:
                    continue
                consumer.assign([TopicPartition(name, p, high - 1)])
                message = consumer.poll(_TIMEOUT_S)
                if message is not None and message.error() is None:
                    newest = max(newest, message.timestamp()[1])
        except KafkaException:
            return  # said by the checks before
        finally:
            consumer.close()
        ahead_s = newest / 1000 - self._now_s()
        if ahead_s > MAX_SKEW_S:
            yield problem(
                "clock.producers",
                f"the newest record of {name} has a timestamp {ahead_s:.0f} s in the future",
                "set the clocks (chrony, systemd-timesyncd) of the producers, or of this machine",
            )

    def _probe(self) -> Iterator[Finding]:
        """Write a record to a topic of its own whose timestamps the broker sets."""
        name = f"{self._topics.prefix}.doctor.{time.time_ns()}"
        producer = Producer(client_config(self._brokers, {"delivery.timeout.ms": 8000, "log_level": 0}))
        stamps: list[float] = []
        try:
            config = {"message.timestamp.type": "LogAppendTime"}
            new = NewTopic(name, num_partitions=1, replication_factor=-1, config=config)
            self._admin.create_topics([new])[name].result(_TIMEOUT_S)
            for _ in range(2):  # the first one also waits for the leader
                before = self._now_s()
                producer.produce(
                    name,
                    b"",
                    on_delivery=lambda e, m: None if e is not None else stamps.append(m.timestamp()[1] / 1000),
                )
                producer.flush(_TIMEOUT_S)
                after = self._now_s()
        except KafkaException as error:
            yield problem(
                "kafka.write", f"a topic cannot be made and written ({error.args[0].str()})",
                "allow this principal CREATE, WRITE and DELETE on topics of the prefix, or leave out --probe",
            )  # fmt: skip
            return
        finally:
            self._admin.delete_topics([name])[name].exception(_TIMEOUT_S)
        if len(stamps) < 2:
            yield problem("kafka.write", f"{name} took no record", "look at the broker's log")
            return
        yield fine("kafka.write", "a topic was made, written and deleted")
        yield skew("clock.broker", "the broker's clock", stamps[-1], before, after)


def _committed(consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    """Ask for committed offsets, again while a broker that has just started looks for the group's coordinator."""
    deadline = time.monotonic() + _TIMEOUT_S
    while places:
        try:
            return consumer.committed(places, timeout=_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    return []


def _ends(brokers: str, topic: str) -> Mapping[int, int]:
    """Where the partitions of a topic end, found by reading; none where it may not be read."""
    try:
        return end_of(brokers, topic)[0]
    except SteersmanError:
        return {}


def skew(check: str, whose: str, theirs_s: float, before_s: float, after_s: float) -> Finding:
    """Compare a clock with ours, read before and after it; unit: seconds since 1970-01-01 UTC."""
    off = theirs_s - after_s if theirs_s > after_s else min(0.0, theirs_s - before_s)
    said = f"{whose} is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} this machine's"
    if abs(off) > MAX_SKEW_S:
        return problem(
            check, said, "set both clocks by NTP (chrony, systemd-timesyncd): windows and retention go by them"
        )
    return fine(check, said)
