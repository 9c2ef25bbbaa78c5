"""Where a partition begins and ends, asked until there is somebody to ask."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_NOT_YET: Final = frozenset(
    {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART}
)
"""What brokers answer about a topic that was created a moment ago, or whose leader has just changed."""
_RETRY_S: Final = 0.1


def ask_watermarks(consumer: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Ask the leader of a partition for its first offset and its end.

    Parameters
    ----------
    consumer : Consumer
        Whom to ask through.
    place : TopicPartition
        The partition; its offset does not matter.
    timeout_s : float
        How long to keep asking while the partition has no leader; unit: seconds.

    Returns
    -------
    tuple of int
        First offset that the broker holds, and the next one to be written.

    Raises
    ------
    KafkaException
        When the broker does not say.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            marks = consumer.get_watermark_offsets(place, timeout=max(_RETRY_S, deadline - time.monotonic()))
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() + _RETRY_S >= deadline:
                raise
            time.sleep(_RETRY_S)
            continue
        if marks is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return int(marks[0]), int(marks[1])
