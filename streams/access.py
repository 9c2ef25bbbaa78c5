"""Who may do what in Kafka: one table of least rights, from which ACLs, commands, documentation and the doctor's check come. Pure.

The words are Kafka's: resource types, pattern types and operations as in ``kafka-acls.sh`` (Apache Kafka documentation, section
Authorization and ACLs). READ, WRITE, DELETE and ALTER imply DESCRIBE; ALTER_CONFIGS implies DESCRIBE_CONFIGS. WRITE on a topic
is enough for an idempotent producer (KIP-679). A consumer that is assigned its partitions joins no group, but librdkafka asks for
the coordinator of the group that it has to name, again and again while that is refused: hence DESCRIBE on `FOLLOWERS`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from steersman.errors import ConfigError
from steersman.kafka_config import FOLLOWERS
from steersman.topics import Topics

Resource = Literal["TOPIC", "GROUP", "CLUSTER"]
Pattern = Literal["LITERAL", "PREFIXED"]
CLUSTER: Final = "kafka-cluster"
"""Name of the one resource of type CLUSTER."""
DEFAULT_ROLES: Final = ("agent", "worker", "sink", "door", "page", "operator")
"""Roles of every deployment; the others only where they are processes of their own."""


@dataclass(frozen=True)
class Rule:
    """What one role may do to one resource.

    Attributes
    ----------
    resource, name, pattern
        What it is about; a PREFIXED name stands for all names that begin with it.
    operations
        What is allowed.
    why
        What for.
    """

    resource: Resource
    name: str
    operations: tuple[str, ...]
    why: str
    pattern: Pattern = "LITERAL"


@dataclass(frozen=True)
class Role:
    """One kind of client.

    Attributes
    ----------
    name
        Also the name of its principal, unless told otherwise.
    who
        What runs as it.
    rules
        All that it may do.
    """

    name: str
    who: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Grant:
    """One ACL: a principal may do one thing to one resource, from any host.

    Attributes
    ----------
    principal
        As Kafka names it, e.g. ``User:sink``.
    resource, name, pattern, operation
        As in `Rule`.
    """

    principal: str
    resource: str
    name: str
    pattern: str
    operation: str


def roles(topics: Topics, *, otlp_topic: str = "otlp_spans", sink_group: str | None = None) -> dict[str, Role]:
    """Return every role by its name.

    Parameters
    ----------
    topics
        Names.
    otlp_topic
        Topic of the OpenTelemetry Collector; empty for none.
    sink_group
        Consumer group of the sink; None for the usual one.
    """
    t, prefix = topics, topics.prefix
    sink_group = sink_group or f"{prefix}-sink"
    group = Rule("GROUP", f"{prefix}-streams", ("READ",), "shares the partitions with other workers")
    follows = Rule("GROUP", FOLLOWERS, ("DESCRIBE",), "reads topics without joining a group", "PREFIXED")
    records = "records that cannot be processed"
    common = (
        Rule("TOPIC", t.alert, ("WRITE",), "alerts"),
        Rule("TOPIC", t.audit, ("WRITE",), "its ledger"),
        Rule("TOPIC", t.dead_letter, ("WRITE",), records),
        Rule("TOPIC", t.state, ("READ", "WRITE"), "saves and restores its state"),
        group,
        follows,
    )
    trace = (
        Rule("TOPIC", t.trace, ("READ", "WRITE"), "reads events; writes ticks into idle partitions"),
        Rule("TOPIC", t.reward, ("WRITE",), "rewards"),
        Rule("TOPIC", t.rollup, ("WRITE",), "window aggregates"),
    )
    learn = (
        Rule("TOPIC", t.reward, ("READ",), "learns from rewards"),
        Rule("TOPIC", t.policy, ("READ", "WRITE"), "publishes policies, and looks at what is published"),
        Rule("TOPIC", t.shard, ("READ", "WRITE"), "statistics of policies in shards"),
        Rule("TOPIC", t.control, ("READ", "WRITE"), "obeys the acts of operators, and answers them"),
    )
    seen = "sees that it is there, and how many partitions it has"
    otlp = [Rule("TOPIC", otlp_topic, ("READ", "CREATE"), "spans of the Collector")] if otlp_topic else []
    table = [
        Role(
            "agent",
            "an agent service: tracer, policy subscriber, router, feedback",
            (
                Rule("TOPIC", t.trace, ("WRITE",), "its events and feedback"),
                Rule("TOPIC", t.policy, ("READ",), "policies to decide by"),
                follows,
            ),
        ),
        Role("worker", "a stream worker with both stages, the default", _joined(trace, learn, common)),
        Role(
            "processor",
            "a stream worker with `STEERSMAN_STAGES=trace`",
            (
                *trace,
                Rule("TOPIC", t.policy, ("DESCRIBE",), seen),
                Rule("TOPIC", t.shard, ("DESCRIBE",), seen),
                Rule("TOPIC", t.control, ("DESCRIBE",), seen),
                *common,
            ),
        ),
        Role(
            "learner",
            "a stream worker with `STEERSMAN_STAGES=learn`",
            (*learn, Rule("TOPIC", t.trace, ("DESCRIBE",), seen), *common),
        ),
        Role(
            "sink",
            "Kafka to ClickHouse",
            (
                *(
                    Rule("TOPIC", name, ("READ",), "stores it")
                    for name in (t.trace, t.reward, t.rollup, t.alert, t.policy, t.control, t.audit)
                ),
                Rule("TOPIC", t.dead_letter, ("READ", "WRITE"), f"stores it; {records}"),
                Rule("GROUP", sink_group, ("READ",), "shares the partitions with other sinks"),
            ),
        ),
        Role(
            "door",
            "OTLP and feedback over HTTP, and the Collector's topic",
            (
                Rule("TOPIC", t.trace, ("WRITE",), "events that came in"),
                Rule("TOPIC", t.dead_letter, ("WRITE",), records),
                *otlp,
                Rule("GROUP", f"{prefix}-doors", ("READ",), "shares the Collector's partitions"),
            ),
        ),
        Role(
            "page",
            "the live page",
            (
                Rule("TOPIC", t.policy, ("READ",), "weights of policies"),
                Rule("TOPIC", t.control, ("READ", "WRITE"), "acts of whoever has its token, and what became of them"),
                follows,
            ),
        ),
        Role(
            "operator",
            "whoever runs the `steersman` command, and `init` of docker-compose.yml",
            (
                Rule("TOPIC", f"{prefix}.", _EVERYTHING, "makes topics, looks into them, replays dead letters", "PREFIXED"),
                *([Rule("TOPIC", otlp_topic, _EVERYTHING, "the same")] if otlp_topic else []),
                *(
                    Rule("GROUP", name, ("READ", "DELETE"), "how far it is; makes it begin anew")
                    for name in (f"{prefix}-streams", sink_group, f"{prefix}-doors")
                ),
                follows,
                Rule("CLUSTER", CLUSTER, ("DESCRIBE",), "sees the ACLs; to change them takes a super user"),
            ),
        ),
        Role(
            "collector",
            "the OpenTelemetry Collector's kafka exporter",
            (Rule("TOPIC", otlp_topic, ("WRITE",), "spans"),) if otlp_topic else (),
        ),
        Role(
            "registry",
            "a schema registry that keeps its schemas in `_schemas` (Karapace)",
            (
                Rule("TOPIC", "_schemas", ("READ", "WRITE", "CREATE", "DESCRIBE_CONFIGS"), "its schemas"),
                Rule("GROUP", "registry", ("READ",), "elects who writes"),
            ),
        ),
    ]  # fmt: skip
    return {role.name: role for role in table}


_EVERYTHING: Final = ("READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE_CONFIGS", "ALTER_CONFIGS")


def chosen(table: Mapping[str, Role], names: Iterable[str] | None) -> list[Role]:
    """Return the roles named, or the default ones.

    Raises
    ------
    ConfigError
        There is no such role.
    """
    found = []
    for name in names or DEFAULT_ROLES:
        if name not in table:
            raise ConfigError(f"there is no role {name!r}; there are {', '.join(table)}")
        found.append(table[name])
    return found


def principals(table: Mapping[str, Role], told: Iterable[str]) -> dict[str, list[str]]:
    """Return the principals of every role: ``User:`` and its name, or those told as ``role=User:NAME``.

    Raises
    ------
    ConfigError
        What is told is not of that form.
    """
    found: dict[str, list[str]] = {}
    for text in told:
        role, _, principal = text.partition("=")
        kind, _, name = principal.partition(":")
        if role not in table or not kind or not name:
            raise ConfigError(
                f"--principal {text!r} is not of the form ROLE=User:NAME, e.g. agent=User:support; roles are {', '.join(table)}"
            )
        found.setdefault(role, []).append(principal)
    return {name: found.get(name, [f"User:{name}"]) for name in table}


def allowed(role: Role, resource: Resource, name: str) -> tuple[str, ...]:
    """Return what a role may do to a resource; empty for nothing."""
    return tuple(
        operation
        for rule in role.rules
        if rule.resource == resource
        and (rule.name == name if rule.pattern == "LITERAL" else name.startswith(rule.name))
        for operation in rule.operations
    )


def grants(some: Sequence[Role], names: Mapping[str, Sequence[str]]) -> list[Grant]:
    """Return the ACLs of roles, each once, in the order of the table.

    Parameters
    ----------
    some
        Roles.
    names
        Principals by role.
    """
    return list(
        dict.fromkeys(
            Grant(principal, rule.resource, rule.name, rule.pattern, operation)
            for role in some
            for principal in names[role.name]
            for rule in role.rules
            for operation in rule.operations
        )
    )


def commands(wanted: Sequence[Grant], brokers: str, command_config: str | None = None) -> Iterator[str]:
    """Make the ``kafka-acls.sh`` lines that create ACLs, one for each principal and resource.

    Parameters
    ----------
    wanted
        ACLs.
    brokers
        Bootstrap servers.
    command_config
        Properties file with the security of whoever runs them, None for none.
    """
    together: dict[tuple[str, str, str, str], list[str]] = {}
    for one in wanted:
        together.setdefault((one.principal, one.resource, one.name, one.pattern), []).append(one.operation)
    for (principal, resource, name, pattern), operations in together.items():
        words = ["kafka-acls.sh", "--bootstrap-server", brokers]
        words += ["--command-config", command_config] if command_config else []
        words += ["--add", "--allow-principal", principal]
        for operation in operations:
            words += ["--operation", "".join(part.title() for part in operation.split("_"))]
        words += ["--cluster"] if resource == "CLUSTER" else [f"--{resource.lower()}", name]
        words += ["--resource-pattern-type", "prefixed"] if pattern == "PREFIXED" else []
        yield shlex.join(words)


def _joined(*parts: Sequence[Rule]) -> tuple[Rule, ...]:
    """Put rules together, those about one resource into one."""
    found: dict[tuple[str, str], Rule] = {}
    for rule in (rule for part in parts for rule in part):
        key = rule.resource, rule.name
        had = found.get(key)
        if had is not None:
            operations = tuple(dict.fromkeys((*had.operations, *rule.operations)))
            rule = Rule(rule.resource, rule.name, operations, f"{had.why}; {rule.why}", rule.pattern)
        found[key] = rule
    return tuple(found.values())
