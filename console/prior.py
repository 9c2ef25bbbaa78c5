"""`steersman policy prior`: what is known of levels already, as the table of a policies file that a policy starts from."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from console.output import out, print_json
from console.policy import one
from console.target import Target
from learners.knobs import level_reports
from learners.prior_spec import PriorSpec
from steersman.errors import ConfigError
from steersman.held import Held

COMPONENTS = ("quality", "cost_micro_usd", "latency_us")
_DIGITS = 6


def of_policy(target: Target, tenant: str, name: str, events: float | None, *, as_json: bool) -> None:
    """Print what a policy has learned of its levels, at the average context.

    Raises
    ------
    SteersmanError
        When the tenant has no such policy.
    """
    show(learned(one(target, tenant, name), events), f"what {name} had learned", as_json=as_json)


def of_file(path: Path, knob: str, events: float | None, *, as_json: bool) -> None:
    """Print the means of an evaluation: a CSV file with a row for each answer, and the columns `knob`, ``quality``, and, where
    they are known, ``cost_micro_usd`` and ``latency_us``.

    Raises
    ------
    ConfigError
        Names the file, the line and what is wrong with it.
    """
    show(evaluated(path, knob, events), f"means of {path.name}", as_json=as_json)


def learned(held: Held, events: float | None) -> PriorSpec:
    """What a snapshot expects of each level, worth 20 events unless said otherwise: other requests may differ."""
    expected = held.scorer.components(held.snapshot.features.encode({}))
    base = [float(part.mean()) for part in (expected.quality, expected.cost, expected.latency)]
    tables: dict[str, dict[str, dict[str, float]]] = {component: defaultdict(dict) for component in COMPONENTS}
    for report in level_reports(held, held.snapshot.features.encode({})):
        for component, mean, more in zip(COMPONENTS, base, (report.quality, report.cost, report.latency), strict=True):
            value = mean + more
            tables[component][report.knob][report.level] = value if component == "quality" else max(value, 0.0)
    return PriorSpec(events=20.0 if events is None else events, **tables)


def evaluated(path: Path, knob: str, events: float | None) -> PriorSpec:
    """Means of each level in an evaluation, worth as many events as the level with the fewest answers has, unless said otherwise."""
    values: dict[str, dict[str, list[float]]] = {component: defaultdict(list) for component in COMPONENTS}
    for level, component, value in _cells(path, knob):
        values[component][level].append(value)
    if len(values["quality"]) < 2:
        raise ConfigError(
            f"{path}: has qualities of {len(values['quality'])} levels of {knob!r}; two at least are needed"
        )
    fewest = min(len(column) for column in values["quality"].values())
    tables = {
        component: {knob: {level: sum(column) / len(column) for level, column in levels.items()}}
        for component, levels in values.items()
        if levels
    }
    return PriorSpec(events=float(fewest) if events is None else events, **tables)


def _cells(path: Path, knob: str) -> Iterator[tuple[str, str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in (knob, "quality") if column not in (rows.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"{path}: has no column {missing[0]!r}; it needs {knob!r} and 'quality', and may have 'cost_micro_usd' and 'latency_us'"
                )
            for row in rows:
                for component in COMPONENTS:
                    if text := row.get(component):
                        yield row[knob], component, _number(path, rows.line_num, component, text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {getattr(error, 'strerror', None) or error}") from error


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (value < 0.0 and column != "quality"):
        raise ConfigError(f"{path}:{line}: {column}: {text!r} is no {'number' if column == 'quality' else 'amount'}")
    return value


def show(prior: PriorSpec, source: str, *, as_json: bool) -> None:
    """Print a table for policies.toml, or JSON."""
    if as_json:
        print_json(prior.model_dump())
    else:
        out.print(toml_of(prior, source), markup=False, highlight=False, soft_wrap=True)


def toml_of(prior: PriorSpec, source: str) -> str:
    """The table of a policies file that declares it."""
    lines = [f"[policy.prior]    # {source}", f"events = {prior.events:g}"]
    for component, knobs in prior.tables.items():
        for knob, levels in knobs.items():
            lines.append(f"[policy.prior.{component}.{json.dumps(knob)}]")
            lines += [f"{json.dumps(level)} = {float(f'{mean:.{_DIGITS}g}')!r}" for level, mean in levels.items()]
    return "\n".join(lines)
