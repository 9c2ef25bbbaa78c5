"""`python -m tests.faults.outages`: the broker away for 30 s while agents decide, and ClickHouse away for minutes.

Prints one JSON object; exit code 0 when what was promised held, 4 when not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from console.brokers import KafkaCluster
from console.verify.log_reader import LogReader
from steersman import Kind, PolicySubscriber, Router, Tracer
from steersman.codec import Codec
from steersman.headers import headers_of
from tests.faults.check import check
from tests.faults.fleet import SINK
from tests.faults.platform import Platform, Say
from tests.faults.progress import GroupWatch
from tests.faults.traces import Mix

POLICY = "faults/answer"
_CONTEXT = {"complexity": 0.4, "domain": "law"}


@dataclass
class Phase:
    """Decisions of some seconds.

    Attributes
    ----------
    wall_us, cpu_us
        What each call of `Router.choose` took, by the clock and of its thread's CPU time.
    queued
        Most events that waited in the tracer.
    rss_mib
        Largest resident memory of the process.
    """

    wall_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    queued: int = 0
    rss_mib: float = 0.0

    def summary(self) -> dict[str, float]:
        return {
            "decisions": len(self.wall_us),
            "choose_p50_us": round(_quantile(self.wall_us, 0.5), 1),
            "choose_p99_us": round(_quantile(self.wall_us, 0.99), 1),
            "choose_cpu_p99_us": round(_quantile(self.cpu_us, 0.99), 1),
            "queued_at_most": self.queued,
            "rss_mib": round(self.rss_mib, 1),
        }


def broker_outage(folder: Path, say: Say, *, seconds: float = 30.0, rate: float = 250.0) -> dict[str, Any]:
    """Let an agent decide while the broker is there, is killed and stays away, and is back.

    Parameters
    ----------
    folder
        Where data and logs go.
    say
        Takes progress.
    seconds
        Length of each of the three phases.
    rate
        Decisions a second; each makes four events.
    """
    with Platform(folder, "outage") as platform:
        topics, brokers = platform.topics, platform.kafka.bootstrap
        tracer = Tracer("agent", tenant="alpha", brokers=brokers, topics=topics)
        subscriber = PolicySubscriber(brokers, topics=topics, tenant="alpha", policies=[POLICY]).start()
        router = Router(subscriber, tracer, baselines={POLICY: {"model": "large", "top_k": 8}}, seed=1)
        platform.wait_until(lambda: subscriber.get(POLICY) is not None, 60, "a policy")
        phases: dict[str, Phase] = {}
        decide(router, tracer, 5.0, rate)  # warm
        for name in ("before", "away", "after"):
            say(f"broker {name}: {rate:.0f} decisions a second for {seconds:.0f} s")
            if name == "away":
                platform.kafka.brokers[0].child.kill()
            if name == "after":
                platform.kafka.restart(0)
            phases[name] = decide(router, tracer, seconds, rate)
        left = tracer.flush(60)
        stats = tracer.stats()
        tracer.close()
        subscriber.close()
        in_kafka = _records_of(platform.kafka, topics.trace, "agent")
    acked, dropped = stats["sent"], sum(stats["dropped"].values())
    ratio = _quantile(phases["away"].wall_us, 0.99) / _quantile(phases["before"].wall_us, 0.99)
    return {
        "phases": {name: phase.summary() for name, phase in phases.items()},
        "choose_p99_away_over_before": round(ratio, 3),
        "events": stats["enqueued"],
        "acknowledged": acked,
        "dropped_and_counted": dropped,
        "unaccounted": stats["enqueued"] - acked - dropped - left,
        "distinct_in_kafka": in_kafka,
        "lost_acknowledged": max(0, acked - in_kafka),
        "ok": ratio <= 1.10 and acked <= in_kafka and left == 0 and stats["enqueued"] == acked + dropped,
    }


def decide(router: Router, tracer: Tracer, seconds: float, rate: float) -> Phase:
    """Decide at an even pace, each decision in a trace of its own, which ends with its span and is judged."""
    phase = Phase()
    started = time.perf_counter()
    for n in range(int(seconds * rate)):
        if (wait := started + n / rate - time.perf_counter()) > 0:
            time.sleep(wait)
        with tracer.span(Kind.AGENT, operation="answer"):
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            decision = router.choose(POLICY, _CONTEXT)
            phase.cpu_us.append((time.thread_time_ns() - cpu) / 1e3)
            phase.wall_us.append((time.perf_counter_ns() - wall) / 1e3)
        tracer.feedback(decision, metric="quality", value=0.5)
        if n % 50 == 0:
            phase.queued = max(phase.queued, tracer.stats()["remaining"])
            phase.rss_mib = max(phase.rss_mib, _rss_mib())
    return phase


def store_outage(
    folder: Path, say: Say, *, away_s: float = 300.0, rate: float = 2000.0, seed: int = 1
) -> dict[str, Any]:
    """Take ClickHouse away under load, bring it back under the same load, and time how the sink catches up.

    Parameters
    ----------
    folder
        Where data and logs go.
    say
        Takes progress.
    away_s
        How long it is away; unit: seconds.
    rate
        Events a second.
    seed
        Of the load.
    """
    before_s, after_s = 20.0, max(60.0, away_s)
    with Platform(folder, "store", env={"STEERSMAN_SINK_RETRY_MAX_S": "5"}) as platform:
        sink, workers = platform.watch("sink"), platform.watch("streams")
        ledger = folder / "ledger.jsonl"
        load = platform.load(seed, int(rate * (before_s + away_s + after_s)), rate, ledger, Mix())
        time.sleep(before_s)
        say(f"ClickHouse is killed, for {away_s:.0f} s")
        platform.gateway.kill()
        versions = [_version(platform)]
        worst_lag = 0
        memory: list[float] = []
        deadline = time.monotonic() + away_s
        while time.monotonic() < deadline:
            time.sleep(min(10.0, away_s / 4))
            versions.append(_version(platform))
            worst_lag = max(worst_lag, _lag(workers))
            memory.append(_rss_mib(platform.fleet.pid(SINK)))
        backlog = _lag(sink)
        say(f"ClickHouse is back; {backlog} records wait")
        platform.gateway.restart()
        began, first = time.monotonic(), sink.look()
        # Everything that was written until now and what keeps coming: caught up is when nothing is left but a flush.
        platform.wait_until(lambda: _lag(sink) <= rate * 1.5, 600, "the sink to catch up")
        took, last = time.monotonic() - began, sink.look()
        assert first is not None
        assert last is not None
        stored = sum(last.committed[place] - offset for place, offset in first.committed.items())
        written = sum(last.ends[place] - end for place, end in first.ends.items())
        say(f"caught up after {took:.1f} s; waiting for the load and for everything to be processed")
        platform.wait_until(lambda: load.exit_code is not None, 900, "the end of the load")
        answer = platform.settle(300, [ledger])
        findings = check(platform.kafka.direct, platform.gateway.url, platform.topics, [ledger])
        sink.close()
        workers.close()
    grew = all(later > earlier for earlier, later in pairwise(versions))
    times_real = stored / written if written else float("inf")
    lost, doubled = sum(f.lost for f in findings), sum(f.doubled + f.altered for f in findings)
    return {
        "away_s": away_s,
        "events_per_s": rate,
        "policy_versions_while_away": versions,
        "learning_went_on": grew,
        "worker_lag_at_most": worst_lag,
        "backlog_records": backlog,
        "sink_rss_mib": [round(min(memory), 1), round(max(memory), 1)],
        "catch_up_s": round(took, 1),
        "catch_up_records_per_s": round(stored / took),
        "catch_up_times_real_time": round(times_real, 2),
        "lost": lost,
        "doubled": doubled,
        "verify": answer["ok"],
        "ok": grew and lost == doubled == 0 and answer["ok"] and times_real >= 3,
    }


def _version(platform: Platform) -> int:
    """Newest version of a policy, as an agent that comes now would have it."""
    topics = platform.topics
    with PolicySubscriber(platform.kafka.direct, topics=topics, tenant="alpha", policies=[POLICY]) as subscriber:
        subscriber.start()
        assert subscriber.wait_ready(20)
        held = subscriber.get(POLICY)
        return 0 if held is None else held.snapshot.version


def _lag(group: GroupWatch) -> int:
    look = group.look()
    return 1 << 60 if look is None else look.lag


def _records_of(kafka: KafkaCluster, topic: str, agent: str) -> int:
    """Distinct events of an agent in a topic."""
    codec = Codec("trace_event")
    with LogReader(kafka.direct, topic) as reader:
        events = (codec.decode(m.value(), headers_of(m)) for m in reader.read())
        return len({event["event_id"] for event in events if event["agent"] == agent})


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[int(len(values) * q)]


def _rss_mib(pid: int | None = None) -> float:
    with open(f"/proc/{pid or os.getpid()}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.outages", description=__doc__)
    parser.add_argument("which", choices=["broker", "store"], nargs="+")
    parser.add_argument("--away-s", type=float, default=300.0, help="how long ClickHouse is away (default 300)")
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second meanwhile (default 2000)")
    args = parser.parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found: dict[str, Any] = {}
    for which in args.which:
        with tempfile.TemporaryDirectory(prefix=f"outage-{which}-") as folder:
            if which == "broker":
                found[which] = broker_outage(Path(folder), say)
            else:
                found[which] = store_outage(Path(folder), say, away_s=args.away_s, rate=args.rate)
    print(json.dumps(found))
    return 0 if all(one["ok"] for one in found.values()) else 4


if __name__ == "__main__":
    sys.exit(main())
