"""Batches of Kafka records are decompressed with a cap.

A broker's limits are limits on what is compressed: a batch of 1 MiB may become 255 MiB (lz4) or more than a GiB (gzip,
zstd). aiokafka's own functions know no cap, so `install` puts ours in their place. Having the broker compress anew, by the
topic's ``compression.type``, is no way out: Apache Kafka 4.4 answers such a batch with an unknown error, not with a refusal.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from serving.inflate import TooLarge, inflate, inflate_snappy
from steersman.errors import SteersmanError

MAX_BATCH_BYTES: Final = 128 << 20
"""Largest batch that a worker takes, decompressed; our producers' are below 10 MiB. Unit: bytes."""


class BatchTooLarge(SteersmanError):
    """A batch of Kafka records that would take too much memory; the partition stays where it is until it is removed."""


def _of_batch(encoding: str) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        data = bytes(payload)
        try:
            if encoding == "snappy":
                return inflate_snappy(data, MAX_BATCH_BYTES)
            return inflate(data, encoding, MAX_BATCH_BYTES)
        except TooLarge:
            raise BatchTooLarge(
                f"a batch of {len(data)} bytes of {encoding} is larger than {MAX_BATCH_BYTES >> 20} MiB once decompressed: no "
                "producer of ours sends such; find out which client did. The partition stops there until the records before "
                "and in it are deleted (kafka-delete-records.sh)"
            ) from None

    return decode


def install() -> None:
    """Put the capped functions in the place of aiokafka's. Does nothing the second time."""
    names = ("aiokafka.codec", "aiokafka.record.default_records", "aiokafka.record._crecords.default_records",
             "aiokafka.record.legacy_records", "aiokafka.record._crecords.legacy_records")  # fmt: skip
    for name in names:
        module = importlib.import_module(name)
        for encoding in ("gzip", "lz4", "snappy", "zstd"):
            if hasattr(module, f"{encoding}_decode"):
                setattr(module, f"{encoding}_decode", _DECODE[encoding])


_DECODE = {encoding: _of_batch(encoding) for encoding in ("gzip", "lz4", "snappy", "zstd")}
