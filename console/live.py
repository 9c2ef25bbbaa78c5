"""The live table of the demo: what ClickHouse and the broker say right now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clickhouse_connect.driver.client import Client
from rich.table import Table

WINDOW_S = 10
INTERACTION_POLICY = "research/orchestrator"
"""Its decision encloses the whole interaction, so its reward is the interaction's latency, cost and quality."""

_GROUPS = """
SELECT mode, count(), avg(latency_us) / 1e3, avg(cost_micro_usd) / 1e6, avg(quality)
FROM rewards
WHERE policy = {policy:String} AND ts > now64(6) - INTERVAL {window:UInt32} SECOND AND quality IS NOT NULL
GROUP BY mode
"""
_ARMS = """
SELECT policy, arms[1].1 AS arm, arms[1].2 / total AS share, version FROM (
  SELECT policy, arraySort(a -> -a.2, groupArray((arm, n))) AS arms, sum(n) AS total, max(v) AS version FROM (
    SELECT policy, arm, count() AS n, max(policy_version) AS v FROM rewards
    WHERE mode = 'LIVE' AND ts > now64(6) - INTERVAL {window:UInt32} SECOND AND policy NOT LIKE 'probe/%'
    GROUP BY policy, arm)
  GROUP BY policy) ORDER BY policy
"""


@dataclass
class Measured:
    """Means of a group of interactions over the last seconds."""

    n: int
    latency_ms: float
    cost_usd: float
    quality: float


@dataclass
class View:
    """One look at the running loop."""

    groups: dict[str, Measured] = field(default_factory=dict)
    arms: list[tuple[str, str, float, int]] = field(default_factory=list)
    events: int = 0
    worker_lag: int | None = None
    sink_lag: int | None = None
    reaction_p50_ms: float | None = None
    reaction_p99_ms: float | None = None


def look(client: Client) -> View:
    """Query the store for the last seconds."""
    view = View()
    groups = client.query(_GROUPS, parameters={"policy": INTERACTION_POLICY, "window": WINDOW_S})
    for mode, n, latency_ms, cost_usd, quality in groups.result_rows:
        view.groups[mode] = Measured(n, latency_ms, cost_usd, quality)
    view.arms = [tuple(r) for r in client.query(_ARMS, parameters={"window": WINDOW_S}).result_rows]
    view.events = int(client.query("SELECT count() FROM trace_events").result_rows[0][0])
    return view


def render(view: View, elapsed_s: float, total_s: float) -> Table:
    """Draw a look as a table."""
    table = Table(
        title=f"Steersman demo, {elapsed_s:.0f} of {total_s:.0f} s: means of the last {WINDOW_S} s",
        title_justify="left",
    )
    for column, justify in (
        ("", "left"),
        ("latency", "right"),
        ("cost", "right"),
        ("quality", "right"),
        ("n", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    names = {"HOLDOUT": "static baseline (control group)", "LIVE": "learned policies"}
    for mode, name in names.items():
        m = view.groups.get(mode)
        cells = (
            ("", "", "", "")
            if m is None
            else (f"{m.latency_ms / 1000:.2f} s", f"${m.cost_usd:.4f}", f"{m.quality:.3f}", str(m.n))
        )
        table.add_row(name, *cells)
    table.add_section()
    for policy, arm, share, version in view.arms:
        table.add_row(f"{policy}  v{version}", arm.replace(";", " "), f"{share:.0%}", "", "")
    table.add_section()
    table.add_row("events stored", f"{view.events:,}", "lag", _text(view.worker_lag), _text(view.sink_lag))
    p50, p99 = view.reaction_p50_ms, view.reaction_p99_ms
    table.add_row("reaction p50 / p99", f"{_ms(p50)} / {_ms(p99)}", "", "", "")
    return table


def line(view: View, elapsed_s: float) -> str:
    """Return a look as one line, for logs and pipes."""
    live, base = view.groups.get("LIVE"), view.groups.get("HOLDOUT")

    def part(m: Measured | None) -> str:
        return "-" if m is None else f"{m.latency_ms / 1000:.2f} s ${m.cost_usd:.4f} q {m.quality:.3f}"

    versions = " ".join(f"{p.rpartition('/')[2]} v{v}" for p, _, _, v in view.arms)
    return (
        f"{elapsed_s:4.0f} s  learned {part(live)}  baseline {part(base)}  {versions}  events {view.events:,}"
        f"  lag {_text(view.worker_lag)}/{_text(view.sink_lag)}  reaction p99 {_ms(view.reaction_p99_ms)}"
    )


def _text(value: Any) -> str:
    return "?" if value is None else f"{value:,}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
