"""Batches of Kafka records are decompressed with a cap; what cannot be read of one becomes a record that nobody can decode.

A broker's limits are limits on what is compressed: a batch of 1 MiB may become 255 MiB (lz4) or more than a GiB (gzip,
zstd). aiokafka's own functions know no cap, so `install` puts ours in their place, and bounds what one poll holds. A batch
that is too large, or damaged under a right checksum (brokers look at less than clients do: at no header's name), must not stop
its partition, or whoever may write the topic could: in its place comes one record that no codec takes, of which the stage makes
a dead letter.

Having the broker compress anew, by the topic's ``compression.type``, is no way out: Apache Kafka 4.4 answers such a batch
with an unknown error, not with a refusal.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from serving.inflate import TooLarge, Unsupported, inflate, inflate_snappy, peek
from steersman.bad_batch import HEADER
from steersman.codec import MAX_BYTES
from steersman.errors import SteersmanError
from steersman.kafka_config import MAX_BATCH_BYTES

log = logging.getLogger("steersman.streams")

POLL_BYTES: Final = 16 << 20
"""Values of one partition that one poll hands over, give or take the last record; the rest come with the next. Unit: bytes."""


class BadBatch(SteersmanError):
    """A batch of Kafka records that cannot be decompressed within bounds.

    Attributes
    ----------
    shown
        What is kept of it: the beginning of what it holds, or as it came where that cannot be had.
    """

    def __init__(self, why: str, shown: bytes) -> None:
        super().__init__(why)
        self.shown = shown


def _of_batch(encoding: str) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        data = bytes(payload)
        try:
            if encoding == "snappy":
                return inflate_snappy(data, MAX_BATCH_BYTES)
            return inflate(data, encoding, MAX_BATCH_BYTES)
        except TooLarge:
            why = f"{len(data)} bytes of {encoding} are more than {MAX_BATCH_BYTES >> 20} MiB decompressed"
            # Longer than any codec takes, so that the reason of the dead letter is the true one.
            raise BadBatch(why, peek(data, encoding, MAX_BYTES + 1).ljust(MAX_BYTES + 1, b"\0")) from None
        except Unsupported as error:
            raise BadBatch(f"{len(data)} bytes are not {encoding}: {error}", data) from None

    return decode


@dataclass(frozen=True, slots=True)
class _Stand:
    """Record in the place of a batch, as aiokafka's are."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: bytes
    headers: list[tuple[str, bytes]]
    key: None = None
    checksum: None = None


class _Records:
    """aiokafka's batches of a fetch; `current` is the one that was handed out last."""

    def __init__(self, raw: bytes) -> None:
        self._records = MemoryRecords(raw)
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes
        self.current: Any = None

    def next_batch(self) -> Any:
        self.current = None
        self.current = self._records.next_batch()
        return self.current


def _next(self: Any) -> Any:
    """As aiokafka's `PartitionRecords.__next__`; what cannot be read of a batch comes as one record."""
    while True:
        try:
            return next(self._records_iterator)
        except StopIteration:
            self._records_iterator = None
            raise
        except Exception as error:  # BadBatch, CorruptRecordException; UnicodeDecodeError for a header's name, and more
            batch = self._records.current
            # Damaged on its way: another fetch may bring it whole.
            if batch is None or "Invalid CRC" in str(error):
                raise
            self._records_iterator = self._unpack_records()  # the one before has ended; this begins at the next batch
            if batch.next_offset > self.next_fetch_offset:
                return _stand(self, batch, error)


def _stand(self: Any, batch: Any, error: Exception) -> Any:
    first, last = max(self.next_fetch_offset, getattr(batch, "base_offset", 0)), batch.next_offset - 1
    why = f"offsets {first} to {last}: {error if isinstance(error, BadBatch) else type(error).__name__}"
    log.warning("records that cannot be read become one dead letter: %s", why)
    # At the last offset of those it stands for, so that whoever goes on behind it does not come upon them again.
    self.next_fetch_offset = batch.next_offset
    shown = error.shown if isinstance(error, BadBatch) else b""
    stamp = max(getattr(batch, "max_timestamp", -1), -1)
    return self._consumer_record(self._tp, _Stand(last, stamp, 0, shown, [(HEADER, why.encode())]))


def _getall(self: Any, max_records: int | None = None) -> list[Any]:
    """As aiokafka's `FetchResult.getall`, and no more than `POLL_BYTES`: small batches may hold a great deal."""
    if not self.check_assignment(self._topic_partition) or not self.has_more():
        return []
    found: list[Any] = []
    size = 0
    for record in self._partition_records:
        found.append(record)
        size += max(record.serialized_value_size, 0)
        if size >= POLL_BYTES or (max_records is not None and len(found) >= max_records):
            self._update_position()
            break
    else:
        self._update_position()
        self._partition_records = None
    return found


def install() -> None:
    """Put the capped functions in the place of aiokafka's. Does nothing the second time."""
    names = ("aiokafka.codec", "aiokafka.record.default_records", "aiokafka.record._crecords.default_records",
             "aiokafka.record.legacy_records", "aiokafka.record._crecords.legacy_records")  # fmt: skip
    for name in names:
        module = importlib.import_module(name)
        for encoding in ("gzip", "lz4", "snappy", "zstd"):
            if hasattr(module, f"{encoding}_decode"):
                setattr(module, f"{encoding}_decode", _DECODE[encoding])
    for where, name, ours in (
        (fetcher, "MemoryRecords", _Records),
        (fetcher.PartitionRecords, "__next__", _next),
        (fetcher.FetchResult, "getall", _getall),
    ):
        if not hasattr(where, name):
            raise RuntimeError(f"aiokafka no longer has {name} in its fetcher; pin aiokafka 0.14")
        setattr(where, name, ours)


_DECODE = {encoding: _of_batch(encoding) for encoding in ("gzip", "lz4", "snappy", "zstd")}
