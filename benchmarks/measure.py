"""Timing by repeats, and the form of the results."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steersman.errors import SteersmanError

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "river", "fastavro", "confluent-kafka", "faust-streaming", "clickhouse-connect", "chdb")


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes
    ----------
    system
        What was measured.
    metric, unit
        What the figure is.
    median, min, max
        Over the repeats.
    repeats
        How often it was measured.
    cpu_us_per_event
        CPU time of this process per event or call; unit: microseconds. None where it is the figure itself.
    """

    system: str
    metric: str
    unit: str
    median: float
    min: float
    max: float
    repeats: int
    cpu_us_per_event: float | None = None


def per_call_us(system: str, metric: str, work: Callable[[], int], repeats: int = 7) -> Figure:
    """Time a piece of work that returns how many calls or events it made.

    Parameters
    ----------
    system, metric
        Names of the figure.
    work
        Called once to warm up, then `repeats` times.

    Returns
    -------
    Figure
        Wall time per call; unit: microseconds.
    """
    work()
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        n = work()
        cpu.append((time.process_time() - cpu_started) / n * 1e6)
        wall.append((time.perf_counter() - started) / n * 1e6)
    return Figure(system, metric, "us", *spread(wall), repeats, round(statistics.median(cpu), 3))


def percentiles_us(
    system: str,
    metric: str,
    call: Callable[[], object],
    calls: int = 5000,
    repeats: int = 5,
    between: Callable[[], object] = lambda: None,
) -> list[Figure]:
    """Time single calls and return their median and 99th percentile; unit: microseconds. What runs `between` is not timed."""
    p50: list[float] = []
    p99: list[float] = []
    for _ in range(repeats):
        times = []
        for _ in range(calls):
            started = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - started) / 1e3)
            between()
        times.sort()
        p50.append(times[calls // 2])
        p99.append(times[int(calls * 0.99)])
    return [
        Figure(system, f"{metric} p50", "us", *spread(p50), repeats),
        Figure(system, f"{metric} p99", "us", *spread(p99), repeats),
    ]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, smallest and largest, to three decimals."""
    return round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3)


class Missed(SteersmanError):
    """All was measured, and something is not as it should be: raised after the last figure, which are worth keeping all the more."""


def report(
    name: str,
    payload: str,
    figures: Iterable[Figure],
    *,
    versions: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Path:
    """Print the figures and write them with machine, versions and command; returns the file.

    Parameters
    ----------
    name, payload
        Name of the file, and what was fed.
    figures
        In the order of the report.
    versions
        Of what is measured besides the packages of this environment.
    folder
        Where to write; `RESULTS` unless told otherwise.

    Raises
    ------
    Missed
        As the figures did at their end, once they are written.
    """
    listed: list[Figure] = []
    missed = None
    try:
        listed.extend(figures)
    except Missed as error:
        missed = error
    for f in listed:
        cpu = f"  cpu {f.cpu_us_per_event:g} us" if f.cpu_us_per_event is not None else ""
        print(f"{name:8} {f.system:34} {f.metric:24} {f.median:10g} {f.unit} (min {f.min:g}, max {f.max:g}){cpu}")
    head = header(payload, f"python -m benchmarks {name}", versions)
    path = write(name, head, {"figures": [asdict(f) for f in listed]}, folder)
    if missed is not None:
        say(f"-> {path}")
        raise missed
    return path


def _installed() -> dict[str, str]:
    """Versions of `_PACKAGES`; a machine lent for its GPU need not have all of them."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def header(payload: str, command: str, versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What has to be known to read figures: machine, versions, payload, command."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _installed() | dict(versions or {}),
        "payload": payload,
        "command": command,
        "argv": sys.argv[1:],
    }


def write(name: str, header: dict[str, Any], results: dict[str, Any], folder: Path | None = None) -> Path:
    """Write results under their header; returns the file."""
    folder = RESULTS if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"header": header, **results}, indent=1) + "\n")
    return path


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies, by the nearest rank; ValueError without values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where results are written."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the result file (default benchmarks/results)"
    )


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def alone(work: Callable[[], object]) -> int:
    """Do what a benchmark's command line does; returns the exit code: 1 for an error of ours, 130 after Ctrl-C."""
    # Else a SIGTERM would leave brokers and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        work()
    except SteersmanError as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0
