"""`steersman rebuild`: a policy learned again from the reward topic, compared with what is saved and what is published.

Of a policy with shards every shard is learned again from its own rewards, and their sum is compared as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.brokers import require_broker
from console.output import err, out, print_json
from console.relearn import Part, RewardTopic, merged
from console.target import Target, registry_of
from learners.lineage import differing_fields, digest, vector_of
from learners.policies_file import load_policies
from learners.protocol import Learner
from learners.shard_keys import shard_key
from learners.spec import PolicySpec
from learners.state import Origin
from steersman.codec import SchemaIds
from steersman.errors import ConfigError, DecodeError, SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.edges import make_codecs
from streams.held_learner import split_key
from streams.learning_stage import partition_of
from streams.partition_log import PartitionLog
from streams.state import read_state
from streams.topics import existing_partitions

OK, DIFFERENT = 0, 4
_STAGE = "learn"


@dataclass
class Comparison:
    """Bytes that exist against bytes made anew.

    Attributes
    ----------
    what
        ``state``, ``snapshot``, or ``shard <k>``: the state of a shard.
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
    counts = existing_partitions(KafkaAdmin(target.brokers), target.brokers)
    if topics.reward not in counts or topics.state not in counts:
        raise ConfigError(
            f"topics {topics.reward} and {topics.state} do not exist at {target.brokers}: nothing was ever learned there"
        )
    partitions = counts[topics.reward]
    state = _saved_state(target.brokers, topics, partitions, spec, spec.key, epoch, policies)
    origin = Origin.of(state)
    registry = registry_of(topics)
    record, raw = _published(target.brokers, topics, spec.key, origin.epoch, registry)
    upto = {"state": origin.sources} | ({} if record is None else {"snapshot": vector_of(record)})
    acts = {} if record is None else {"snapshot": record["acts"]}
    log = RewardTopic(target.brokers, topics.reward, partitions, registry)
    if spec.shards == 1:
        revisions = {} if record is None else {"snapshot": record["revision"]}
        one = Part(spec, 0, origin.epoch, origin.began, upto, state, revisions, acts)
        log.feed({spec.key: one})
        made = {what: rebuild.learner for what, rebuild in one.rebuilds.items()}
        compared = [_state("state", state, made["state"])]
    else:
        keys = [shard_key(spec.key, shard) for shard in range(spec.shards)]
        saved = [_saved_state(target.brokers, topics, partitions, spec, key, origin.epoch, policies) for key in keys]
        parts = [
            Part(spec, shard, of.epoch, of.began, upto | {"own": of.sources}, own)
            for shard, (of, own) in enumerate((Origin.of(own), own) for own in saved)
        ]
        log.feed(dict(zip(keys, parts, strict=True)))
        made = {
            what: merged(spec, origin.epoch, [part.rebuilds[what] for part in parts], state, acts.get(what))
            for what in upto
        }
        compared = [_state("state", state, made["state"])]
        compared += [
            _state(f"shard {shard}", own, part.rebuilds["own"].learner)
            for shard, (own, part) in enumerate(zip(saved, parts, strict=True))
        ]
    if record is not None:
        compared.insert(1, _snapshot(record, raw, made["snapshot"]))
    return Rebuilt(spec.key, compared, log.read, log.unplaced)


def learned_at(
    target: Target, spec: PolicySpec, policies: Path, epoch: int, upto: Mapping[int, tuple[int, int]], acts: int
) -> Learner:
    """Learn a policy again up to a provenance vector and a number of acts; parameters and errors as in `run`, and LogCut.

    Of a policy in shards nothing can be told: which shard had been heard of how far is not in the vector's version.
    """
    topics = Topics(target.prefix)
    counts = existing_partitions(KafkaAdmin(target.brokers), target.brokers)
    if spec.shards > 1 or topics.reward not in counts or topics.state not in counts:
        raise SteersmanError(f"{spec.key} cannot be learned again as of an earlier version")
    partitions = counts[topics.reward]
    state = _saved_state(target.brokers, topics, partitions, spec, spec.key, epoch, policies)
    origin = Origin.of(state)
    part = Part(spec, 0, origin.epoch, origin.began, {"then": upto}, state, acts={"then": acts})
    RewardTopic(target.brokers, topics.reward, partitions, registry_of(topics)).feed({spec.key: part})
    return part.rebuilds["then"].learner


def _saved_state(
    brokers: str, topics: Topics, partitions: int, spec: PolicySpec, key: str, epoch: int | None, policies: Path
) -> bytes:
    """State of the policy or shard of this key in the epoch asked for, which must be of the file's lineage."""
    partition = partition_of(key, partitions)
    items = read_state(brokers, topics.state, _STAGE, partition).items
    states = {Origin.of(value).epoch: value for item, value in items.items() if split_key(item)[0] == key}
    if key not in items:
        raise SteersmanError(
            f"no state of {key} is saved in {topics.state}, partition {partition}: has its worker ever saved a checkpoint?"
        )
    if epoch is not None and epoch not in states:
        kept = ", ".join(map(str, sorted(states)))
        raise ConfigError(f"epoch {epoch} of {key} is not saved in {topics.state}; the epochs kept are {kept}")
    state = items[key] if epoch is None else states[epoch]
    origin = Origin.of(state)
    if origin.lineage != spec.lineage:
        raise ConfigError(
            f"epoch {origin.epoch} of {key} was learned under other arms, features, reward components, shards or sources in quarantine than those in "
            f"{policies}; give the file of that time with --policies, or another epoch with --epoch"
        )
    return state


def _published(
    brokers: str, topics: Topics, key: str, epoch: int, registry: SchemaIds | None
) -> tuple[dict[str, Any] | None, bytes]:
    """Highest published snapshot of the epoch, decoded and as bytes; None where the topic no longer holds one."""
    codec = make_codecs(("policy_snapshot",), registry)["policy_snapshot"]
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


def _state(what: str, state: bytes, again: Learner) -> Comparison:
    origin, made = Origin.of(state), again.to_state()
    differs = []
    if made != state:
        other = Origin.of(made)
        differs = [name for name in ("version", "sources") if getattr(other, name) != getattr(origin, name)] or ["sums"]
    return Comparison(what, origin.epoch, origin.version, digest(state), digest(made), made == state, differs)


def _snapshot(record: Mapping[str, Any], raw: bytes, policy: Learner) -> Comparison:
    """Compare the policy record; the time when it was made and the signature, which covers it, are the published one's."""
    aside = {name: record[name] for name in ("not_after", "signature")}
    made = {**policy.snapshot(record["created_at"]).to_record(), **aside}
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
        where = "published" if one.what == "snapshot" else "saved"
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
            "The reward topic gives another policy than the one in use: either the topic was changed, or the state was.",
            highlight=False,
        )
