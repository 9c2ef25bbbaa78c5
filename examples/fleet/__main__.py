"""Start the fleet: five processes (orchestrator, retrieval, synthesis, citation, judge), their progress, one summary."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from examples.fleet import judge, orchestrator, worker
from examples.fleet.runtime import Settings, stop_on_signal
from steersman import SteersmanError

WORKERS: tuple[str, ...] = ("retrieval", "synthesis", "citation")
START_S = 60.0
STOP_S = 15.0


class Child:
    """One agent process; its standard output is JSON lines, its standard error is ours."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
        self.role = role
        self.process = process
        self._output = output
        self.undelivered = 0

    @classmethod
    async def start(cls, role: str, settings: Settings, ports: dict[str, int]) -> Child:
        """Start the process of `role`, in a process group of its own so that Ctrl-C reaches it through us only."""
        arguments = json.dumps({"role": role, "settings": asdict(settings), "ports": ports})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.fleet", "--agent", arguments,
            stdout=subprocess.PIPE, start_new_session=True,
            # The matrices are tiny: threads of the linear algebra library would only fight over the cores.
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **os.environ},
        )  # fmt: skip
        if process.stdout is None:
            raise RuntimeError(f"{role} has no output to read")
        return cls(role, process, process.stdout)

    async def line(self) -> dict[str, Any] | None:
        """Return the next message, None at the end."""
        while line := await self._output.readline():
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    self.undelivered += message.get("undelivered", 0)
                    return message
        return None

    async def port(self) -> int:
        """Wait for the agent to listen; RuntimeError when it does not."""
        async with asyncio.timeout(START_S):
            while message := await self.line():
                if "port" in message:
                    return int(message["port"])
                warn(message)
        raise RuntimeError(f"{self.role} ended before it was ready (exit code {await self.process.wait()})")

    async def stop(self) -> None:
        """Ask the process to end and wait for it; make it end when it does not."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                while message := await self.line():
                    warn(message)
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


def warn(message: dict[str, Any]) -> None:
    """Show an agent's warning."""
    if "warning" in message:
        print(message["warning"], file=sys.stderr)


async def launch(settings: Settings, as_json: bool) -> int:
    """Run the fleet; return the exit code."""
    stop = stop_on_signal()
    children: list[Child] = []
    summary: dict[str, Any] | None = None
    try:
        for role in (*WORKERS, "judge"):
            children.append(await Child.start(role, settings, {}))
        ports = {child.role: await child.port() for child in children}
        lead = await Child.start("orchestrator", settings, ports)
        children.insert(0, lead)
        stopper = asyncio.create_task(_stop_lead(stop, lead))
        while message := await lead.line():
            warn(message)
            summary = message.get("summary", summary)
            if message.get("policy") is False:
                print("no policy yet: the agents start with their baselines", file=sys.stderr)
            if "progress" in message:
                show_progress(message, as_json)
        stopper.cancel()
    except (RuntimeError, TimeoutError) as error:
        if not stop.is_set():
            print(f"the fleet could not start: {error or 'an agent was not ready in time'}", file=sys.stderr)
            return 1
    finally:
        await asyncio.gather(*(child.stop() for child in children))
    if summary is None:
        if stop.is_set():
            return 0
        print("the orchestrator ended without a summary; its messages are above", file=sys.stderr)
        return 1
    summary["undelivered"] = sum(child.undelivered for child in children)
    if as_json:
        print(json.dumps(summary))
    else:
        show_summary(summary)
    if summary["undelivered"]:
        print(f"is Kafka running at {settings.brokers}?", file=sys.stderr)
        return 3
    return 1 if summary["failed"] and not summary["interactions"] else 0


async def _stop_lead(stop: asyncio.Event, lead: Child) -> None:
    await stop.wait()
    with contextlib.suppress(ProcessLookupError):
        lead.process.send_signal(signal.SIGTERM)


def show_progress(message: dict[str, Any], as_json: bool) -> None:
    """Print one line about the last interactions; on standard error when standard output is for JSON."""
    now = message["progress"]
    print(
        f"{message['seconds']:6.1f} s  {now['interactions']:6d} interactions  policy v{now['version']:<6d}"
        f"  {now['latency_ms'] / 1e3:5.2f} s  ${now['cost_usd']:.4f}  quality {now['quality']:.3f}"
        + (f"  fallback {now['fallback']:.0%}" if now["fallback"] else "")
        + (f"  failed {now['failed']}" if now["failed"] else ""),
        file=sys.stderr if as_json else sys.stdout,
        flush=True,
    )


def show_summary(summary: dict[str, Any]) -> None:
    """Print the run beside baseline and optimum."""
    print(
        f"\n{summary['interactions']} interactions, {summary['control']} of them in the control group"
        f", {sum(summary['failed'].values())} failed"
    )
    for title, key in (("whole run", "all"), ("last quarter", "last_quarter")):
        part = summary[key]
        print(f"\n{title:<14}{'latency':>10}{'cost':>10}{'quality':>10}{'complex':>10}{'regret':>10}")
        for name, row, extra in (
            ("baseline", part["baseline"], ("quality_complex_baseline", "regret_baseline")),
            ("learned", part, ("quality_complex", "regret")),
            ("optimum", part["optimum"], ()),
        ):
            more = "".join(f"{part[one]:>10.3f}" for one in extra)
            print(f"{name:<14}{row['latency_ms'] / 1e3:>8.2f} s{row['cost_usd']:>10.4f}{row['quality']:>10.3f}{more}")
        print(f"{'change':<14}{part['latency_change']:>10.1%}{part['cost_change']:>10.1%}")


def run_agent(arguments: str) -> int:
    """Run one agent process, as the launcher asked for it."""
    given = json.loads(arguments)
    role, settings = given["role"], Settings(**given["settings"])
    if role == "judge":
        asyncio.run(judge.run(settings))
    elif role == "orchestrator":
        asyncio.run(orchestrator.run(settings, given["ports"]))
    else:
        asyncio.run(worker.run(role, settings))
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("must be at least 0 and below 1")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    env = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m examples.fleet",
        description="A research assistant of four agents in a simulated world, deciding by Steersman's policies.",
    )
    parser.add_argument("--agent", help=argparse.SUPPRESS)
    parser.add_argument("--brokers", default=env("STEERSMAN_BROKERS", "127.0.0.1:9092"), help="Kafka, host:port list")
    parser.add_argument("--topic-prefix", default=env("STEERSMAN_TOPIC_PREFIX", "steersman"))
    parser.add_argument("--tenant", default=env("STEERSMAN_TENANT", "default"))
    parser.add_argument("--rate", type=_positive, default=40.0, help="interactions per second")
    parser.add_argument("--seconds", type=_not_negative, default=90.0, help="0: until stopped")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--holdout", type=_share, default=0.1, help="share of the interactions kept as control group")
    parser.add_argument("--time-scale", type=_not_negative, default=0.0, help="real seconds per simulated second")
    parser.add_argument("--wait", type=_not_negative, default=15.0, help="seconds to wait for the first policies")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    given = parser.parse_args(argv)
    if given.agent:
        return run_agent(given.agent)
    if given.seed < 0:
        parser.error("argument --seed: must be at least 0")
    settings = Settings(
        brokers=given.brokers,
        topic_prefix=given.topic_prefix,
        tenant=given.tenant,
        rate=given.rate,
        seconds=given.seconds,
        seed=given.seed,
        time_scale=given.time_scale,
        holdout=given.holdout,
        wait_s=given.wait,
    )
    return asyncio.run(launch(settings, given.json))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SteersmanError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
