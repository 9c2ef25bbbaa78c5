"""`steersman report`."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from pathlib import Path
from typing import Any

from console.output import err, out, print_json
from console.report import html, text
from console.report.figures import Figures, Group, PolicyFigures, figures_of
from console.report.front import Value
from console.report.queries import Request, read
from console.report.sentences import verdict
from console.target import Target
from steersman.errors import ConfigError, SteersmanError


def run(target: Target, request: Request, file: Path | None, *, as_json: bool) -> None:
    """Print the report, and write it as an HTML file where one is named.

    Raises
    ------
    Unreachable
        When no store answers.
    SteersmanError
        When there is nothing to report, or the file cannot be written.
    """
    figures = make(target, request)
    if file is not None:
        write(figures, file)
    if as_json:
        print_json({**as_record(figures), "file": None if file is None else str(file)})
        return
    text.show(figures)
    if file is not None:
        out.print(f"\nreport: {file}", markup=False, highlight=False, soft_wrap=True)
    else:
        err.print("with plots, as one HTML file: steersman report --out report.html", highlight=False)


def make(target: Target, request: Request) -> Figures:
    """Read and work out the report; raises as `run`."""
    if request.since is not None and request.until is not None and request.since >= request.until:
        raise ConfigError(f"--from {request.since.isoformat()} is not before --to {request.until.isoformat()}")
    rows = read(target.reading, request)
    if rows is None:
        what = f"policy {request.policy!r} of " if request.policy else ""
        raise SteersmanError(
            f"no reward of {what}tenant {request.tenant!r} in that time is stored in {target.reading.rpartition('@')[2]}; 'steersman policy list' "
            "names the policies, 'steersman status' says what is stored"
        )
    return figures_of(rows, request.tenant, dt.datetime.now(dt.UTC))


def write(figures: Figures, file: Path) -> None:
    """Write the HTML file, whole or not at all; SteersmanError when it cannot be written."""
    document = html.render(figures)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(document, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise SteersmanError(f"{file} cannot be written: {error.strerror}") from error


# -- for programs


def as_record(figures: Figures) -> dict[str, Any]:
    """Return the report for programs."""
    rows = figures.rows
    return {
        "tenant": figures.tenant,
        "since": figures.since,
        "until": figures.until,
        "policies": [_policy_record(policy) for policy in figures.policies],
        "alerts": rows.detectors,
        "dead_letters": rows.dead,
        "ledger": rows.ledger,
        "rewards": rows.health,
        "events": rows.events,
    }


def _policy_record(policy: PolicyFigures) -> dict[str, Any]:
    word, said = verdict(policy)
    return {
        "policy": policy.name,
        "verdict": word,
        "said": said,
        "baseline": _group_record(policy.baseline),
        "learned": _group_record(policy.learned),
        "late": _group_record(policy.late),
        "changes": {
            name: {"difference": vars(change.difference), "share": _value(change.share), "sure": change.sure}
            for name, change in policy.changes.items()
        },
        "series": policy.shaped["series"],
        "explored": policy.shaped["explored"],
        "knobs": policy.shaped["knobs"],
        "arms": [
            {
                "arm": point.label, "decisions": point.n, "effective_sample_size": point.ess, "cost_usd": _value(point.cost),
                "latency_s": _value(point.latency), "quality": _value(point.quality), "known": point.known, "on_front": point.on_front,
            }
            for point in policy.front.points
        ],
    }  # fmt: skip


def _group_record(group: Group) -> dict[str, Any]:
    return {
        "decisions": group.n,
        "explored": group.explored,
        **{name: vars(value) for name, value in group.means.items()},
    }


def _value(value: Value | None) -> dict[str, float] | None:
    return None if value is None else vars(value)
