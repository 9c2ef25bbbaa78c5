"""The whole platform with Apache Kafka on this machine, under a load of traces."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import say
from benchmarks.payload import POLICIES
from benchmarks.usage import cpu_of
from console.children import Child, ChildFailed, python
from console.lag import LagMeter
from console.stack import Stack
from sinks.clickhouse import connect
from sinks.settings import load_settings as sink_settings
from steersman.errors import SteersmanError
from streams.settings import StreamSettings

PARTITIONS = 4
FEED = "feed"
_SAMPLE_S = 1.0
_DRAIN_S = 180.0
_STORED = "SELECT uniqExact(kafka_partition, kafka_offset) FROM trace_events WHERE kind != 'TICK'"
_REWARDED = "SELECT uniqExact(decision_id) FROM rewards"
_DEAD = "SELECT count() FROM dead_letters"


class WrongCount(SteersmanError):
    """What is stored is not what was sent."""


@dataclass
class Load:
    """What was seen during a time of load.

    Attributes
    ----------
    rate
        Events a second that were asked for.
    seconds, events
        How long it was watched, and the events that the broker took meanwhile.
    worker_lag, sink_lag
        Records that each was behind, once a second; unit: records.
    cpu_us
        CPU time of each process for an event; unit: microseconds.
    """

    rate: float
    seconds: float = 0.0
    events: int = 0
    worker_lag: list[int] = field(default_factory=list)
    sink_lag: list[int] = field(default_factory=list)
    cpu_us: dict[str, float] = field(default_factory=dict)


class LoadedPlatform:
    """A running platform that can be loaded; made by `loaded_platform`.

    Attributes
    ----------
    stack
        Its parts.
    sent
        Events sent by all loads that have ended.
    """

    def __init__(self, stack: Stack, workers: int) -> None:
        self.stack = stack
        self.sent = 0
        self._loads = 0
        for number in range(2, workers + 1):
            stack.children.start(f"worker{number}", python("streams", "worker"), stack.env)
        t = stack.topics
        with environment({"STEERSMAN_TOPIC_PREFIX": t.prefix}):
            groups = StreamSettings().group, sink_settings().group
        self._worker_lag = LagMeter(stack.brokers, groups[0], [t.trace, t.reward])
        self._sink_lag = LagMeter(stack.brokers, groups[1], [t.trace, t.reward, t.rollup])
        self._trace = LagMeter(stack.brokers, groups[0], [t.trace])

    @contextlib.contextmanager
    def feeding(self, rate: float) -> Iterator[Child]:
        """Send traces at a rate while the block runs; the traces that have begun are ended behind it.

        Raises
        ------
        ChildFailed
            When the load failed.
        """
        self._loads += 1
        child = Child(
            f"{FEED}{self._loads}",
            python(
                "benchmarks.feed", "--brokers", self.stack.brokers, "--topic", self.stack.topics.trace,
                "--rate", str(rate), "--seed", str(self._loads),
            ),
            self.stack.logs,
        )  # fmt: skip
        try:
            child.wait_until(lambda: '"ready"' in child.log.read_text(), 60, "sending")
            yield child
        finally:
            code = child.stop(grace_s=60)
        if code:
            raise ChildFailed(f"the load ended with exit code {code}:\n{child.tail()}")
        self.sent += json.loads(child.tail(1))["sent"]

    def load(self, rate: float, seconds: float, settle_s: float = 3.0) -> Load:
        """Load it at a rate, and watch; the first `settle_s` seconds do not count."""
        seen = Load(rate)
        with self.feeding(rate) as child:
            time.sleep(settle_s)
            pids = self.stack.pids() | {FEED: child.pid, "this benchmark": os.getpid()}
            began, first, cpu = time.monotonic(), self.end(), cpu_of(pids)
            while time.monotonic() - began < seconds:
                time.sleep(_SAMPLE_S)
                self.stack.check()
                worker, sink = self.lags()
                if worker is not None and sink is not None:
                    seen.worker_lag.append(worker)
                    seen.sink_lag.append(sink)
            seen.events = self.end() - first
            seen.seconds = time.monotonic() - began
            seen.cpu_us = {name: (used - cpu[name]) / max(1, seen.events) * 1e6 for name, used in cpu_of(pids).items()}
        return seen

    def drain(self, left: int = 0) -> None:
        """Wait until worker and sink are no more than so many records behind.

        Raises
        ------
        ChildFailed
            When they do not.
        """

        def done() -> bool:
            return all(lag is not None and lag <= left for lag in self.lags())

        if not self.stack.wait(done, _DRAIN_S):
            raise ChildFailed(f"the platform was still behind after {_DRAIN_S:g} s; logs in {self.stack.logs}")

    def check_stored(self) -> None:
        """Compare what is stored with what was sent.

        Raises
        ------
        WrongCount
            When events are missing, rewards are, or there are dead letters.
        """
        self.drain()
        expected = self.sent, self.sent // 10, 0
        with contextlib.closing(connect(self.stack.clickhouse)) as client:

            def stored() -> tuple[int, ...]:
                return tuple(int(client.query(text).result_rows[0][0]) for text in (_STORED, _REWARDED, _DEAD))

            # Rewards of the last traces wait for their partition's clock.
            if not self.stack.wait(lambda: stored() == expected, 30.0):
                raise WrongCount(f"(events, rewards, dead letters) stored: {stored()}, expected: {expected}")

    def check_no_dead_letters(self) -> None:
        """Raise `WrongCount` when there are any."""
        with contextlib.closing(connect(self.stack.clickhouse)) as client:
            if dead := int(client.query(_DEAD).result_rows[0][0]):
                raise WrongCount(f"{dead} dead letters")

    def close(self) -> None:
        """Close the connections."""
        for meter in (self._worker_lag, self._sink_lag, self._trace):
            meter.close()

    def lags(self) -> tuple[int | None, int | None]:
        """Return the records that worker and sink are behind, None where the broker does not say."""
        return self._worker_lag.lag(), self._sink_lag.lag()

    def end(self) -> int:
        """Return the records ever written to the trace topic.

        Raises
        ------
        ChildFailed
            When the broker does not answer.
        """
        end = self._trace.end()
        if end is None:
            raise ChildFailed("the broker does not answer")
        return end


@contextlib.contextmanager
def loaded_platform(
    workers: int = 1, partitions: int = PARTITIONS, policies: Path = POLICIES, *, kafka: bool = True
) -> Iterator[LoadedPlatform]:
    """Start the platform, on Apache Kafka or else the embedded broker, in a folder that goes with it; nothing of it is left behind."""
    with (
        tempfile.TemporaryDirectory(prefix="steersman-bench-", ignore_cleanup_errors=True) as home,
        environment({"STEERSMAN_HOME": home, "STEERSMAN_TOPIC_PREFIX": "bench"}),
        Stack("loop", policies, kafka=kafka, partitions=partitions) as stack,
    ):
        stack.start(lambda step: say(f"loop: {step}"))
        platform = LoadedPlatform(stack, workers)
        try:
            yield platform
        finally:
            platform.close()


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of this process for a while: the console's parts find each other by them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
