"""The report in the terminal: a verdict, a table and small lines a policy. Pure but for printing."""

from __future__ import annotations

from console.output import out, print_rows
from console.report import words
from console.report.figures import MEASURES, Figures, PolicyFigures
from console.report.html import ORDER
from console.report.queries import LATE
from console.report.sentences import change_text, verdict, worth
from console.sparkline import sparkline


def show(figures: Figures) -> None:
    """Print it."""
    _line(f"tenant {figures.tenant}, decisions from {words.when(figures.since)} to {words.when(figures.until)} UTC")
    for policy in figures.policies:
        out.print()
        _policy(policy)
    out.print()
    rows = figures.rows
    alerts = ", ".join(f"{one['n']} {one['detector']} ({one['severity'].lower()})" for one in rows.detectors[:6])
    _line(f"alerts: {alerts or 'none'}")
    dead = ", ".join(f"{one['n']} {one['reason']} in {one['stage']}" for one in rows.dead[:6])
    _line(f"dead letters: {dead or 'none'}")
    n = rows.health["n"]
    _line(
        f"data: {n:,} rewards, {rows.health['n_fallback'] / n:.1%} decided by fallback, {rows.health['n_unjudged'] / n:.1%} without quality; "
        f"{rows.events['n']:,} events of {rows.events['traces']:,} traces, {rows.events['n_unpriced']:,} model calls without a price"
    )


def _policy(policy: PolicyFigures) -> None:
    _line(f"{policy.name}: {verdict(policy)[1]}", style="bold")
    rows: list[list[object]] = []
    for name in ORDER:
        unit = MEASURES[name][0]
        cells = [
            words.interval(group.means.get(name), unit) for group in (policy.baseline, policy.learned, policy.late)
        ]
        rows.append(
            [
                name,
                cells[0],
                cells[1],
                change_text(name, policy.changes.get(name), unit),
                cells[2],
                change_text(name, policy.late_changes.get(name), unit),
            ]
        )
    rows.append(["decisions", policy.baseline.n, policy.learned.n, "", policy.late.n, ""])
    print_rows(["", "baseline", "learned", "change", f"last {LATE:.0%}", "change"], rows, as_json=False)
    _curves(policy)
    for knob, levels in policy.shaped["knobs"].items():
        for level, values in levels.items():
            known = [value for value in values if value is not None]
            if known:
                _line(
                    f"  {f'{knob}={level}'[:24]:<24} {sparkline(values, 0.0, 1.0)} {known[0]:>4.0%} to {known[-1]:.0%}"
                )
    for corner in policy.front.by_cost:
        point = policy.front.points[corner.arm]
        _line(
            f"  front: {point.label}: quality {words.interval(point.quality)} for {words.with_unit(point.cost.mean, 'USD')}, "
            f"{words.with_unit(point.latency.mean, 's')}; best where {worth(corner.above, corner.below, 'dollar')}"
        )


def _curves(policy: PolicyFigures) -> None:
    both = [
        value
        for who in ("baseline", "learned")
        for value in policy.shaped["series"][who]["utility"]
        if value is not None
    ]
    for who in ("learned", "baseline"):
        values = policy.shaped["series"][who]["utility"]
        known = [value for value in values if value is not None]
        if known:
            _line(
                f"  {f'utility, {who}':<24} {sparkline(values, min(both), max(both))} {words.number(known[0])} to {words.number(known[-1])}"
            )
    explored = [value for value in policy.shaped["explored"] if value is not None]
    if explored:
        _line(
            f"  {'explored':<24} {sparkline(policy.shaped['explored'], 0.0, max(explored) or 1.0)} {explored[0]:.0%} to {explored[-1]:.0%}"
        )


def _line(text: str, style: str | None = None) -> None:
    """Print a line; names come from data, so what would steer the terminal is shown as a question mark."""
    out.print(
        "".join(c if c.isprintable() else "?" for c in text), markup=False, highlight=False, style=style, soft_wrap=True
    )
