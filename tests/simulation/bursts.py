"""What the agents of a simulated world write: short runs of events of a few traces, good, bad and repeated."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from learners.detector_settings import DetectorSettings
from learners.policies import Policies
from learners.spec import PolicySpec, RewardSpec
from steersman.arms import ArmSpace
from steersman.codec import Codec, Headers
from steersman.features import FeatureSpec
from streams.topics import MAX_STATE_BYTES
from streams.trace_stage import StageSettings
from tests.streams.trace_events import SCALES, WEIGHTS, S, decision, event, feedback, hex_id, span_id

_ARMS = ArmSpace({"model": ["small", "large"]})


def _policy(name: str, **reward: Any) -> PolicySpec:
    spec = RewardSpec(weights=WEIGHTS, scales=SCALES, window_s=5, **reward)
    return PolicySpec("default", name, _ARMS, _ARMS.labels[0], FeatureSpec(), spec)


POLICIES = Policies.of(_policy("p", default=0.25), _policy("mean", aggregation="mean", credit="trace"))
SETTINGS = StageSettings(window_us=2 * S, lateness_us=2 * S, horizon_us=120 * S)
"""Windows close within seconds; a trace without an end is remembered for longer than compaction waits."""


DETECTORS = DetectorSettings.model_validate(
    {
        "alerts_per_minute": 3, "ping_pong": {"switches": 2}, "retry_storm": {"failures": 2}, "runaway": {"cost_micro_usd": 30, "depth": 2},
        "plausible_but_wrong": {"below": 0.5}, "behaviour_drift": {"warm_up": 4, "threshold": 2.0}, "feedback_collapse": {"window": 4},
    }
)  # fmt: skip
"""Easily alarmed: such short runs of events are to raise alerts."""


class MemoCodec(Codec):
    """The codec, which remembers what it has decoded: the same bytes come by many times. Nobody changes what it returns."""

    def __init__(self, name: str) -> None:
        super().__init__(name, max_bytes=MAX_STATE_BYTES)
        self._known: dict[bytes, dict[str, Any]] = {}

    def decode(self, value: bytes | None, headers: Headers = ()) -> dict[str, Any]:
        known = self._known.get(value or b"")
        if known is None:
            known = super().decode(value, headers)
            if len(self._known) > 20_000:
                self._known.clear()
            self._known[value or b""] = known
        return known


CODECS = {name: MemoCodec(name) for name in ("trace_event", "reward", "rollup", "alert", "policy_snapshot", "ledger")}
_TRACES = [hex_id(f"trace {i}", 32) for i in range(4)]

Event = dict[str, Any]
Script = Callable[[str, int, int], list[Event]]
"""Trace id, event time and a number that makes the events unique, to events."""


def _decide(trace: str, ts: int, n: int) -> list[Event]:
    policy = ("p", "p", "mean")[n % 3]
    one = decision(ts, f"d{n}", trace=trace, policy=policy, arm=_ARMS.labels[n % 2], parent_span_id=span_id("root"))
    return [one, event("MODEL_CALL", ts + 1000, f"c{n}", trace=trace, parent_span_id=one["span_id"], cost_micro_usd=n)]


def _work(trace: str, ts: int, n: int) -> list[Event]:
    return [
        event("TOOL_CALL", ts, f"w{n}", trace=trace, parent_span_id=span_id("root"), duration_us=500, status="ERROR")
    ]


def _end(trace: str, ts: int, n: int) -> list[Event]:
    return [event("END", ts, f"e{n}", trace=trace)]


def _judge(trace: str, ts: int, n: int) -> list[Event]:
    return [feedback(ts, (n % 5) / 4, f"f{n}", trace=trace)]


def _whole(trace: str, ts: int, n: int) -> list[Event]:
    mine = hex_id(f"{trace} {n}", 32)
    return [*_decide(mine, ts, n), *_end(mine, ts + 2000, n), *_judge(mine, ts + 3000, n)]


def _other_tenant(trace: str, ts: int, n: int) -> list[Event]:
    return [event("AGENT", ts, f"o{n}", trace=trace, tenant="other", cost_micro_usd=7)]


def _invalid(trace: str, ts: int, n: int) -> list[Event]:
    return [decision(ts, f"d{n}", trace=trace, policy="nobody"), event("AGENT", -1, f"x{n}", trace=trace)]


def _late(trace: str, ts: int, n: int) -> list[Event]:
    return [event("MODEL_CALL", ts - 9 * S, f"l{n}", trace=trace, cost_micro_usd=3)]


def _skewed(trace: str, ts: int, n: int) -> list[Event]:
    return [event("RETRIEVAL", ts + 10**6 * S, f"s{n}", trace=trace)]


_SCRIPTS: list[Script] = [
    _decide, _decide, _work, _end, _judge, _judge, _whole, _whole, _other_tenant, _invalid, _late, _skewed
]  # fmt: skip


@lru_cache(maxsize=50_000)
def burst(choice: int, ts: int, number: int) -> list[bytes]:
    """Encoded events of the burst that a number from 0 to 255 stands for."""
    script = _SCRIPTS[(choice >> 2) % len(_SCRIPTS)]
    return [CODECS["trace_event"].encode(one) for one in script(_TRACES[choice & 3], ts, number)]
