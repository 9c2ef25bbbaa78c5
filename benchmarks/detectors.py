"""`python -m benchmarks.detectors`: recall and precision of the detectors, and how long an alert takes.

Recall and precision: labelled cases (`benchmarks.detector_traces`, `benchmarks.detector_policies`) of seeds that no threshold was
set on, through the stages without Kafka. Time of an alert: the whole platform with Apache Kafka on this machine, under a load of
traces; from the moment at which the event that triggers the alert is handed to the producer to the moment at which a consumer of
the alert topic has the alert.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import broker
from benchmarks.detector_policies import POLICY_CASES, policy_cases
from benchmarks.detector_quality import Score, added, as_record, score_policies, score_traces
from benchmarks.detector_traces import TRACE_CASES, Script, trace_case, trace_cases
from benchmarks.loop_platform import loaded_platform
from benchmarks.measure import Figure, add_out, alone, header, percentile, say, write
from benchmarks.payload import PAYLOAD as TRACES
from benchmarks.payload import POLICIES
from learners.policies import Policies
from learners.policies_file import load_policies, parse_policies
from learners.spec import PolicySpec
from sinks.clickhouse import connect
from steersman.codec import Codec
from steersman.kafka_config import kafka_logger, producer_config
from streams.detect.catalog import POLICY

SEEDS = tuple(range(101, 111))
"""Held out: thresholds were set on seeds below 100."""
RATE = 5_000.0
SECONDS = 90.0
"""So that each of the policies that are made to fail has the 380 decisions after which its collapse shows: 5.4 come a second."""
_TRACES = 100
_STREAMS = 20
_LIVE = 40  # policies that are made to fail
_WARM_S = 5.0
_POLICY = """
[[policy]]
name = "cases/{number}"
baseline = {{ side = "left" }}
[policy.knobs]
side = ["left", "right"]
[policy.reward]
window_s = 600.0
weights = {{ quality = 1.0 }}
[policy.exploration]
floor = 0.1
"""
PAYLOAD = (
    f"recall and precision: {len(SEEDS)} held-out seeds, each {_TRACES} traces of every detector of traces and decisions and "
    f"{_STREAMS} reward streams of every detector of policies, about half of them benign look-alikes; time of an alert: cases at "
    f"{_LIVE} policies, in the background {TRACES}; 4 partitions; Kafka, worker, sink, ClickHouse (chDB) and load on one machine"
)


def quality(policies: Policies, policy: PolicySpec, seeds: Sequence[int]) -> dict[str, Score]:
    """Score every detector on cases of these seeds."""
    parts = []
    for seed in seeds:
        say(f"detectors: cases of seed {seed}")
        parts.append(score_traces(trace_cases(seed, policy, _TRACES), policies, policies.detectors))
        parts.append(score_policies(policy_cases(seed, _STREAMS), policies.detectors))
    return added(parts)


@dataclass
class Live:
    """What was sent, and which alerts came.

    Attributes
    ----------
    last_us
        Trace -> when its last event was sent.
    labels
        Trace -> detector that is to hit.
    delays_ms
        Detector -> time of each alert.
    """

    last_us: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    delays_ms: dict[str, list[float]] = field(default_factory=dict)
    hit: set[tuple[str, str]] = field(default_factory=set)
    sent: int = 0
    read: int = 0
    stored: int = 0


class _Alerts(threading.Thread):
    """Reads the alert topic."""

    def __init__(self, brokers: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": "benchmark-alerts",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self._codec = Codec("alert")
        self._closing = threading.Event()
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def run(self) -> None:
        """Read until it is closed."""
        while not self._closing.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.seen.append((time.time_ns() // 1000, self._codec.decode(message.value())))
        self._consumer.close()

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self.join(10)


class _Failing:
    """A policy whose rewards degrade, drift and collapse, one after the other."""

    def __init__(self, rng: random.Random, policy: PolicySpec) -> None:
        self._rng, self._policy = rng, policy
        self._made = 0

    def trace(self) -> Script:
        """The next trace."""
        rng, number = self._rng, self._made
        self._made += 1
        script = Script(rng, self._policy)
        script.agent = self._policy.name
        script.decide()
        decision = script.events[-1]
        late = number >= 180
        full = number < 140 and number % 4 < 2
        decision["arm"] = self._policy.arms.labels[1 if late else number % 2]
        decision["propensity"] = 1.0 - 1e-6 if late else 0.5
        script.model(
            context_tokens=int(128_000 * (0.9 if full else 0.2)),
            cost_micro_usd=int(rng.uniform(900, 1_100) * (1 if number < 140 else 20)),
        )
        script.close(min(1.0, max(0.35, rng.gauss(0.75, 0.05) - (0.3 if full else 0.0))))
        return script


def live(
    brokers: str, topics: Any, policies: Sequence[PolicySpec], probe: PolicySpec, rate: float, seconds: float
) -> Live:
    """Send cases at a rate of events for so long, and watch the alerts."""
    rng = random.Random(977)  # noqa: S311 - cases, not secrets
    made, encode = Live(), Codec("trace_event").encode
    producer = Producer(producer_config(brokers, {"linger.ms": 5}), logger=kafka_logger)
    alerts = _Alerts(brokers, topics.alert)
    alerts.start()
    failing = [_Failing(rng, policy) for policy in policies]
    kinds = list(TRACE_CASES)
    due: list[tuple[int, int, list[dict[str, Any]]]] = []
    started = time.monotonic()
    number, planned = 0, 0
    while (now := time.monotonic() - started) < seconds:
        while planned < rate * now:
            if number % 24 == 0:
                case = trace_case(rng, probe, kinds[number // 24 % len(kinds)], positive=True)
                events = case.events
                made.labels[events[0]["trace_id"]] = case.label
            else:
                events = rng.choice(failing).trace().events
            number += 1
            planned += len(events)
            heappush(due, (time.time_ns() // 1000 + events[0]["after_us"], number, list(reversed(events))))
        while due and due[0][0] <= time.time_ns() // 1000:
            _, place, events = heappop(due)
            event = events.pop()
            now_us = time.time_ns() // 1000
            fields = {name: value for name, value in event.items() if name != "after_us"} | {"ts": now_us}
            producer.produce(topics.trace, encode(fields), event["trace_id"].encode())
            made.last_us[event["trace_id"]] = now_us
            made.sent += 1
            if events:
                heappush(due, (now_us + events[-1]["after_us"], place, events))
        producer.poll(0)
        time.sleep(0.001)
    unfinished = {events[-1]["trace_id"] for _, _, events in due}
    producer.flush(10)
    time.sleep(5)
    alerts.close()
    of_policies = {make.name for make in POLICY} | {"plausible_but_wrong"}
    made.read = len({alert["alert_id"] for _, alert in alerts.seen})
    for seen_us, alert in alerts.seen:
        trace, detector = alert["trace_id"], alert["detector"]
        if trace not in made.last_us:
            continue
        # A trace detector's alert has the time of the event that triggered it; a reward closes after the last event of its trace.
        trigger_us = made.last_us[trace] if detector in of_policies else alert["ts"]
        made.delays_ms.setdefault(detector, []).append((seen_us - trigger_us) / 1000)
        made.hit.add((trace, detector))
    made.labels = {trace: label for trace, label in made.labels.items() if trace not in unfinished}
    return made


def measure(rate: float, seconds: float) -> tuple[Live, int]:
    """Run the platform, and cases at it; returns what was seen and the alerts that live cases should have had and did not."""
    with tempfile.TemporaryDirectory(prefix="steersman-detectors-") as folder:
        file = Path(folder) / "policies.toml"
        text = POLICIES.read_text() + "".join(_POLICY.format(number=number) for number in range(_LIVE + 1))
        file.write_text(text + "\n[detectors]\nalerts_per_minute = 10000\n")
        policies = load_policies(file)
        cases = [policy for policy in policies if policy.name.startswith("cases/")]
        own = 0.25 * rate
        with loaded_platform(policies=file) as platform, platform.feeding(rate - own):
            time.sleep(_WARM_S)
            stack = platform.stack
            seen = live(stack.brokers, stack.topics, cases[1:], cases[0], own, seconds)
            stack.check()

            def stored() -> bool:
                with contextlib.closing(connect(stack.clickhouse)) as client:
                    seen.stored = int(client.query("SELECT uniqExact(alert_id) FROM v_alerts").result_rows[0][0])
                return seen.stored >= seen.read

            stack.wait(stored, 30.0)
        missed = sum((trace, label) not in seen.hit for trace, label in seen.labels.items())
        return seen, missed


def records(scores: dict[str, Score], seen: Live | None) -> Iterator[dict[str, Any]]:
    """One record for each detector."""
    for detector in (*TRACE_CASES, *POLICY_CASES):
        delays = seen.delays_ms.get(detector, []) if seen is not None else []
        yield {
            "detector": detector,
            **as_record(scores[detector]),
            "alert_p50_ms": round(percentile(delays, 0.5), 1) if delays else None,
            "alert_p99_ms": round(percentile(delays, 0.99), 1) if delays else None,
            "alert_max_ms": round(max(delays), 1) if delays else None,
            "alerts_timed": len(delays),
            "judged_wrongly": dict(scores[detector].by_case),
        }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `detectors.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.detectors --seeds 101 102 --no-live --out /tmp/bench",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the labelled cases")
    parser.add_argument("--rate", type=float, default=RATE, help=f"events a second, cases included (default {RATE:g})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of cases under load (default {SECONDS:g})")
    parser.add_argument("--no-live", action="store_true", help="recall and precision only")
    add_out(parser)
    options = parser.parse_args(argv)
    policies = parse_policies(_POLICY.format(number=0))
    policy = next(iter(policies))
    scores = quality(policies, policy, options.seeds)
    seen, missed = (None, 0) if options.no_live else measure(options.rate, options.seconds)
    found = list(records(scores, seen))
    figures: list[Figure] = []
    for one in found:
        for metric, unit, name in (
            ("recall", "share", "recall"),
            ("precision", "share", "precision"),
            ("alert p99", "ms", "alert_p99_ms"),
        ):
            if one[name] is not None:
                figures.append(Figure(one["detector"], metric, unit, one[name], one[name], one[name], 1))
        say(str({name: value for name, value in one.items() if name != "judged_wrongly"}))
    about: dict[str, Any] = {"detectors": found, "figures": [vars(figure) for figure in figures]}
    if seen is not None:
        about["live"] = {
            "events_per_s": options.rate, "seconds": options.seconds, "cases_sent": seen.sent,
            "alerts_read": seen.read, "alerts_stored": seen.stored, "labelled_traces": len(seen.labels), "labelled_traces_without_alert": missed,
            "alerts": dict(Counter({name: len(delays) for name, delays in seen.delays_ms.items()})),
        }  # fmt: skip
        say(str(about["live"]))
    head = header(PAYLOAD, "python -m benchmarks.detectors", broker.VERSIONS)
    print(f"-> {write('detectors', head, about, options.out)}")


if __name__ == "__main__":
    raise SystemExit(alone(main))
