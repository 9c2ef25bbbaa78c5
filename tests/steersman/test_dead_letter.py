from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.dead_letter import HEADER, MAX_STACKTRACE, Failure, failure_headers, read_failure
from steersman.errors import DecodeError


def test_headers_there_and_back():
    try:
        raise DecodeError("magic", "value begins with 6e6f")
    except DecodeError as e:
        headers = failure_headers("steersman.trace.v1", 3, 1 << 40, "DESERIALIZE", e, connector="trace")
    failure = read_failure([("traceparent", b"00"), *headers])
    assert failure.stacktrace.startswith("Traceback")
    assert failure == Failure(
        "steersman.trace.v1",
        3,
        1 << 40,
        "DESERIALIZE",
        "magic",
        "steersman.errors.DecodeError",
        "magic: value begins with 6e6f",
        failure.stacktrace,
    )


def test_last_of_repeated_headers_counts_and_texts_are_cut():
    first = failure_headers("a", 0, 1, "JOIN", ValueError("x"), connector="c")
    second = failure_headers("b", 1, 2, "SINK", ValueError("y" * 10_000), connector="c")
    failure = read_failure(first + second)
    assert (failure.topic, failure.offset, failure.reason, len(failure.message)) == ("b", 2, "ValueError", 1024)
    assert len(failure.stacktrace) <= MAX_STACKTRACE


@given(
    st.dictionaries(
        st.sampled_from([HEADER + n for n in ("topic", "partition", "offset", "stage", "reason")]),
        st.none() | st.binary(max_size=30),
    )
)
@settings(derandomize=True)
def test_any_headers_can_be_read(headers: dict[str, bytes | None]):
    failure = read_failure(list(headers.items()))
    assert -1 <= failure.partition < 1 << 31
    assert -1 <= failure.offset < 1 << 63
