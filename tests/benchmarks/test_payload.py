"""The benchmarks' traces: valid under the policies they name, and the same from the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from benchmarks.payload import EVENTS_PER_TRACE, PAYLOAD, POLICIES, TENANTS, TraceMaker, spaced
from learners.policies_file import load_policies
from steersman.codec import Codec
from streams.trace_stage import TraceStage

FIRST_US = 1_790_000_000_000_000


def test_a_seed_is_its_traces() -> None:
    assert TraceMaker(1).trace() == TraceMaker(1).trace()
    assert TraceMaker(1).trace() != TraceMaker(2).trace()


def test_the_trace_stage_takes_every_event_and_rewards_every_trace() -> None:
    codec = Codec("trace_event")
    records = list(spaced(TraceMaker(3).interleaved(), 1600, FIRST_US, 1000))
    stage = TraceStage(load_policies(POLICIES), 0)
    out = stage.process([(n, r["ts"] // 1000 * 1000, codec.decode(codec.encode(r))) for n, r in enumerate(records)])
    assert out.rejected == []
    assert len(out.rewards) == 128  # those of the last 32 traces have not settled
    assert all(reward["quality"] is not None for reward in out.rewards)


def test_traces_run_at_the_same_time_and_are_whole() -> None:
    records = list(islice(TraceMaker(5).interleaved(), 16 * EVENTS_PER_TRACE))
    assert len({record["trace_id"] for record in records[:16]}) == 16
    assert set(Counter(record["trace_id"] for record in records).values()) == {EVENTS_PER_TRACE}
    assert {record["tenant"] for record in records} == set(TENANTS)


def test_event_times_are_evenly_spaced() -> None:
    records = list(spaced(TraceMaker(5).interleaved(), 5, FIRST_US, 100))
    assert [record["ts"] - FIRST_US for record in records] == [0, 100, 200, 300, 400]


def test_the_payload_says_how_long_a_record_is() -> None:
    encode = Codec("trace_event").encode
    sizes = [len(encode(r)) for r in spaced(TraceMaker(0).interleaved(), 4000, FIRST_US, 100)]
    assert f"about {sum(sizes) / len(sizes):.0f} bytes" in PAYLOAD
