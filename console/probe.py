"""Reaction time: from a feedback event to a decision of another process that uses the version it led to.

A decider process (`python -m console.probe`) asks its router whenever a new version of the probe's policy arrives and
prints the decision. The process that started it gives feedback on that decision; the reward leads to the next version,
and so on. One sample is the time between the call of `feedback` here and the decision there; both read the same
machine's clock.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from console.children import Child, python
from steersman import Kind, PolicySubscriber, Router, Topics, Tracer

POLICY = "probe/reaction"
TIMEOUT_S = 5.0
PAUSE_S = 0.15


class ReactionProbe:
    """Measures reaction times in the background until stopped.

    Parameters
    ----------
    env
        Environment in which the decider finds the broker.
    brokers, topics
        Where feedback is published.
    log_dir
        Where the decider's output goes; it is the pipe between the two as well.
    """

    def __init__(self, env: Mapping[str, str], brokers: str, topics: Topics, log_dir: Path):
        self.samples_ms: list[float] = []
        self.missed = 0
        self._lines: queue.Queue[dict[str, int | str]] = queue.Queue()
        self._stop = threading.Event()
        self._tracer = Tracer("probe-judge", brokers=brokers, topics=topics)
        self._decider = Child("probe", python("console.probe"), log_dir, env)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._worker = threading.Thread(target=self._run, daemon=True)
        self._reader.start()
        self._worker.start()

    def _read(self) -> None:
        with self._decider.log.open() as log:
            partial = ""
            while not self._stop.is_set():
                partial += log.readline()
                if not partial.endswith("\n"):
                    self._stop.wait(0.002)
                    continue
                if partial.startswith("{"):
                    self._lines.put(json.loads(partial))
                partial = ""

    def _run(self) -> None:
        decision = self._next(30.0)
        while decision is not None or not self._stop.is_set():
            if decision is None:
                decision = self._next(TIMEOUT_S)
                continue
            if self._stop.wait(PAUSE_S):
                return
            sent_ns = time.time_ns()
            self._tracer.feedback(str(decision["decision_id"]), metric="quality", value=1.0, source="probe")
            before = int(decision["version"])
            decision = self._next(TIMEOUT_S)
            while decision is not None and int(decision["version"]) <= before:
                decision = self._next(TIMEOUT_S)
            if decision is None:
                self.missed += not self._stop.is_set()
            else:
                self.samples_ms.append((int(decision["at_ns"]) - sent_ns) / 1e6)

    def _next(self, timeout_s: float) -> dict[str, int | str] | None:
        deadline = time.monotonic() + timeout_s
        while not self._stop.is_set() and time.monotonic() < deadline:
            try:
                return self._lines.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def percentile_ms(self, share: float) -> float | None:
        """Return a percentile of the samples in milliseconds (nearest rank), None without samples."""
        ordered = sorted(self.samples_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def stop(self) -> None:
        self._stop.set()
        self._worker.join(2)
        self._reader.join(2)
        self._tracer.close()
        self._decider.stop(5)


def decide(brokers: str, topics: Topics) -> None:
    """Decide once for every new version of the probe's policy, and print each decision as a line of JSON."""
    tracer = Tracer("probe", brokers=brokers, topics=topics)
    subscriber = PolicySubscriber(brokers, policies=[POLICY], topics=topics)
    router = Router(subscriber, tracer, seed=0)
    changed = threading.Event()
    stop = threading.Event()

    def end(*_: object) -> None:
        stop.set()
        changed.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    subscriber.on_change(lambda held: changed.set() if held.snapshot.policy == POLICY else None)
    subscriber.start()
    seen = -1
    while not stop.is_set():
        # Twice the parent's patience: a lost round is started again with a fresh decision.
        arrived = changed.wait(2 * TIMEOUT_S)
        changed.clear()
        held = subscriber.get(POLICY)
        if stop.is_set() or held is None or (arrived and held.snapshot.version <= seen):
            continue
        with tracer.span(Kind.AGENT, operation="probe"):
            decision = router.choose(POLICY, {"load": 0.0})
            at_ns = time.time_ns()
        seen = held.snapshot.version if decision.policy_version is None else decision.policy_version
        sys.stdout.write(json.dumps({"decision_id": decision.decision_id, "version": seen, "at_ns": at_ns}) + "\n")
        sys.stdout.flush()
    subscriber.close()
    tracer.close()


if __name__ == "__main__":
    from console.target import resolve

    argparse.ArgumentParser(description="Decider of the reaction probe; started by 'steersman demo'.").parse_args()
    where = resolve()
    decide(where.brokers, Topics(where.prefix))
