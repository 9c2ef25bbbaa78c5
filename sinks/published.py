"""Published versions of a policy whose records ClickHouse keeps, weights included."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from learners.acts import MAX_SNAPSHOT
from steersman.codec import Codec
from steersman.errors import DecodeError, SnapshotError
from steersman.held import Held
from steersman.scoring import Scorer
from steersman.snapshot import PolicySnapshot

RECORDS: Final = (
    "SELECT record_base64 FROM v_policy_records WHERE tenant = {tenant:String} AND policy = {policy:String} "
    "AND epoch = {epoch:Int64} AND version = {version:Int64} ORDER BY acts"
)
"""Everything kept of one version: it may have been published again by an act."""
NEIGHBOURS: Final = (
    "SELECT DISTINCT epoch, version FROM v_policy_records WHERE tenant = {tenant:String} AND policy = {policy:String} "
    "AND pinned = '' ORDER BY epoch = {epoch:Int64} DESC, abs(version - {version:Int64}) LIMIT 5"
)
"""The versions kept that are nearest to one that is not."""


@dataclass(frozen=True)
class Published:
    """A snapshot as it was published.

    Attributes
    ----------
    record
        Decoded.
    value
        In single-object encoding, signature included.
    """

    record: dict[str, Any]
    value: bytes

    @property
    def held(self) -> Held:
        """Ready to be asked; SnapshotError when it cannot be used."""
        snapshot = PolicySnapshot.from_record(self.record)
        return Held(snapshot, Scorer(snapshot), snapshot.created_at)


def published_of(records: Iterable[str]) -> list[Published]:
    """Decode records as the view has them, in base64; those that nobody can read are passed over."""
    codec = Codec("policy_snapshot", max_bytes=MAX_SNAPSHOT)
    found = []
    for text in records:
        with contextlib.suppress(DecodeError, binascii.Error):
            value = base64.b64decode(text, validate=True)
            found.append(Published(codec.decode(value), value))
    return found


def usable(found: Iterable[Published]) -> list[Held]:
    """Return those that can be asked."""
    held = []
    for one in found:
        with contextlib.suppress(SnapshotError):
            held.append(one.held)
    return held
