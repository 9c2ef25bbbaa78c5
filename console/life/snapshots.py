"""Published versions with their weights: where they are still to be had."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from console.output import err
from console.target import Target, registry_of
from sinks.clickhouse import connect
from sinks.published import NEIGHBOURS, RECORDS, Published, published_of
from steersman.codec import Codec
from steersman.errors import ConfigError, DecodeError, SteersmanError
from steersman.topics import Topics
from streams.edges import make_codecs
from streams.partition_log import PartitionLog

Version = tuple[int, int]
"""Epoch and version."""


def parse_version(text: str, epoch: int) -> Version:
    """Read ``epoch.version``, or ``version`` of an epoch; ConfigError for anything else."""
    first, dot, second = text.partition(".")
    if first.isdecimal() and (second.isdecimal() if dot else not second) and len(text) < 40:
        return (int(first), int(second)) if dot else (epoch, int(first))
    raise ConfigError(f"{text!r} is no version: write EPOCH.VERSION, such as 1.2400, or a version of the present epoch")


def published(target: Target, tenant: str, policy: str, at: Version) -> list[Published]:
    """All that was published as this version and is still to be had, oldest first: one version may be published again by an act.

    Raises
    ------
    SteersmanError
        When nothing is left of it; names versions that are.
    """
    found = _stored(target, tenant, policy, at)
    if not found:
        err.print(f"version {at[0]}.{at[1]} is not kept in ClickHouse: reading the policy topic", highlight=False)
        found = [*_on_topic(target, tenant, policy, at)]
    if not found:
        known = ", ".join(f"{epoch}.{version}" for epoch, version in _kept(target, tenant, policy, at)) or "none"
        raise SteersmanError(
            f"the weights of version {at[0]}.{at[1]} of {tenant}/{policy} are no longer kept: ClickHouse keeps one version a minute "
            f"and each that an act or other settings made, for 30 days, and the topic has compacted it away. Nearest kept: {known} "
            "('steersman policy history' lists them)"
        )
    return found


def _stored(target: Target, tenant: str, policy: str, at: Version) -> list[Published]:
    names = {"tenant": tenant, "policy": policy, "epoch": at[0], "version": at[1]}
    with contextlib.suppress(SteersmanError), contextlib.closing(connect(target.reading)) as client:
        return published_of(text for (text,) in client.query(RECORDS, parameters=names).result_rows)
    return []


def _kept(target: Target, tenant: str, policy: str, at: Version) -> list[Version]:
    names = {"tenant": tenant, "policy": policy, "epoch": at[0], "version": at[1]}
    with contextlib.suppress(SteersmanError), contextlib.closing(connect(target.reading)) as client:
        return [(int(e), int(v)) for e, v in client.query(NEIGHBOURS, parameters=names).result_rows]
    return []


def _on_topic(target: Target, tenant: str, policy: str, at: Version) -> Iterator[Published]:
    key = f"{tenant}/{policy}".encode()

    def wanted(record: dict[str, Any]) -> bool:
        return (record["epoch"], record["version"]) == at

    yield from on_topic(target, key, wanted)


def on_topic(target: Target, key: bytes, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Published]:
    """Records of a policy that the policy topic still holds; those that nobody can read are passed over."""
    topics = Topics(target.prefix)
    codec: Codec = make_codecs(("policy_snapshot",), registry_of(topics))["policy_snapshot"]
    for found in PartitionLog(target.brokers, topics.policy, 0):
        if found.key != key or found.value is None:
            continue
        with contextlib.suppress(DecodeError):
            record = codec.decode(found.value, found.headers)
            if wanted(record):
                yield Published(record, codec.as_single_object(found.value, found.headers))
