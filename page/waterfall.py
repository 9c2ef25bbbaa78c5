"""A trace as a waterfall: spans in the order of the tree, with their place on the time axis. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from page.store import Row

WIDTH = 1000.0
"""Length of the time axis in the drawing's units."""
_NO_SPAN = ("FEEDBACK", "END", "TICK")
_MAX_DEPTH = 12


@dataclass
class Bar:
    """One event of the waterfall.

    Attributes
    ----------
    row : dict
        The event.
    depth : int
        How far below the root.
    x, width : float
        Place on the time axis, within 0 and `WIDTH`.
    name : str
        What it is, for people.
    """

    row: Row
    depth: int
    x: float
    width: float
    name: str


@dataclass
class Waterfall:
    """A whole trace.

    Attributes
    ----------
    bars : list of Bar
        Spans and decisions, parents before children.
    total_ms : float
        From the first start to the last end.
    cost_usd : float
        Of all spans with a known cost.
    unpriced, failed : int
        Model calls without a known cost; spans that did not end well.
    agents : list of str
        Who took part, in the order of appearance.
    feedback : list of dict
        Events of feedback.
    ended : bool
        Whether the trace has been closed.
    """

    bars: list[Bar] = field(default_factory=list)
    total_ms: float = 0.0
    cost_usd: float = 0.0
    unpriced: int = 0
    failed: int = 0
    agents: list[str] = field(default_factory=list)
    feedback: list[Row] = field(default_factory=list)
    ended: bool = False


def waterfall(events: list[Row]) -> Waterfall:
    """Lay a trace's events out.

    Parameters
    ----------
    events
        Rows of `page.store.EVENTS`. Parents may be missing or, in a hostile trace, run in circles; every event is shown once.
    """
    made = Waterfall(feedback=[e for e in events if e["kind"] == "FEEDBACK"])
    made.ended = any(e["kind"] == "END" for e in events)
    spans = [e for e in events if e["kind"] not in _NO_SPAN]
    if not spans:
        return made
    start = min(e["started_at"] for e in spans)
    length = max((max(e["ts"] for e in spans) - start).total_seconds(), 1e-6)
    made.total_ms = length * 1e3
    for row, depth in _in_tree(spans):
        x = WIDTH * (row["started_at"] - start).total_seconds() / length
        width = WIDTH * (row["duration_ms"] or 0.0) / 1e3 / length
        x = min(max(x, 0.0), WIDTH - 4)
        made.bars.append(
            Bar(row, min(depth, _MAX_DEPTH), round(x, 2), round(max(4.0, min(width, WIDTH - x)), 2), _name(row))
        )
    made.cost_usd = sum(e["cost_micro_usd"] or 0 for e in spans) / 1e6
    made.unpriced = sum(e["kind"] == "MODEL_CALL" and e["cost_micro_usd"] is None for e in spans)
    made.failed = sum(e["status"] not in ("OK", "") for e in spans if e["kind"] != "DECISION")
    made.agents = list(dict.fromkeys(e["agent"] for e in spans if e["agent"]))
    return made


def _name(row: Row) -> str:
    if row["kind"] == "DECISION":
        return f"{row['policy']} → {row['arm']}"
    return str(row["operation"] or row["agent"] or row["kind"].lower().replace("_", " "))


def _in_tree(spans: list[Row]) -> list[tuple[Row, int]]:
    ids = {e["span_id"] for e in spans if e["kind"] != "DECISION"}
    below: defaultdict[str, list[Row]] = defaultdict(list)
    roots: list[Row] = []
    for event in spans:
        parent = event["parent_span_id"]
        (below[parent] if parent in ids and parent != event["span_id"] else roots).append(event)
    found: list[tuple[Row, int]] = []
    seen: set[int] = set()

    def walk(start: Row) -> None:
        stack = [(start, 0)]
        while stack:
            event, depth = stack.pop()
            if id(event) in seen:
                continue
            seen.add(id(event))
            found.append((event, depth))
            if event["kind"] != "DECISION":
                stack.extend((child, depth + 1) for child in reversed(_ordered(below[event["span_id"]])))

    for event in [*roots, *spans]:  # the spans themselves again: what only a circle of parents reaches
        walk(event)
    return found


def _ordered(events: list[Row]) -> list[Row]:
    return sorted(events, key=lambda e: (e["kind"] != "DECISION", e["started_at"]))


def rewards_by_decision(rewards: list[Row]) -> dict[str, dict[str, Any]]:
    """Return decision id -> its reward."""
    return {row["decision_id"]: row for row in rewards}
