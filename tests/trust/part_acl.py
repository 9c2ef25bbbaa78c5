"""Every kind of client tries everything on an Apache Kafka that allows only what `streams.access` says.

What each may do is written down here a second time, by hand: the table must not be its own judge. Everybody, and a stranger
with a password and no right at all, tries to write and read every topic, to commit offsets of every group, to make, change and
delete topics, to delete groups, and to see and change ACLs. An answer that is neither yes nor no counts as a failure.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from console.acl import create
from steersman.errors import SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.kafka_config import FOLLOWERS, client_config
from steersman.kafka_security import PREFIX, kafka_security
from steersman.topics import Topics
from streams.access import Grant, grants, principals, roles
from streams.topics import create_topics
from tests.trust.part import Found, Say
from tests.trust.secured_kafka import SecuredKafka

OTLP = "otlp"
TOPICS = ("trace", "reward", "rollup", "alert", "policy", "control", "shard", "dead_letter", "audit", "state", OTLP)
GROUPS = ("streams", "sink", "doors")
STRANGER = "stranger"
BAR = 60
"""Fewest expectations of a release."""


@dataclass(frozen=True)
class May:
    """What a role may do, by short names."""

    write: str = ""
    read: str = ""
    groups: str = ""
    manage: bool = False


EXPECTED: Mapping[str, May] = {
    "agent": May("trace", "policy"),
    "worker": May(
        "trace reward rollup policy control shard alert audit dead_letter state",
        "trace reward policy control shard state",
        "streams",
    ),
    "processor": May("trace reward rollup alert audit dead_letter state", "trace state", "streams"),
    "learner": May(
        "policy control shard alert audit dead_letter state", "reward policy control shard state", "streams"
    ),
    "sink": May("dead_letter", "trace reward rollup alert policy control audit dead_letter", "sink"),
    "door": May("trace dead_letter", OTLP, "doors"),
    "page": May("control", "policy control"),
    "operator": May(" ".join(TOPICS), " ".join(TOPICS), " ".join(GROUPS), manage=True),
    "collector": May(OTLP),
    "registry": May(),
    STRANGER: May(),
}
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_WAIT_S = 20.0


@dataclass(frozen=True)
class Tried:
    """One expectation: who tried what on what, what should have come of it, and what did (None: yes, else the error)."""

    role: str
    what: str
    on: str
    allowed: bool
    answer: KafkaError | str | None

    @property
    def held(self) -> bool:
        """Whether it came out as it should."""
        if self.allowed:
            return self.answer is None
        return isinstance(self.answer, KafkaError) and self.answer.code() in _REFUSED

    def __str__(self) -> str:
        said = self.answer.name() if isinstance(self.answer, KafkaError) else self.answer or "done"
        return f"{self.role} {self.what} {self.on}: {said}, should be {'allowed' if self.allowed else 'refused'}"


def run(quick: bool, seed: int, say: Say) -> Found:
    """Start a broker, create the ACLs, and let everybody try everything; size and seed change nothing."""
    with tempfile.TemporaryDirectory(prefix="acl-") as folder, SecuredKafka(Path(folder), list(EXPECTED)) as kafka:
        topics = Topics("trial")
        grant(kafka, topics)
        return found(attack(kafka, topics), say)


def found(tried: list[Tried], say: Say) -> Found:
    """Say what came of it."""
    failures = [one for one in tried if not one.held]
    problems = [str(one) for one in failures]
    if len(tried) < BAR:
        problems.append(f"{len(tried)} expectations, {BAR} are wanted")
    refused = sum(not one.allowed for one in tried)
    say(f"acl: {len(tried)} tried, {refused} of them to be refused; {len(failures)} came out otherwise")
    detail = {role: sum(one.role == role for one in tried) for role in EXPECTED}
    totals = {"acl_checks": len(tried), "acl_refusals": refused, "acl_failures": len(failures)}
    return Found(totals, problems[:20], {"by_role": detail})


def grant(kafka: SecuredKafka, topics: Topics) -> None:
    """Create topics and ACLs of a prefix as the super user."""
    create_topics(kafka.plain, topics, 1)
    admin = KafkaAdmin(kafka.plain)  # must outlive its futures
    otlp = f"{topics.prefix}-otlp"
    [made] = admin.create_topics([NewTopic(otlp, num_partitions=1, replication_factor=1)]).values()
    made.result(_WAIT_S)
    table = roles(topics, otlp_topic=otlp)
    wanted = grants(list(table.values()), principals(table, ()))
    create(admin, wanted)


def attack(kafka: SecuredKafka, topics: Topics, who: Iterable[str] = EXPECTED) -> list[Tried]:
    """Let everybody, or some, try everything under a prefix whose topics and ACLs `grant` has made."""
    names = {short: getattr(topics, short) for short in TOPICS if short != OTLP} | {OTLP: f"{topics.prefix}-otlp"}
    first = Producer({"bootstrap.servers": kafka.plain, "log_level": 0})
    for name in names.values():
        first.produce(name, b"something to read", b"key")  # compacted topics want a key
    if left := first.flush(_WAIT_S):
        raise SteersmanError(f"{left} records were not written")
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda role: _Client(kafka, role, topics, names).tries(EXPECTED[role]), who)
        return [one for tried in together for one in tried]


class _Client:
    """One role's producer, consumer and admin client, by SCRAM over TLS."""

    def __init__(self, kafka: SecuredKafka, role: str, topics: Topics, names: Mapping[str, str]) -> None:
        env = kafka.env(role)
        brokers = env.pop("STEERSMAN_BROKERS")
        given = {name.removeprefix(PREFIX).lower(): value for name, value in env.items()}
        security = kafka_security(brokers, given)
        self._config = client_config(brokers, {"log_level": 0}, security)
        self._role, self._topics, self._names = role, topics, names
        self._admin = KafkaAdmin(brokers, security=security)

    def tries(self, may: May) -> list[Tried]:
        """Try everything."""
        return [
            *self._writes(may.write.split()),
            *self._reads(may),
            *self._groups(may),
            *self._manages(may),
        ]

    def _one(self, what: str, on: str, allowed: bool, answer: KafkaError | str | None) -> Tried:
        return Tried(self._role, what, on, allowed, answer)

    def _writes(self, allowed: list[str]) -> Iterator[Tried]:
        # Who may write nothing is refused by an idempotent producer before the topic is looked at.
        producer = Producer({**self._config, "enable.idempotence": bool(allowed), "partitioner": "murmur2_random"})
        answers: dict[str, KafkaError | str | None] = dict.fromkeys(self._names.values(), "no answer")
        for name in answers:
            producer.produce(
                name, b"x", b"key", on_delivery=lambda error, message: answers.update({message.topic(): error})
            )
        producer.flush(_WAIT_S)
        for short, name in self._names.items():
            yield self._one("writes", short, short in allowed, answers[name])

    def _reads(self, may: May) -> Iterator[Tried]:
        allowed = may.read.split()
        own = next((f"{self._topics.prefix}-{group}" for group in may.groups.split()), f"{FOLLOWERS}{self._role}")
        consumer = Consumer({**self._config, "group.id": own, "enable.auto.commit": False})
        # Of a topic that may not even be seen, only metadata say so: a consumer waits for it to come.
        seen = {name: consumer.list_topics(name, timeout=_WAIT_S).topics[name].error for name in self._names.values()}
        answers: dict[str, KafkaError | str | None] = {name: error for name, error in seen.items() if error is not None}
        consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING) for name in seen.keys() - answers.keys()])
        deadline = time.monotonic() + _WAIT_S
        while len(answers) < len(self._names) and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and (topic := message.topic()):
                answers.setdefault(topic, message.error())
        consumer.close()
        for short, name in self._names.items():
            yield self._one("reads", short, short in allowed, answers.get(name, "no answer"))

    def _groups(self, may: May) -> Iterator[Tried]:
        readable = next(iter(may.read.split()), "trace")
        for group in GROUPS:
            name = f"{self._topics.prefix}-{group}"
            place = TopicPartition(self._names[readable], 0, 0)
            committed = self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(name, [place])])
            yield self._one("commits for", group, group in may.groups.split(), _answer(committed[name].result))

    def _manages(self, may: May) -> Iterator[Tried]:
        admin, new = self._admin, f"{self._topics.prefix}.new-{self._role}.v1"

        def tried(what: str, on: str, call: Callable[[], Any], allowed: bool = may.manage) -> Tried:
            return self._one(what, on, allowed, _answer(call))

        wanted = NewTopic(new, num_partitions=1, replication_factor=1)
        yield tried("makes", "a topic", lambda: _only(admin.create_topics([wanted])))
        entry = ConfigEntry("retention.ms", "604800000", incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ConfigResource.Type.TOPIC, self._topics.policy, incremental_configs=[entry])
        yield tried("changes", "the policy topic", lambda: _only(admin.incremental_alter_configs([change])))
        doomed = new if may.manage else self._topics.policy
        yield tried("deletes", "a topic", lambda: _only(admin.delete_topics([doomed])))
        yield tried("deletes", "a group", lambda: _unless_absent(admin, f"{self._topics.prefix}-sink"))
        yield tried("sees", "ACLs", lambda: _sees_acls(admin))
        yield tried("makes", "an ACL", lambda: _makes_acl(admin, self._role), allowed=False)


def _sees_acls(admin: KafkaAdmin) -> None:
    """Ask for the ACLs, of which there are some: librdkafka makes of a refusal an empty list."""
    anything: Any = None
    every = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, anything, anything, AclOperation.ANY, AclPermissionType.ANY
    )
    if not admin.describe_acls(every).result(_WAIT_S):
        raise KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED))


def _makes_acl(admin: KafkaAdmin, role: str) -> None:
    """Try to give oneself the right to write policies of every deployment."""
    try:
        create(admin, [Grant(f"User:{role}", "TOPIC", "trial.policy.v1", "LITERAL", "ALL")])
    except SteersmanError as error:
        raise error.__cause__ or error from None


def _unless_absent(admin: KafkaAdmin, group: str) -> None:
    try:
        _only(admin.delete_consumer_groups([group]))
    except KafkaException as error:
        # The right is looked at first: a group that is not there, or whose offsets another client deleted just now.
        if error.args[0].code() not in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP):
            raise


def _only(futures: Mapping[Any, Any]) -> Any:
    [future] = futures.values()
    return future.result(_WAIT_S)


def _answer(call: Callable[[], Any]) -> KafkaError | str | None:
    try:
        done = call()
    except KafkaException as error:
        return error.args[0] if isinstance(error.args[0], KafkaError) else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    # Offsets are refused one by one.
    refused = [tp.error for tp in getattr(done, "topic_partitions", None) or () if tp.error is not None]
    return refused[0] if refused else None
