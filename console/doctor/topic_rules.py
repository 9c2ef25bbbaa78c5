"""What is wrong with the topics as they are, given what `streams.topics` wants them to be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from console.doctor.finding import Finding, problem, warning
from steersman.topics import Topics
from streams.topics import TopicSpec

_AT_LEAST = frozenset({"retention.ms", "min.compaction.lag.ms", "delete.retention.ms", "max.message.bytes"})
"""Settings that may be larger than ours without harm; -1 is without limit."""


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker describes it.

    Attributes
    ----------
    partitions
        Partition count.
    replicas
        Smallest replica count of a partition.
    in_sync
        Smallest count of replicas in sync.
    leaderless
        Partitions without a leader.
    config
        Settings; empty when the broker does not tell.
    """

    partitions: int
    replicas: int
    in_sync: int
    leaderless: int
    config: Mapping[str, str]


def topic_findings(
    specs: list[TopicSpec], found: Mapping[str, TopicState], topics: Topics, brokers: str, broker_count: int
) -> Iterator[Finding]:
    """Compare what is there with what should be.

    Parameters
    ----------
    specs
        What should be.
    found
        Topics of the cluster by name.
    topics
        Names.
    brokers, broker_count
        Bootstrap servers, for the commands in the fixes, and how many brokers there are.
    """
    for spec in specs:
        state = found.get(spec.name)
        if state is None:
            yield problem(
                "topic.missing", f"{spec.name} does not exist", f"steersman topics --create --brokers {brokers}"
            )
            continue
        yield from _partitions(spec, state, found, topics)
        yield from _config(spec, state, brokers)
        yield from _replicas(spec, state, broker_count)
    known = {spec.name for spec in specs}
    for name in sorted(found):
        if name.startswith(topics.prefix + ".") and name not in known:
            yield warning(
                "topic.unknown",
                f"{name} has our prefix, but this version knows no such topic",
                "delete it if nobody uses it, or give whoever does another prefix",
            )


def _partitions(
    spec: TopicSpec, state: TopicState, found: Mapping[str, TopicState], topics: Topics
) -> Iterator[Finding]:
    wanted = None
    if spec.name in (topics.reward, topics.state) and topics.trace in found:
        wanted, why = (
            found[topics.trace].partitions,
            "as many as the trace topic: state of partition p is in partition p",
        )
    elif spec.name in (topics.policy, topics.control, topics.shard):
        wanted, why = 1, "one, so that everybody sees one order"
    if wanted is not None and state.partitions != wanted:
        yield problem(
            "topic.partitions",
            f"{spec.name} has {state.partitions} partitions; it must have {wanted} ({why})",
            f"stop the workers and make the topics anew under another STEERSMAN_TOPIC_PREFIX, or delete {spec.name} and run "
            "'steersman topics --create' (the state is learned again from the log)",
        )


def _config(spec: TopicSpec, state: TopicState, brokers: str) -> Iterator[Finding]:
    for key, wanted in spec.config.items():
        have = state.config.get(key)
        if have is None or _same(key, have, wanted):
            continue
        fix = (
            f"kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {spec.name} "
            f"--add-config {key}={'[' + wanted + ']' if ',' in wanted else wanted}"
        )
        what = f"{spec.name} has {key}={have}; it should be {wanted}"
        harmful = key == "cleanup.policy" or key in _AT_LEAST
        yield problem("topic.config", what, fix) if harmful else warning("topic.config", what, fix)


def _same(key: str, have: str, wanted: str) -> bool:
    if key in _AT_LEAST:
        return int(have) < 0 or int(have) >= int(wanted)
    if key == "cleanup.policy":
        return {part.strip() for part in have.split(",")} == set(wanted.split(","))
    return float(have) == float(wanted)


def _replicas(spec: TopicSpec, state: TopicState, broker_count: int) -> Iterator[Finding]:
    if state.leaderless:
        yield problem(
            "topic.leader",
            f"{state.leaderless} partitions of {spec.name} have no leader: nothing can be written to or read from them",
            "start the brokers that hold their replicas",
        )
    needed = int(state.config.get("min.insync.replicas", "1"))
    if needed > state.in_sync:
        yield problem(
            "topic.replicas",
            f"{spec.name} has {state.in_sync} replicas in sync and needs {needed} (min.insync.replicas): writes are refused",
            f"start the missing brokers, or lower min.insync.replicas of {spec.name}",
        )
    elif state.in_sync < state.replicas:
        yield warning(
            "topic.replicas",
            f"{spec.name} has {state.in_sync} of {state.replicas} replicas in sync",
            "look at the brokers that are behind",
        )
    if broker_count > 1 and state.replicas < 2:
        yield warning(
            "topic.replicas",
            f"{spec.name} has one replica on a cluster of {broker_count} brokers: it is lost with one disk",
            "raise it with kafka-reassign-partitions.sh, and default.replication.factor of the brokers",
        )
