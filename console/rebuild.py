"""`steersman rebuild`: a policy learned again from the reward topic, compared with what is saved and what is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from console.output import err, out, print_json
from console.partition_log import PartitionLog
from console.stack import require_broker
from console.target import Target
from learners.lineage import Rebuild, differing_fields, digest, vector_of
from learners.spec import PolicySpec, load_policies
from learners.state import Origin
from steersman.codec import Codec
from steersman.errors import ConfigError, DecodeError, SteersmanError
from steersman.topics import Topics
from streams.edges import make_codecs
from streams.held_learner import split_key
from streams.learning_stage import partition_of
from streams.state import read_state
from streams.topics import existing_partitions

OK, DIFFERENT = 0, 4
_CHUNK = 1000
_PROGRESS = 20_000
_STAGE = "learn"


@dataclass
class Comparison:
    """Bytes that exist against bytes made anew.

    Attributes
    ----------
    what
        ``state`` or ``snapshot``.
    epoch, version
        Of the bytes that exist.
    found, rebuilt
        SHA-256 of either.
    identical
        Whether they agree.
    differs
        What differs, by name, when they do not.
    """

    what: str
    epoch: int
    version: int
    found: str
    rebuilt: str
    identical: bool
    differs: list[str]


@dataclass
class Rebuilt:
    """A policy and the same policy from the log.

    Attributes
    ----------
    policy
        Its key.
    compared
        State, and newest snapshot where one is on the topic.
    read
        Records of the reward topic that were read.
    unplaced
        Rewards left out because they have no provenance.
    """

    policy: str
    compared: list[Comparison]
    read: int
    unplaced: int

    @property
    def identical(self) -> bool:
        """Whether all bytes agree."""
        return all(one.identical for one in self.compared)


class LogCut(SteersmanError):
    """The log no longer holds what a policy was made of."""


def run(target: Target, tenant: str, name: str, policies: Path, epoch: int | None, *, as_json: bool) -> int:
    """Rebuild a policy, print both hashes of its state and of its newest snapshot, and return the exit code.

    Parameters
    ----------
    target, tenant, name
        Which policy, and where.
    policies
        The policies file; for an old epoch the one of that time.
    epoch
        The epoch; None for the present one.
    as_json
        Whether to print JSON.

    Raises
    ------
    Unreachable
        When the broker does not answer.
    ConfigError
        When there is no such policy, or the file is not the one the epoch was learned under.
    SteersmanError
        When nothing is saved, or the reward topic no longer holds what it was made of.
    """
    require_broker(target.brokers)
    spec = load_policies(policies).get(tenant, name)
    if spec is None:
        raise ConfigError(
            f"{policies} has no policy {name!r} of tenant {tenant!r}; 'steersman policy list' names those there are"
        )
    rebuilt = rebuild_policy(target, spec, policies, epoch)
    _print(rebuilt, as_json=as_json)
    return OK if rebuilt.identical else DIFFERENT


def rebuild_policy(target: Target, spec: PolicySpec, policies: Path, epoch: int | None = None) -> Rebuilt:
    """Rebuild one policy and compare; parameters and errors as in `run`, and LogCut when the log is cut off."""
    topics = Topics(target.prefix)
    counts = existing_partitions(AdminClient({"bootstrap.servers": target.brokers, "log_level": 0}), target.brokers)
    if topics.reward not in counts or topics.state not in counts:
        raise ConfigError(
            f"topics {topics.reward} and {topics.state} do not exist at {target.brokers}: nothing was ever learned there"
        )
    partition = partition_of(spec.key, counts[topics.reward])
    state = _saved_state(target.brokers, topics, partition, spec, epoch, policies)
    origin = Origin.of(state)
    record, raw = _published(target.brokers, topics, spec.key, origin.epoch)
    again = Rebuild(spec, origin.epoch, origin.began, origin.sources)
    policy = None if record is None else Rebuild(spec, origin.epoch, origin.began, vector_of(record))
    read = _feed(target.brokers, topics.reward, partition, [again, *([] if policy is None else [policy])])
    compared = [_state(state, origin, again)]
    if record is not None and policy is not None:
        compared.append(_snapshot(record, raw, policy))
    return Rebuilt(spec.key, compared, read, again.unplaced)


def _saved_state(
    brokers: str, topics: Topics, partition: int, spec: PolicySpec, epoch: int | None, policies: Path
) -> bytes:
    """State of the epoch asked for, which must have been learned under the file's lineage."""
    items = read_state(brokers, topics.state, _STAGE, partition).items
    states = {Origin.of(value).epoch: value for item, value in items.items() if split_key(item)[0] == spec.key}
    if spec.key not in items:
        raise SteersmanError(
            f"no state of {spec.key} is saved in {topics.state}, partition {partition}: has its worker ever saved a checkpoint?"
        )
    if epoch is not None and epoch not in states:
        kept = ", ".join(map(str, sorted(states)))
        raise ConfigError(f"epoch {epoch} of {spec.key} is not saved in {topics.state}; the epochs kept are {kept}")
    state = items[spec.key] if epoch is None else states[epoch]
    origin = Origin.of(state)
    if origin.lineage != spec.lineage:
        raise ConfigError(
            f"epoch {origin.epoch} of {spec.key} was learned under other arms, features or reward components than those in "
            f"{policies}; give the file of that time with --policies, or another epoch with --epoch"
        )
    return state


def _published(brokers: str, topics: Topics, key: str, epoch: int) -> tuple[dict[str, Any] | None, bytes]:
    """Highest published snapshot of the epoch, decoded and as bytes; None where the topic no longer holds one."""
    codec = make_codecs(("policy_snapshot",))["policy_snapshot"]
    best: dict[str, Any] | None = None
    raw = b""
    for found in PartitionLog(brokers, topics.policy, 0):
        if found.key != key.encode() or found.value is None:
            continue
        try:
            record = codec.decode(found.value, found.headers)
        except DecodeError as error:
            err.print(f"{topics.policy}@{found.offset}: passed over: {error}", markup=False, highlight=False)
            continue
        if record["epoch"] == epoch and (best is None or _rank(record) >= _rank(best)):
            best, raw = record, found.value
    return best, raw


def _rank(record: Mapping[str, Any]) -> tuple[int, int]:
    return record["version"], record["created_at"]


def _feed(brokers: str, topic: str, partition: int, rebuilds: list[Rebuild]) -> int:
    """Give the log of rewards to the rebuilds until they are where they should be; returns how many records it took."""
    codec, log = Codec("reward"), PartitionLog(brokers, topic, partition)
    read, chunk = 0, list[dict[str, Any]]()

    def hand_over() -> bool:
        for one in rebuilds:
            if not one.complete:
                one.feed(chunk)
        chunk.clear()
        return all(one.complete for one in rebuilds)

    for record in log:
        read += 1
        try:
            chunk.append(codec.decode(record.value, record.headers))
        except DecodeError:
            continue  # a dead letter, then as now
        if read % _PROGRESS == 0:
            err.print(f"{read} rewards read", highlight=False)
        if len(chunk) >= _CHUNK and hand_over():
            break
    hand_over()
    if log.begin > 0 and (missing := sorted({p for one in rebuilds for p in one.cut_off()})):
        raise LogCut(
            f"{topic}, partition {partition}, begins at offset {log.begin}: rewards of source partition "
            f"{', '.join(map(str, missing))} from the beginning of the epoch are gone, so the policy cannot be rebuilt. Its "
            "saved state is all there is; keep rewards longer (retention.ms of the topic) if you want to be able to check it"
        )
    return read


def _state(state: bytes, origin: Origin, again: Rebuild) -> Comparison:
    made = again.learner.to_state()
    differs = []
    if made != state:
        other = Origin.of(made)
        differs = [name for name in ("version", "sources") if getattr(other, name) != getattr(origin, name)] or ["sums"]
    return Comparison("state", origin.epoch, origin.version, digest(state), digest(made), made == state, differs)


def _snapshot(record: Mapping[str, Any], raw: bytes, policy: Rebuild) -> Comparison:
    """Compare the policy record; the time when it was made is the published one's, for it comes from no reward."""
    made = {**policy.learner.snapshot(record["created_at"]).to_record(), "not_after": record["not_after"]}
    codec = make_codecs(("policy_snapshot",))["policy_snapshot"]
    value = codec.encode(made)
    # The bytes of a record depend on framing and schema version as well; what was written under others is encoded again.
    found = raw if raw[:10] == value[:10] else codec.encode(record)
    differs = [] if found == value else differing_fields(record, made)
    return Comparison(
        "snapshot", record["epoch"], record["version"], digest(found), digest(value), found == value, differs
    )


def _print(rebuilt: Rebuilt, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "policy": rebuilt.policy,
                "rewards_read": rebuilt.read,
                "rewards_without_provenance": rebuilt.unplaced,
                "identical": rebuilt.identical,
                **{one.what: {k: v for k, v in vars(one).items() if k != "what"} for one in rebuilt.compared},
            }
        )
        return
    for one in rebuilt.compared:
        where = "saved" if one.what == "state" else "published"
        title = f"{one.what} of {rebuilt.policy}, epoch {one.epoch}, version {one.version}"
        out.print(title, markup=False, highlight=False)
        out.print(
            f"  {where:<9} sha256 {one.found}\n  {'rebuilt':<9} sha256 {one.rebuilt}", markup=False, highlight=False
        )
        verdict = "identical" if one.identical else f"DIFFERENT: {', '.join(one.differs)}"
        out.print(f"  {verdict}", markup=False, highlight=False)
    out.print(f"{rebuilt.read} rewards read", highlight=False)
    if rebuilt.unplaced:
        out.print(
            f"{rebuilt.unplaced} rewards have no provenance and were left out: nobody can tell when they were learned",
            highlight=False,
        )
    if not rebuilt.identical:
        out.print(
            "The reward topic gives another policy than the one in use: either the topic was changed, or the state was. A "
            "difference in objective, exploration or baseline alone means that the policies file has changed since.",
            highlight=False,
        )
