"""The snapshot that all viewers get: read from ClickHouse, shaped for plots."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from page.store import ALERTS, ARMS, DEAD, NEWEST, POLICIES, SERIES, TRACES, Clock, Row, Store, utc_now

BINS = 60
"""Points of a plot."""
MIN_CONTROL = 30
"""Rewards of the control group below which nothing is said about it."""
_SLOW_S = 5.0
_MEANS = {"utility": ("utility_n", 1.0), "cost": ("n", 1e-6), "latency": ("n", 1e-3), "quality": ("quality_n", 1.0)}


class Overview:
    """Reads the snapshot; what changes slowly is read every few seconds only.

    Parameters
    ----------
    store
        Where from.
    window_s
        Time that is shown; unit: seconds.
    now
        Clock.
    """

    def __init__(self, store: Store, window_s: int, now: Clock = utc_now) -> None:
        self._store, self._now = store, now
        self._step = max(1, window_s // BINS)
        self._window = dt.timedelta(seconds=self._step * BINS)
        self._slow: dict[str, list[Row]] = {}
        self._slow_at: dt.datetime | None = None

    def read(self) -> dict[str, Any]:
        """Return the snapshot as JSON values; times are seconds since 1970, money US dollars, latencies milliseconds.

        Raises
        ------
        Trouble
            ClickHouse does not answer.
        """
        now = self._now()
        until = _after(now, self._step)
        series = self._store.rows(SERIES, **self._span(until))
        stale = not series
        if self._slow_at is None or not 0 <= (now - self._slow_at).total_seconds() < _SLOW_S:
            self._slow = {"policies": self._store.rows(POLICIES)}
            if stale:
                self._slow["newest"] = self._store.rows(NEWEST)
            self._slow_at = now
        newest = self._slow.get("newest", []) if stale else []
        if newest and newest[0]["n"]:
            until = _after(newest[0]["at"], self._step)
            series = self._store.rows(SERIES, **self._span(until))
        span = self._span(until)
        arms = self._store.rows(ARMS, **span) if series else []
        traces = self._store.rows(TRACES, **{k: v for k, v in span.items() if k != "step"}) if series else []
        first = int(span["since"].timestamp())
        return {
            "at": now.timestamp(),
            "window": {
                "since": first,
                "until": int(until.timestamp()),
                "step": self._step,
                "old": stale and bool(series),
            },
            "policies": shape(self._slow["policies"], series, arms, first, self._step, now),
            "alerts": [_alert(row) for row in self._store.rows(ALERTS, since=span["since"])],
            "dead_letters": self._store.rows(DEAD, since=span["since"])[0]["n"],
            "traces": [_trace(row) for row in traces],
        }

    def _span(self, until: dt.datetime) -> dict[str, Any]:
        return {"since": until - self._window, "until": until, "step": self._step}


def _after(at: dt.datetime, step: int) -> dt.datetime:
    """Return the end of the bin that a time is in."""
    return dt.datetime.fromtimestamp((int(at.timestamp()) // step + 1) * step, dt.UTC)


def shape(
    policies: Sequence[Row], series: Sequence[Row], arms: Sequence[Row], first: int, step: int, now: dt.datetime
) -> list[dict[str, Any]]:
    """Return one entry a policy, with its lines over time and what they add up to. Pure.

    Parameters
    ----------
    policies, series, arms
        Rows of the queries of the same names.
    first, step
        Start of the first bin and width of a bin; unit: seconds.
    now
        The time.
    """
    published = {row["policy"]: row for row in policies}
    of_series, of_arms = _by_policy(series), _by_policy(arms)
    made = []
    for name in sorted(published.keys() | of_series.keys()):
        groups = {who: [r for r in of_series[name] if bool(r["control"]) is control] for who, control in
                  (("learned", False), ("baseline", True))}  # fmt: skip
        totals = {who: _total(rows) for who, rows in groups.items()}
        made.append(
            {
                "name": name,
                **_published(published.get(name), now),
                **totals,
                "verdict": verdict(totals["learned"], totals["baseline"]),
                "series": {who: _lines(rows, first, step) for who, rows in groups.items()},
                "explored": _line(groups["learned"], "explored", "n", 1.0, first, step),
                "knobs": knob_shares(of_arms[name], first, step),
            }
        )
    return made


def _by_policy(rows: Iterable[Row]) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["policy"]].append(row)
    return found


def _published(row: Row | None, now: dt.datetime) -> dict[str, Any]:
    if row is None:
        return {
            "stage": "",
            "epoch": None,
            "version": None,
            "age_s": None,
            "baseline_arm": "",
            "learner": "",
            "arms": None,
        }
    epoch, version = row["newest"]
    return {
        "stage": row["stage"],
        "epoch": epoch,
        "version": version,
        "age_s": round((now - row["created_at"]).total_seconds(), 1),
        "baseline_arm": row["baseline"],
        "learner": row["learner"],
        "arms": row["arms"],
    }


def _total(rows: Sequence[Row]) -> dict[str, Any]:
    sums = {key: sum(row[key] for row in rows) for key in
            ("n", "explored", "utility_n", "utility", "utility_squares", "quality_n", "quality", "cost", "latency")}  # fmt: skip
    made: dict[str, Any] = {key: _digits(sums[key] * unit, sums[n]) for key, (n, unit) in _MEANS.items()}
    n = sums["utility_n"]
    variance = (sums["utility_squares"] - sums["utility"] ** 2 / n) / (n - 1) if n > 1 else None
    made["utility_se"] = None if variance is None else _digits(math.sqrt(max(variance, 0.0) / n))
    return {**made, "n": sums["n"], "judged": n, "explored": _digits(sums["explored"], sums["n"])}


def verdict(learned: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """Say whether what is learned beats the control group: by two standard errors of the difference, or it is not known.

    Returns
    -------
    dict
        ``word``: idle, no-control, better, worse or level; ``gain`` and its standard error ``se`` in units of utility.
    """
    if not learned["n"]:
        return {"word": "idle", "gain": None, "se": None}
    if baseline["judged"] < MIN_CONTROL or learned["judged"] < MIN_CONTROL:
        return {"word": "no-control", "gain": None, "se": None}
    gain = learned["utility"] - baseline["utility"]
    se = math.hypot(learned["utility_se"], baseline["utility_se"])
    word = "better" if gain > 2 * se else "worse" if gain < -2 * se else "level"
    return {"word": word, "gain": _digits(gain), "se": _digits(se)}


def _lines(rows: Sequence[Row], first: int, step: int) -> dict[str, list[float | None]]:
    return {key: _line(rows, key, n, unit, first, step) for key, (n, unit) in _MEANS.items()}


def _line(rows: Sequence[Row], key: str, n: str, unit: float, first: int, step: int) -> list[float | None]:
    line: list[float | None] = [None] * BINS
    for row in rows:
        at = (row["t"] - first) // step
        if 0 <= at < BINS:
            line[at] = _digits(row[key] * unit, row[n])
    return line


def knob_shares(rows: Sequence[Row], first: int, step: int) -> dict[str, dict[str, list[float | None]]]:
    """Return knob -> level -> share of the decisions in each bin, None where there were none.

    An arm's label is ``knob=level;knob=level``; one of another form counts as a level of the knob ``arm``.
    """
    counts: dict[str, dict[str, list[int]]] = {}
    whole = [0] * BINS
    for row in rows:
        at = (row["t"] - first) // step
        if not 0 <= at < BINS:
            continue
        whole[at] += row["n"]
        parts = [part.partition("=") for part in row["arm"].split(";")]
        if not all(sign for _, sign, _ in parts):
            parts = [("arm", "=", row["arm"])]
        for knob, _, level in parts:
            counts.setdefault(knob, {}).setdefault(level, [0] * BINS)[at] += row["n"]
    return {
        knob: {
            level: [_digits(k, n) for k, n in zip(line, whole, strict=True)] for level, line in sorted(levels.items())
        }
        for knob, levels in counts.items()
    }


def _alert(row: Row) -> dict[str, Any]:
    return {**row, "ts": row["ts"].timestamp(), "value": _finite(row["value"]), "threshold": _finite(row["threshold"])}


def _trace(row: Row) -> dict[str, Any]:
    return {
        "trace_id": row["trace_id"],
        "at": row["at"].timestamp(),
        "decisions": row["decisions"],
        "cost": _digits(row["cost"] / 1e6),
        "latency": _digits(row["latency"] / 1e3),
        "quality": _finite(row["quality"]),
        "failures": row["failures"],
    }


def _finite(value: float | None) -> float | None:
    return _digits(value) if value is not None and math.isfinite(value) else None


def _digits(value: float, n: float = 1) -> float | None:
    """Return value / n with four digits, None where it is no number: a frame is sent to many."""
    if not n:
        return None
    mean = value / n
    return float(f"{mean:.4g}") if math.isfinite(mean) else None
