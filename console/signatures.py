"""`steersman policy keygen` and `steersman policy verify`: keys, and who signed what is published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from console.brokers import require_broker
from console.output import out, print_json, print_rows
from console.target import Target, registry_of
from steersman.codec import Codec, SchemaIds
from steersman.errors import ConfigError, DecodeError
from steersman.signing import KEYS_VARIABLE, PolicyVerifier, generate_keys
from steersman.topics import Topics
from streams.partition_log import PartitionLog
from streams.topics import MAX_STATE_BYTES

OK, NOT_GOOD = 0, 4
_COLUMNS = ["policy", "epoch", "version", "stage", "signature", "key", "good", "refused"]


@dataclass
class Signatures:
    """The records of one policy.

    Attributes
    ----------
    rank
        Epoch, version and time of the highest record.
    stage, reason, key_id
        Of that record: its stage, what is wrong with its signature, and whose it is.
    good
        Records signed by a trusted key.
    refused
        Others, by what is wrong with them.
    """

    rank: tuple[int, int, int] = (-1, -1, -1)
    stage: str = ""
    reason: str = ""
    key_id: str = ""
    good: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def keygen(folder: Path, name: str, *, as_json: bool) -> None:
    """Write a pair of keys and say what to do with them; ConfigError when either file exists."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    made = generate_keys(private, public)
    if as_json:
        print_json({"key_id": made, "private": str(private), "public": str(public)})
        return
    out.print(
        f"key {made}\n  private {private}  (mode 0600; for the stream workers: STEERSMAN_POLICY_SIGNING_KEY={private})\n"
        f"  public  {public}  (for agents: STEERSMAN_POLICY_KEYS={public}; during a change of keys both, with a comma)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def verify(target: Target, keys: Sequence[Path], *, as_json: bool) -> int:
    """Check the signature of every record of the policy topic and print a line a policy; returns the exit code.

    Raises
    ------
    Unreachable
        When no broker answers.
    ConfigError
        When no public key is named, or one cannot be used.
    """
    named = list(keys) or [Path(p.strip()) for p in os.environ.get(KEYS_VARIABLE, "").split(",") if p.strip()]
    if not named:
        raise ConfigError(f"name the public keys to check with: --key FILE, or {KEYS_VARIABLE}")
    topics = Topics(target.prefix)
    topic = topics.policy
    verifier = PolicyVerifier(topic, named)
    require_broker(target.brokers)
    found = read_signatures(target.brokers, topic, verifier, registry_of(topics))
    rows = [
        [name, *one.rank[:2], one.stage, one.reason or "good", one.key_id, one.good, sum(one.refused.values())]
        for name, one in sorted(found.items())
    ]
    print_rows(_COLUMNS, rows, as_json=as_json)
    bad = [name for name, one in sorted(found.items()) if one.reason]
    if not as_json:
        for name, one in sorted(found.items()):
            for reason, count in sorted(one.refused.items()):
                out.print(f"{name}: {count} records refused: {reason}", markup=False, highlight=False)
        verdict = f"not signed by a trusted key: {', '.join(bad)}" if bad else "every newest record is signed"
        out.print(f"{verdict} (keys {', '.join(verifier.key_ids)})", markup=False, highlight=False)
    return NOT_GOOD if bad else OK


def read_signatures(
    brokers: str, topic: str, verifier: PolicyVerifier, registry: SchemaIds | None = None
) -> dict[str, Signatures]:
    """Return what the policy topic holds of each policy, by record key. Tombstones are passed over, as agents do."""
    codec = Codec("policy_snapshot", registry=registry, max_bytes=MAX_STATE_BYTES)
    found: dict[str, Signatures] = {}
    for item in PartitionLog(brokers, topic, 0):
        if item.key is None or not item.value:
            continue
        one = found.setdefault(item.key.decode(errors="replace"), Signatures())
        verdict = verifier.check(codec, item.key, item.value, item.headers)
        if verdict.reason:
            one.refused[verdict.reason] += 1
        else:
            one.good += 1
        try:
            record = codec.decode(item.value, item.headers)
        except DecodeError:
            continue
        rank = (record["epoch"], record["version"], record["created_at"])
        if rank >= one.rank:
            one.rank, one.stage, one.reason, one.key_id = rank, record["stage"], verdict.reason, verdict.key_id
    return found
