"""The dead-letter record and its brake."""

from __future__ import annotations

import pytest

from steersman.dead_letter import CUT, MAX_STACKTRACE
from steersman.errors import DecodeError
from streams.dead_letters import DeadLetterStage, DlqLimit, TooManyDeadLetters, dead_letter
from streams.record_batch import RecordBatch


def _batch() -> RecordBatch:
    return RecordBatch(
        "in.v1", 3, 1, 1, 7, 9, [7, 9], [b"good", b"\x00bad"], [b"k1", None], [(), (("a", b"1"),)], [1000, 2000]
    )


def test_keeps_the_original_and_says_why() -> None:
    try:
        raise DecodeError("magic", "value begins with 0062")
    except DecodeError as error:
        record = dead_letter("dlq.v1", _batch(), 1, DeadLetterStage.DESERIALIZE, error, connector="trace")
    assert (record.topic, record.key, record.value, record.timestamp_ms) == ("dlq.v1", None, b"\x00bad", 2000)
    assert record.headers[0] == ("a", b"1")
    headers = dict(record.headers)
    assert headers["__connect.errors.topic"] == b"in.v1"
    assert headers["__connect.errors.partition"] == b"3"
    assert headers["__connect.errors.offset"] == b"9"
    assert headers["__connect.errors.stage"] == b"DESERIALIZE"
    assert headers["__connect.errors.exception.class.name"] == b"steersman.errors.DecodeError"
    assert headers["__connect.errors.exception.message"] == b"magic: value begins with 0062"
    assert b"test_dead_letters.py" in headers["__connect.errors.exception.stacktrace"]


def test_a_letter_too_large_for_kafka_is_cut() -> None:
    batch = _batch()
    batch.values[1] = b"\x00" * 2_000_000
    record = dead_letter("d", batch, 1, DeadLetterStage.DESERIALIZE, DecodeError("too_large", "x"), connector="trace")
    assert len(record.value or b"") == CUT
    assert dict(record.headers)["__connect.errors.truncated"] == b"2000000"
    assert record.headers[0] == ("a", b"1")


def test_caps_message_and_stack_trace_without_cutting_a_character() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("ß" * 5000)
        deep(n - 1)

    try:
        deep(50)
    except ValueError as error:
        record = dead_letter("d", _batch(), 0, DeadLetterStage.JOIN, error, connector="trace")
    headers = dict(record.headers)
    stack = headers["__connect.errors.exception.stacktrace"]
    assert 0 < len(stack) <= MAX_STACKTRACE
    assert len(headers["__connect.errors.exception.message"]) <= 1024
    stack.decode()
    headers["__connect.errors.exception.message"].decode()


def test_too_many_in_a_row_stop_the_worker() -> None:
    limit = DlqLimit(max_ratio=1.0, window=10, max_consecutive=3)
    for _ in range(3):
        limit.failed("x")
    limit.passed()
    for _ in range(3):
        limit.failed("x")
    with pytest.raises(TooManyDeadLetters, match=r"4 records in a row failed.*last was topic t, offset 9"):
        limit.failed("topic t, offset 9")


def test_too_large_a_share_stops_the_worker_once_the_window_is_full() -> None:
    limit = DlqLimit(max_ratio=0.1, window=100, max_consecutive=1000)
    for _ in range(10):
        limit.failed("early ones, before the window is full")
    limit.passed(200)
    for _ in range(10):
        limit.failed("a")
        limit.passed()
    with pytest.raises(TooManyDeadLetters, match="11 of the last 100 records failed"):
        limit.failed("b")


def test_rare_failures_never_stop_it() -> None:
    limit = DlqLimit(max_ratio=0.2, window=100, max_consecutive=5)
    for _ in range(2000):
        limit.passed(9)
        limit.failed("x")
