"""Recorded agent runs as trace events: 788 runs of tau2-bench (airline, retail, telecom) with tokens, cost and errors.

`python -m examples.traces --file tau2_traces.jsonl.gz` sends them through the live loop; `run_events` is the map:

- the run is a trace: a root AGENT span ``run``, in it an AGENT span ``agent`` that all the agent did belongs to;
- an assistant step with token counts is a MODEL_CALL, one without a REASONING step; its cost is the file's;
- a user step with token counts is a MODEL_CALL of the user simulator, outside the agent's span;
- a tool step is a TOOL_CALL, with status ERROR where the file says so, beneath whoever called the tool;
- the choice of the model is a DECISION of policy ``tau2/run``. How it came about is not recorded, so it is logged as the
  baseline of a fallback (propensity 1, no features), and no learner takes it for an experiment;
- the end is the FEEDBACK ``task_reward`` and END.

Costs are integers: each step gets the growth of the rounded running total, so that a run's sum is the rounded sum.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steersman import ConfigError, Kind, Mode, Status, Topics, Tracer

POLICY = "tau2/run"
METRIC = "task_reward"
Run = dict[str, Any]
Event = dict[str, Any]


def load_runs(path: Path) -> list[Run]:
    """Read the runs of a ``.jsonl`` or ``.jsonl.gz`` file; ConfigError when it is missing or something else."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            runs = [json.loads(line) for line in lines if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read it as JSON lines: {error}") from error
    for number, run in enumerate(runs, 1):
        if not isinstance(run, dict) or not run.get("steps") or "reward" not in run:
            raise ConfigError(f"{path}: line {number} is not a recorded run: it needs steps and a reward")
    return runs


def start_us(run: Run) -> int:
    """Return when the run began, taken as UTC; unit: microseconds since 1970-01-01 UTC."""
    began = datetime.fromisoformat(run["start_time"])
    began = began.replace(tzinfo=UTC) if began.tzinfo is None else began
    return round(began.timestamp() * 1e6)


def _id(digits: int, *parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=digits // 2).hexdigest()


def _step_times_us(run: Run) -> list[int]:
    """Microseconds from the start of each step; evenly spread over the run where the file has no times."""
    steps = run["steps"]
    if all(step.get("t") is not None for step in steps):
        return [round(step["t"] * 1e6) for step in steps]
    return [round(run["duration_s"] * 1e6 * (i + 1) / len(steps)) for i in range(len(steps))]


def micro_usd(dollars: float) -> int:
    """Return whole millionths of a dollar, ties to even; the noise of floating-point sums does not break ties."""
    return round(round(dollars * 1e6, 6))


class _Purse:
    """Turns dollars into whole micro-dollars without drift."""

    def __init__(self) -> None:
        self._dollars = 0.0
        self._micro = 0

    def take(self, dollars: float | None) -> int | None:
        if dollars is None:
            return None
        self._dollars += dollars
        before, self._micro = self._micro, micro_usd(self._dollars)
        return self._micro - before


def run_events(run: Run, number: int, began_us: int, salt: str = "") -> list[Event]:
    """Map one run to trace events in order of time.

    Parameters
    ----------
    run
        A record of the file.
    number
        Its line, which with `salt` makes all ids: the same arguments give the same events.
    began_us
        Event time of its start; unit: microseconds since 1970-01-01 UTC.
    """
    trace_id = _id(32, "trace", salt, number)
    root, agent, choice = (_id(16, name, salt, number) for name in ("run", "agent", "decision"))
    times, duration_us = _step_times_us(run), round(run["duration_s"] * 1e6)
    events: list[Event] = []

    def add(kind: Kind, at_us: int, span_id: str | None = None, parent: str | None = None, **fields: Any) -> None:
        events.append(
            {
                "event_id": _id(32, "event", salt, number, len(events)),
                "trace_id": trace_id,
                "span_id": span_id or _id(16, "span", salt, number, len(events)),
                "parent_span_id": parent,
                "session_id": f"{run['domain']}-{run['task_id']}",
                "agent": run["agent"],
                "kind": kind,
                "ts": began_us + at_us,
                **fields,
            }
        )

    add(Kind.DECISION, 0, choice, agent, decision_id=f"{trace_id}-{choice}", policy=POLICY, arm=f"model={run['model']}",
        propensity=1.0, explored=False, mode=Mode.FALLBACK, reason="recorded",
        context=json.dumps({"domain": run["domain"]}))  # fmt: skip
    purses = {"assistant": _Purse(), "user": _Purse()}
    calls: list[tuple[str, str, int]] = []  # tools called and not yet answered: caller's span, name, time
    before_us = 0
    for step, at_us in zip(run["steps"], times, strict=True):
        role = step["role"]
        if role == "tool":
            parent, name, called_us = calls.pop(0)
            failed = bool(step.get("error"))
            add(Kind.TOOL_CALL, at_us, None, parent, operation=name, duration_us=at_us - called_us,
                status=Status.ERROR if failed else Status.OK, error="ToolError" if failed else None,
                cost_micro_usd=0)  # fmt: skip
            before_us = at_us
            continue
        parent = agent if role == "assistant" else root
        calls += [(parent, tool["name"], at_us) for tool in step.get("tools", ())]
        if role == "assistant" or "ptok" in step:
            counted = "ptok" in step
            add(Kind.MODEL_CALL if counted else Kind.REASONING, at_us, None, parent,
                operation=run["model"] if role == "assistant" else run.get("user_model"),
                duration_us=at_us - before_us, input_tokens=step.get("ptok"), output_tokens=step.get("ctok"),
                cost_micro_usd=purses[role].take(step.get("cost")))  # fmt: skip
        before_us = at_us
    closing_us = max(duration_us, times[-1])
    add(Kind.AGENT, duration_us, agent, root, operation="agent", duration_us=duration_us)
    add(Kind.AGENT, closing_us, root, operation="run", duration_us=closing_us,
        attributes=json.dumps({"domain": run["domain"], "termination": run["termination"]}))  # fmt: skip
    add(Kind.FEEDBACK, closing_us, metric=METRIC, value=float(run["reward"]), source="recorded")
    add(Kind.END, closing_us, root)
    return sorted(events, key=lambda event: int(event["ts"]))


def timeline(runs: Sequence[Run]) -> Iterator[Event]:
    """Yield the events of all runs at their original times, in order of time."""
    every = [event for number, run in enumerate(runs) for event in run_events(run, number, start_us(run))]
    return iter(sorted(every, key=lambda event: int(event["ts"])))


def shifted(runs: Sequence[Run]) -> Iterator[Event]:
    """Yield the runs one after the other, each moved in time to end now, under new ids."""
    salt = str(time.time_ns())
    for number, run in enumerate(runs):
        length_us = max(round(run["duration_s"] * 1e6), _step_times_us(run)[-1])
        yield from run_events(run, number, time.time_ns() // 1000 - length_us, salt)


def send(events: Iterator[Event], tracer: Tracer, rate: float, stop: threading.Event) -> int:
    """Send `events` at `rate` events a second (0: as fast as they are delivered); return how many were taken."""
    sent, started = 0, time.monotonic()
    for event in events:
        if stop.is_set():
            break
        sent += tracer.emit(event)
        if rate:
            stop.wait(max(0.0, started + sent / rate - time.monotonic()))
        elif sent % 2000 == 0:
            tracer.flush(30.0)
    return sent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    env = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m examples.traces", description="Recorded agent runs as trace events."
    )
    parser.add_argument("--file", type=Path, required=True, help="tau2_traces.jsonl.gz, or another file of that form")
    parser.add_argument("--brokers", default=env("STEERSMAN_BROKERS", "127.0.0.1:9092"), help="Kafka, host:port list")
    parser.add_argument("--topic-prefix", default=env("STEERSMAN_TOPIC_PREFIX", "steersman"))
    parser.add_argument("--tenant", default=env("STEERSMAN_TENANT", "default"))
    parser.add_argument("--rate", type=float, default=0.0, help="events per second, 0: as fast as they are delivered")
    parser.add_argument("--limit", type=int, help="runs at most")
    parser.add_argument(
        "--original", action="store_true", help="keep the recorded times, for topics that hold nothing else"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    given = parser.parse_args(argv)
    if not 0 <= given.rate < float("inf") or (given.limit is not None and given.limit < 1):
        parser.error("--rate must be at least 0 and --limit at least 1")
    try:
        runs = load_runs(given.file)[: given.limit]
        tracer = Tracer("tau2", tenant=given.tenant, brokers=given.brokers, topics=Topics(given.topic_prefix))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sent = send(timeline(runs) if given.original else shifted(runs), tracer, given.rate, stop)
    left = tracer.close(15.0)
    result = {
        "runs": len(runs),
        "events": sent,
        "undelivered": left,
        "mean_task_reward": sum(run["reward"] for run in runs) / len(runs) if runs else 0.0,
        "tool_errors": sum(run["tool_errors"] for run in runs),
    }
    if given.json:
        print(json.dumps(result))
    else:
        print(f"{sent} events of {len(runs)} runs sent, {left} undelivered; the rewards are those of policy {POLICY}")
    if left:
        print(f"not all events reached {given.brokers}: is Kafka running there?", file=sys.stderr)
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
