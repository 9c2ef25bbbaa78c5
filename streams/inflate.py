"""Batches of Kafka records are decompressed with a cap; one that exceeds it becomes a record that nobody can decode.

A broker's limits are limits on what is compressed: a batch of 1 MiB may become 255 MiB (lz4) or more than a GiB (gzip,
zstd). aiokafka's own functions know no cap, so `install` puts ours in their place, and bounds what one poll holds. A batch
that is too large must not stop its partition, or whoever may write the topic could: in its place comes one record, too
large for any codec, which the stage makes a dead letter of.

Having the broker compress anew, by the topic's ``compression.type``, is no way out: Apache Kafka 4.4 answers such a batch
with an unknown error, not with a refusal.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from serving.inflate import TooLarge, Unsupported, inflate, inflate_snappy, peek
from steersman.codec import MAX_BYTES
from steersman.errors import SteersmanError
from steersman.kafka_config import MAX_BATCH_BYTES

log = logging.getLogger("steersman.streams")

HEADER: Final = "steersman.batch"
"""Header of a record that stands for a batch; says what was wrong with it."""
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


class _Batch:
    """A batch of aiokafka's, of which a bad one holds one record."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        batch = self._batch
        try:
            return iter(batch)  # decompresses
        except BadBatch as error:
            last = batch.next_offset - 1
            why = f"offsets {batch.base_offset} to {last}: {error}"
            log.warning("a batch of records becomes one dead letter: %s", why)
            return iter(
                [
                    _Stand(
                        batch.base_offset,
                        batch.max_timestamp,
                        batch.timestamp_type,
                        error.shown,
                        [(HEADER, why.encode())],
                    )
                ]
            )


class _Records:
    """aiokafka's batches of a fetch."""

    def __init__(self, raw: bytes) -> None:
        self._records = MemoryRecords(raw)
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> _Batch | None:
        batch = self._records.next_batch()
        return None if batch is None else _Batch(batch)


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
    for where, name, ours in ((fetcher, "MemoryRecords", _Records), (fetcher.FetchResult, "getall", _getall)):
        if not hasattr(where, name):
            raise RuntimeError(f"aiokafka no longer has {name} in its fetcher; pin aiokafka 0.14")
        setattr(where, name, ours)


_DECODE = {encoding: _of_batch(encoding) for encoding in ("gzip", "lz4", "snappy", "zstd")}
