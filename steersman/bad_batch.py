"""What to do about a batch of records that librdkafka refuses to decompress: find out where it ends, and go on behind it.

librdkafka takes zstd up to ``receive.message.max.bytes``. It names where a larger batch begins and asks for the same again, for
ever: one record of 12 KB, which anybody who may write a topic can make, would hold up everybody who reads it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from steersman.errors import Unreachable
from steersman.kafka_config import MAX_BATCH_BYTES, kafka_logger
from steersman.watermarks import ask_watermarks

HEADER: Final = "steersman.batch"
"""Header of a record that stands for a batch; says what was wrong with it."""
_ASK_S, _POLL_S = 10.0, 0.5


def is_bad(error: KafkaError) -> bool:
    """Whether an error of a consumer says that it cannot decompress a batch."""
    return bool(error.code() == KafkaError._BAD_COMPRESSION)


def why(base: int, end: int) -> bytes:
    """What `HEADER` says of a batch with these offsets, the last excluded."""
    return f"offsets {base} to {end - 1}: more than {MAX_BATCH_BYTES >> 20} MiB decompressed, or damaged".encode()


def end_of_batch(config: Mapping[str, Any], message: Message, timeout_s: float = 30.0) -> tuple[int, int]:
    """Find out where a batch ends that cannot be decompressed, by asking for what lies behind it.

    Parameters
    ----------
    config
        Of a consumer that joins no group, as `steersman.kafka_config.follower_config` makes it.
    message
        The error, as the consumer handed it over.
    timeout_s
        Longest search; unit: seconds.

    Returns
    -------
    tuple of int
        First offset of the batch, and first offset behind it.

    Raises
    ------
    Unreachable
        Kafka did not answer in time.
    """
    topic, partition, base = message.topic() or "", message.partition() or 0, message.offset() or 0
    deadline = time.monotonic() + timeout_s
    consumer = Consumer(dict(config), logger=kafka_logger)

    def holds(offset: int) -> bool:
        """Whether that offset belongs to the batch."""
        consumer.assign([TopicPartition(topic, partition, offset)])
        while time.monotonic() < deadline:
            if (found := consumer.poll(_POLL_S)) is None:
                continue
            if (error := found.error()) is None or error.code() == KafkaError._PARTITION_EOF:
                return False
            if is_bad(error):
                return (found.offset() or 0) < offset
        raise Unreachable(f"topic {topic}", f"where the batch at offset {base} ends was not found in {timeout_s:g} s")

    try:
        _, high = ask_watermarks(consumer, TopicPartition(topic, partition), _ASK_S)
        inside, step = base, 1
        while inside + step < high and holds(inside + step):
            inside, step = inside + step, 2 * step
        outside = min(inside + step, high)
        while outside - inside > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        return base, outside
    except KafkaException as error:
        raise Unreachable(f"topic {topic}", error.args[0].str()) from error
    finally:
        consumer.close()
