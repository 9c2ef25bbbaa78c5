from __future__ import annotations

from serving.rate import MOST_KEYS, RateLimit


def test_a_burst_passes_then_the_rate_holds_and_retry_after_is_the_truth() -> None:
    now = [0.0]
    limit = RateLimit(0.5, 3, lambda: now[0])
    assert [limit.wait_s("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert limit.wait_s("b") == 0, "everybody has a bucket of his own"
    now[0] += 2
    assert [limit.wait_s("a") for _ in range(2)] == [0, 2]
    now[0] += 1e6
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 2], "what nobody used does not pile up"


def test_none_is_no_limit_and_memory_is_bounded() -> None:
    free = RateLimit(0.0)
    assert not any(free.wait_s("a") for _ in range(1000))
    limit = RateLimit(1.0, 1, lambda: 0.0)
    for i in range(MOST_KEYS + 10):
        assert limit.wait_s(str(i)) == 0
    assert limit.wait_s(str(MOST_KEYS + 9)) == 1
    assert limit.wait_s("0") == 0, "forgotten"
