"""What a stage did with the records of each minute of its partition: the entries of the audit topic. Pure.

A stage counts every record of its input once, under what became of it. Entries are sums over a run of the log, so they
survive restarts as the rest of the state does: the book is one of the stage's state items, and says up to which offset it
has counted. Cuts do not show: a minute is closed where the log goes on to a later one, wherever batches and checkpoints
end, so whoever counts the same log writes the same entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steersman.fingerprint import Fingerprint, signed

STATE_KEY: Final = "ledger"
"""State item of a stage's book. It must be dumped before the items that tell repeats apart."""
MINUTE_US: Final = 60_000_000
_FIRST_US: Final = 946_684_800_000_000  # 2000-01-01
_LAST_US: Final = 4_102_444_800_000_000  # 2100-01-01


class _Key(NamedTuple):
    minute: int
    outcome: str
    reason: str
    tenant: str
    policy: str


@dataclass(slots=True)
class _Entry:
    first: int
    sums: Fingerprint = field(default_factory=Fingerprint)
    changed: bool = True


class LedgerBook:
    """Running entries of one stage and partition.

    Parameters
    ----------
    stage
        Name of the stage.
    partition
        Partition of its input.

    Attributes
    ----------
    at
        Offset of the last record counted, -1 before the first.
    newest
        Latest minute so far, -1 before the first; unit: microseconds since 1970-01-01 UTC.
    """

    def __init__(self, stage: str, partition: int) -> None:
        self._stage = stage
        self._partition = partition
        self._open: dict[_Key, _Entry] = {}
        self._closed: list[tuple[_Key, _Entry]] = []
        self.newest = -1
        self._minute = 0
        self._counting = False
        self.at = -1

    def begin(self, offset: int, record_ts_us: int) -> None:
        """Go on to the next record of the log, which `count` then counts.

        Parameters
        ----------
        offset
            Its offset. What has been counted before a restart is not counted again.
        record_ts_us
            Its Kafka timestamp, zero or less without one; unit: microseconds since 1970-01-01 UTC. What is outside the years
            2000 to 2100 goes to the minute 0, as the sink has it.
        """
        self._counting = offset > self.at
        if not self._counting:
            return
        self.at = offset
        self._minute = record_ts_us - record_ts_us % MINUTE_US if _FIRST_US <= record_ts_us < _LAST_US else 0
        if self._minute > self.newest:
            self.newest = self._minute
            self._closed.extend(self._open.items())
            self._open.clear()

    def count(
        self, outcome: str, identity: str, amount: int = 0, *, tenant: str = "", policy: str = "", reason: str = ""
    ) -> None:
        """Say what became of the record, or of one that it caused."""
        if self._counting:
            self._entry(outcome, reason, tenant, policy).add(identity, amount)

    def sums(self, outcome: str, tenant: str) -> Fingerprint:
        """Return where to add this record, and others of its minute of which the same is to be said.

        They must lie before the next record of a later minute, and have been added before `entries` and `dump`.
        """
        return self._entry(outcome, "", tenant, "")

    def unreadable(self) -> None:
        """Count the record as one that could not be decoded."""
        self.count("rejected", f"{self._partition}:{self.at}", reason="unreadable")

    def entries(self) -> list[dict[str, Any]]:
        """Records of `ledger.avsc` for what has changed since the last call."""
        made = [self._record(key, entry, seq) for seq, (key, entry) in enumerate(self._changed())]
        self._closed.clear()
        return made

    def dump(self) -> bytes:
        """JSON form of the minutes that are not closed; to be called after `entries`."""
        rows = [
            [*key, entry.first, entry.sums.n, entry.sums.total, entry.sums.xor, entry.sums.amount]
            for key, entry in self._open.items()
        ]
        return json.dumps([self.at, self.newest, rows], separators=(",", ":")).encode()

    def restore(self, data: bytes) -> None:
        """Take back what `dump` gave."""
        self.at, self.newest, rows = json.loads(data)
        for minute, outcome, reason, tenant, policy, first, *sums in rows:
            key = _Key(minute, outcome, reason, tenant, policy)
            self._open[key] = _Entry(first, Fingerprint(*sums), changed=False)

    def _entry(self, outcome: str, reason: str, tenant: str, policy: str) -> Fingerprint:
        key = _Key(self._minute, outcome, reason, tenant, policy)
        entry = self._open.get(key)
        if entry is None:
            entry = self._open[key] = _Entry(self.at)
        entry.changed = True
        return entry.sums

    def _changed(self) -> Iterator[tuple[_Key, _Entry]]:
        for key, entry in (*self._closed, *self._open.items()):
            if entry.changed:
                entry.changed = False
                yield key, entry

    def _record(self, key: _Key, entry: _Entry, seq: int) -> dict[str, Any]:
        return {
            "stage": self._stage,
            **key._asdict(),
            "first_offset": entry.first,
            "version": self.at + 1,
            "n": entry.sums.n,
            "id_sum": signed(entry.sums.total),
            "id_xor": signed(entry.sums.xor),
            "amount": entry.sums.amount,
            "source_partition": self._partition,
            "source_offset": self.at,
            "seq": seq,
        }


def minutes_of(record_ts_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the minutes to which `LedgerBook.begin` assigns records of these Kafka timestamps; shape and units alike."""
    known = (record_ts_us >= _FIRST_US) & (record_ts_us < _LAST_US)
    return np.where(known, record_ts_us - record_ts_us % MINUTE_US, 0)


def entry_key(record: dict[str, Any]) -> str:
    """Return the record key of an entry on the audit topic."""
    names = ("stage", "outcome", "reason", "tenant", "policy", "minute", "source_partition", "first_offset")
    return "|".join(str(record[name]) for name in names)
