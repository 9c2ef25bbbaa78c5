"""W3C Trace Context headers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.traceparent import TraceParent, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_the_example_of_the_specification_is_read_and_written() -> None:
    assert parse_traceparent(GOOD) == TraceParent(TRACE, SPAN, 1)
    assert str(TraceParent(TRACE, SPAN, 1)) == GOOD


def test_kafka_headers_are_bytes() -> None:
    assert parse_traceparent(GOOD.encode()) == TraceParent(TRACE, SPAN, 1)


def test_an_unsampled_trace_stays_unsampled() -> None:
    assert str(parse_traceparent(f"00-{TRACE}-{SPAN}-00")) == f"00-{TRACE}-{SPAN}-00"


def test_a_higher_version_may_carry_more() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings") == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "header",
    [
        None,
        17,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00_{TRACE}_{SPAN}_01",
        b"\xff\xfe",
    ],
)
def test_what_the_specification_says_to_ignore(header: object) -> None:
    assert parse_traceparent(header) is None


@settings(derandomize=True)
@given(st.one_of(st.text(), st.binary(), st.text("0123456789abcdef-", min_size=50, max_size=60)))
def test_no_header_raises_and_what_is_read_can_be_written(header: str | bytes) -> None:
    position = parse_traceparent(header)
    assert position is None or parse_traceparent(str(position)) == position
