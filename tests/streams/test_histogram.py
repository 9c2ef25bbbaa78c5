"""Buckets, merging and the error bound of percentiles."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.histogram import MAX_RELATIVE_ERROR, bucket_of, merge, percentile

durations = st.integers(1, 10**13)


@settings(max_examples=300, derandomize=True)
@given(durations)
@example(1)
@example(2**40)
@example(2**40 - 1)
def test_a_bucket_holds_exactly_what_the_schema_says(duration: int) -> None:
    bucket = bucket_of(duration)
    # 2**(i/8) <= d < 2**((i+1)/8), without rounding: compare eighth powers.
    assert 2**bucket <= Fraction(duration) ** 8 < 2 ** (bucket + 1)


def test_nothing_lasts_no_time() -> None:
    assert bucket_of(0) == bucket_of(1) == 0


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 1))
def test_percentiles_are_within_the_stated_error(values: list[int], q: float) -> None:
    truth = sorted(values)[max(1, ceil(q * len(values))) - 1]
    estimate = percentile(Counter(map(bucket_of, values)), q)
    assert estimate is not None
    assert abs(estimate - truth) <= MAX_RELATIVE_ERROR * truth * (1 + 1e-9)


@given(st.lists(durations), st.lists(durations))
@settings(max_examples=50, derandomize=True)
def test_merging_equals_counting_together(one: list[int], two: list[int]) -> None:
    merged = dict(Counter(map(bucket_of, one)))
    merge(merged, Counter(map(bucket_of, two)))
    assert merged == dict(Counter(map(bucket_of, one + two)))


def test_empty_and_wrong() -> None:
    assert percentile({}, 0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile({1: 1}, 1.5)
