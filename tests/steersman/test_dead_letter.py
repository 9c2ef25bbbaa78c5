from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.dead_letter import (
    CUT,
    HEADER,
    MAX_LETTER,
    MAX_STACKTRACE,
    Failure,
    failure_headers,
    fitted,
    read_failure,
)
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


WHY = failure_headers("t", 0, 1, "DESERIALIZE", DecodeError("too_large", "x"), connector="c")


def test_a_letter_that_kafka_takes_stays_as_it_is():
    own = [("a", b"1"), ("b", None)]
    assert fitted(b"k", b"v" * 900_000, own, WHY) == (b"k", b"v" * 900_000, [*own, *WHY])
    assert fitted(None, None, [], WHY) == (None, None, WHY)


def test_of_one_that_is_too_large_the_beginning_is_kept_and_it_says_so():
    key, value, headers = fitted(b"k" * 5000, b"v" * 2_000_000, [("a", b"1"), ("big", b"2" * CUT), ("c", b"3")], WHY)
    assert (len(key or b""), value) == (1024, b"v" * CUT)
    assert headers == [("a", b"1"), *WHY, (HEADER + "truncated", b"2000000")]


@given(
    st.none() | st.integers(0, 3_000_000).map(bytes),
    st.none() | st.integers(0, 3_000_000).map(bytes),
    st.lists(st.tuples(st.text(max_size=30), st.none() | st.integers(0, 500_000).map(bytes)), max_size=8),
)
@settings(derandomize=True, deadline=None, max_examples=50)
def test_whatever_failed_its_letter_fits(key, value, own):
    made = fitted(key, value, own, WHY)
    size = sum(len(part or b"") for part in made[:2]) + sum(len(n.encode()) + len(v or b"") for n, v in made[2])
    assert size <= MAX_LETTER
    assert read_failure(made[2]).reason == "too_large"
    assert (made[0] is None, made[1] is None) == (key is None, value is None)
