"""The report as one HTML file: no script, nothing from elsewhere, and a policy in it that forbids both. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from console.report import svg, words
from console.report.figures import MEASURES, Figures, PolicyFigures
from console.report.front import Corner, Front, Value
from console.report.queries import LATE
from console.report.sentences import VERDICTS, change_style, change_text, verdict, worth
from steersman import __version__

HERE = Path(__file__).resolve().parent / "templates"
ORDER: Final = ("latency", "cost", "quality", "utility")
_NAMES = {"baseline": "baseline (control group)", "learned": "learned, whole time", "late": f"learned, last {LATE:.0%}"}
_STYLES = {"baseline": "base", "learned": "s0", "late": "s2"}
_SHOWN_ARMS = 16


@dataclass(frozen=True)
class Plot:
    """A plot with its title and, where it needs one, its legend: names and classes of their colours."""

    title: str
    plot: Markup
    legend: Sequence[tuple[str, str]] = ()


def render(figures: Figures) -> str:
    """Return the document."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=words.number, share=words.share, when=words.when, interval=words.interval, unit=words.with_unit
    )
    style = (HERE / "report.css").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        figures=figures,
        rows=figures.rows,
        style=Markup(style),  # noqa: S704 - our own file
        csp=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        policies=[_policy(policy, figures, i) for i, policy in enumerate(figures.policies)],
        late=LATE,
        version=__version__,
    )


def _policy(policy: PolicyFigures, figures: Figures, index: int) -> dict[str, Any]:
    """What the template needs of one policy."""
    word, said = verdict(policy)
    times = svg.Times(figures.first, figures.step, len(policy.shaped["explored"]))
    return {
        "id": f"policy-{index}",
        "figures": policy,
        "shaped": policy.shaped,
        "word": VERDICTS[word][0],
        "style": VERDICTS[word][1],
        "said": said,
        "changes": {
            name: (
                change_text(name, policy.changes.get(name), MEASURES[name][0]),
                change_style(name, policy.changes.get(name)),
            )
            for name in ORDER
        },
        "table": [_row(policy, name) for name in ORDER],
        "before": [plot for name in ORDER[:3] if (plot := _before(policy, name))],
        "curves": _curves(policy, times),
        "knobs": [_knob(knob, levels, times) for knob, levels in policy.shaped["knobs"].items()],
        "front": _front(policy),
    }


def _row(policy: PolicyFigures, name: str) -> dict[str, Any]:
    unit = MEASURES[name][0]
    change, late = policy.changes.get(name), policy.late_changes.get(name)
    return {
        "name": name,
        "cells": [
            words.interval(group.means.get(name), unit) for group in (policy.baseline, policy.learned, policy.late)
        ],
        "change": change_text(name, change, unit),
        "change_style": change_style(name, change),
        "late": change_text(name, late, unit),
        "late_style": change_style(name, late),
    }


def _before(policy: PolicyFigures, name: str) -> Plot | None:
    groups = {"baseline": policy.baseline, "learned": policy.learned, "late": policy.late}
    bars = [
        svg.Bar(_NAMES[who], _STYLES[who], group.means[name]) for who, group in groups.items() if name in group.means
    ]
    if not bars:
        return None
    unit = MEASURES[name][0]
    shown = {"latency": "latency, seconds", "cost": "cost, US dollars"}.get(name, name)
    plot = svg.intervals(
        f"{shown} of a decision of {policy.name}",
        bars,
        unit,
        from_zero=name != "quality",
    )
    return Plot(shown, _safe(plot))


def _curves(policy: PolicyFigures, times: svg.Times) -> list[Plot]:
    series = policy.shaped["series"]
    made = []
    for name, title in (
        ("utility", "utility a decision (reward curve)"),
        ("latency", "latency, milliseconds"),
        ("cost", "cost, US dollars"),
        ("quality", "quality"),
    ):
        drawn = [
            svg.Line(who, _STYLES[who], series[who][name], policy.bands[who] if name == "utility" else None)
            for who in ("baseline", "learned")
        ]
        low = None if name in ("utility", "quality") else 0.0
        if plot := svg.lines(f"{title} of {policy.name} over time", times, drawn, low=low):
            legend = [(line.name, line.style) for line in drawn if any(v is not None for v in line.values)]
            made.append(Plot(title, _safe(plot), legend))
    explored = svg.Line("explored", "s3", policy.shaped["explored"])
    if plot := svg.lines(f"explored share of {policy.name} over time", times, [explored], low=0.0):
        made.append(Plot("explored share of the decisions", _safe(plot)))
    return made


def _knob(knob: str, levels: dict[str, Sequence[float | None]], times: svg.Times) -> Plot:
    drawn = [svg.Line(level, f"s{i % svg.COLOURS}", values) for i, (level, values) in enumerate(levels.items())]
    plot = svg.areas(f"share of the levels of {knob} over time", times, drawn)
    return Plot(knob, _safe(plot), [(line.name, line.style) for line in drawn])


def _front(policy: PolicyFigures) -> dict[str, Any]:
    """Plots and table of the trade-off; the front first, then what was taken most."""
    front = policy.front
    order = sorted(range(len(front.points)), key=lambda i: (not front.points[i].on_front, -front.points[i].n))
    marks, styles = _marks(front, order)
    names = {i: point.label for i, point in enumerate(front.points)}
    corners = {corner.arm: corner for corner in front.by_cost}, {corner.arm: corner for corner in front.by_latency}
    rows = [
        {
            "mark": marks.get(i, ""),
            "style": styles[i],
            "point": front.points[i],
            "dollar": _worth(corners[0].get(i), "dollar"),
            "second": _worth(corners[1].get(i), "second"),
            "now": front.weights is not None and front.weights.choice == i,
        }
        for i in order[:_SHOWN_ARMS]
    ]
    plots = []
    if any(point.known for point in front.points):
        for by, across, corner in (
            ("cost", "cost, US dollars", front.by_cost),
            ("latency", "latency, seconds", front.by_latency),
        ):
            if plot := _scatter(policy, by, across, corner, marks, styles):
                plots.append(Plot(f"quality for {by}", _safe(plot)))
        if front.weights is not None:
            plot = svg.weight_map(f"the best arm of {policy.name} at every weight", front.weights, styles, names)
            plots.append(Plot("the best arm by weights; up: quality that a second is worth", _safe(plot)))
    best = None if front.weights is None or front.weights.choice is None else names[front.weights.choice]
    now = None if front.weights is None else front.weights.now
    return {"rows": rows, "plots": plots, "left": len(order) - len(rows), "best": best, "now": now}


def _marks(front: Front, order: Sequence[int]) -> tuple[dict[int, str], dict[int, str]]:
    """A letter for each arm on the front, and colours for the front and the rest."""
    chosen = [i for i in order if front.points[i].on_front]
    marks = {i: chr(ord("A") + n) for n, i in enumerate(chosen[:26])}
    styles = {i: f"s{1 + n % (svg.COLOURS - 1)}" for n, i in enumerate(chosen)}
    return marks, {i: styles.get(i, "faint") for i in range(len(front.points))}


def _scatter(
    policy: PolicyFigures,
    by: str,
    across: str,
    corners: Sequence[Corner],
    marks: dict[int, str],
    styles: dict[int, str],
) -> str:
    shown = [i for i, point in enumerate(policy.front.points) if point.quality is not None]
    dots = []
    for i in shown:
        point = policy.front.points[i]
        spent: Value = getattr(point, by)
        dots.append(svg.Dot(point.label, styles[i], spent, point.quality or spent, marks.get(i, ""), not point.known))
    for group, name, mark in (
        (policy.learned, "the policy as a whole", "policy"),
        (policy.baseline, "the control group", "baseline"),
    ):
        if by in group.means and "quality" in group.means:
            style = "s0" if mark == "policy" else "base"
            dots.append(svg.Dot(name, style, group.means[by], group.means["quality"], mark, whole=True))
    places = {i: at for at, i in enumerate(shown)}
    return (
        svg.scatter(f"quality for {by} of {policy.name}", across, dots, [places[corner.arm] for corner in corners])
        if dots
        else ""
    )


def _safe(plot: str) -> Markup:
    return Markup(plot)  # noqa: S704 - svg escapes all text


def _worth(corner: Corner | None, unit: str) -> str:
    return "" if corner is None else worth(corner.above, corner.below, unit)
