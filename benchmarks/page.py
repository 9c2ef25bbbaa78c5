"""`python -m benchmarks.page`: makes `benchmarks/README.md` and its plots from the result files that are there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar, bar_chart
from benchmarks.measure import RESULTS

PAGE = RESULTS.parent / "README.md"

TITLES = {
    "rollup": "One job, us and the peers",
    "loop": "The whole loop on one machine",
    "reaction": "From a feedback to a changed decision",
    "scaling": "More workers, more partitions",
    "traces": "The trace stage",
    "detectors": "Detectors",
    "sink": "Kafka to ClickHouse",
    "choose": "Deciding",
    "features": "From a context to numbers",
    "learn": "Learning",
    "neural": "Learning what is not linear",
    "training": "Training an encoder, with and without a GPU",
    "shards": "Learning in shards",
    "credit": "Credit where whole answers are judged",
    "fleet": "The fleet from a cold start",
    "page": "The live page",
    "sql": "Questions in SQL on 20 million rows",
    "tracer": "Reporting events",
    "redaction": "Redaction",
    "ope": "What another policy would have earned",
    "guard": "Promotion and rollback",
    "new_levels": "A new model",
    "warm_start": "What a few evaluated prompts are worth",
    "live": "Live and offline",
}
_OURS = "steersman"
_HEAD = """\
# Benchmarks

`make bench` runs all of them and makes this page; `python -m benchmarks NAME` runs one, `python -m benchmarks.NAME --help`
tells its options. The numbers are those of the machine named with them and of that one run: compare within a table, not
between machines. A figure is the median of its repeats; the line over a bar goes from the smallest to the largest.
"""

Figure = Mapping[str, Any]


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    results
        Name of a benchmark -> its result file: a header, and figures.
    """
    parts = [_HEAD]
    for name in _in_order(results):
        header, figures = results[name]["header"], results[name]["figures"]
        parts += [f"## {TITLES.get(name, name)}\n", f"{_sentence(header['payload'])}\n", _table(figures)]
        if comparison := ratios(figures):
            parts.append(_list(comparison))
        parts += [f"![{name}]({RESULTS.name}/{plot})\n" for plot in plots(name, figures)]
        parts.append(_origin(header))
    return "\n".join(parts)


def ratios(figures: Sequence[Figure]) -> list[str]:
    """Return how many times the throughput of each peer ours is, where a peer is among the figures."""
    rates = {f["system"]: f for f in figures if f["metric"] == "throughput"}
    ours = {system: f for system, f in rates.items() if system.startswith(_OURS) and "empty" not in system}
    lines = []
    if len(ours) < len(rates):
        for system, figure in ours.items():
            times = ", ".join(
                f"{_number(figure['median'] / peer['median'])} x {other}"
                for other, peer in rates.items()
                if not other.startswith(_OURS)
            )
            if times:
                lines.append(f"{system}: {times}")
    return lines


def plots(name: str, figures: Sequence[Figure]) -> dict[str, str]:
    """Return the plots of a benchmark, file name -> SVG: one for each unit that has more than one figure."""
    by_unit: dict[str, list[Figure]] = {}
    for figure in figures:
        by_unit.setdefault(figure["unit"], []).append(figure)
    drawn = {}
    for unit, group in by_unit.items():
        if len(group) < 2 or unit == "count" or min(f["min"] for f in group) < 0:  # bars begin at 0
            continue
        peers = any(not f["system"].startswith(_OURS) for f in group) and any(
            f["system"].startswith(_OURS) for f in group
        )
        metrics = {f["metric"] for f in group}
        bars = [
            Bar(
                f["system"] if len(metrics) == 1 else f"{f['system']}, {f['metric']}",
                f["median"],
                f["min"],
                f["max"],
                f"{_number(f['median'])} {unit}",
                not peers or f["system"].startswith(_OURS),
            )
            for f in group
        ]
        what = metrics.pop() if len(metrics) == 1 else unit
        drawn[f"{name}-{_slug(unit)}.svg"] = bar_chart(f"{TITLES.get(name, name)}: {what}", bars)
    return drawn


def _in_order(results: Mapping[str, Any]) -> list[str]:
    return [n for n in TITLES if n in results] + sorted(results.keys() - TITLES.keys())


def _table(figures: Sequence[Figure]) -> str:
    rows = [
        "| system | metric | median | min | max | repeats | CPU us/event |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for f in figures:
        cpu = f["cpu_us_per_event"]
        rows.append(
            f"| {f['system']} | {f['metric']}, {f['unit']} | {_number(f['median'])} | {_number(f['min'])} | {_number(f['max'])} "
            f"| {f['repeats']} | {'' if cpu is None else _number(cpu)} |"
        )
    return "\n".join(rows) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _origin(header: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in header["versions"].items())
    return f"`{header['command']}` on {header['machine']}, Python {header['python']}; {versions}.\n"


def _number(value: float) -> str:
    """Write a number with three digits, or with none behind the point where it is large."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _slug(unit: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in unit)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the result files of a folder that have figures, by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: result for name, result in found.items() if "figures" in result}


def main(argv: Sequence[str] | None = None) -> None:
    """Make the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="result files; plots go there too")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="default benchmarks/README.md")
    options = parser.parse_args(argv)
    results = read(options.results)
    for name, result in results.items():
        for stale in options.results.glob(f"{name}-*.svg"):
            stale.unlink()
        for file, svg in plots(name, result["figures"]).items():
            (options.results / file).write_text(svg)
    options.page.write_text(page(results))
    print(f"-> {options.page}")


if __name__ == "__main__":
    main()
