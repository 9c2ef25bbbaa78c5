"""New rows put into the results of earlier calls, where only some learners have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_LEVELS = ("best fixed", "oracle")
_KEYS = {
    "results": ("scenario", "learner"),
    "mean_gains": ("over", "condition", "learner"),
    "paired": ("scenario", "learner", "peer"),
}


def updated(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Results in which the rows of `after` take the place of the same rows of `before`; the others stay.

    Parameters
    ----------
    before, after
        With the lists ``results``, ``mean_gains`` and ``paired``, as the evaluation writes them.

    Returns
    -------
    dict of str to list of dict
        The same lists. Left out are differences to peers where our row has changed and the peer was not played again, and
        means over scenarios of which only some were played again, unless those came out as before.
    """
    after = {**after, "mean_gains": _whole(before["mean_gains"], after["mean_gains"])}
    merged = {name: _merged(before[name], after[name], keys) for name, keys in _KEYS.items()}
    was, now = _by(before["results"]), _by(merged["results"])
    fresh = {tuple(row[key] for key in _KEYS["paired"]) for row in after["paired"]}

    def holds(row: Row) -> bool:
        ours = row["scenario"], row["learner"]
        return tuple(row[key] for key in _KEYS["paired"]) in fresh or _result(was.get(ours)) == _result(now.get(ours))

    merged["paired"] = [row for row in merged["paired"] if holds(row)]
    played = {
        (_condition(row["scenario"]), row["learner"])
        for row in after["results"]
        if (held := was.get((row["scenario"], row["learner"]))) is not None and _result(row) != _result(held)
    }
    means = {tuple(row[key] for key in _KEYS["mean_gains"]) for row in after["mean_gains"]}
    merged["mean_gains"] = [
        row
        for row in merged["mean_gains"]
        if (row["condition"], row["learner"]) not in played or tuple(row[key] for key in _KEYS["mean_gains"]) in means
    ]
    groups = list(dict.fromkeys((row["over"], row["condition"]) for row in merged["mean_gains"]))
    merged["mean_gains"].sort(key=lambda row: (groups.index((row["over"], row["condition"])), -row["mean_gain"]))
    return merged


def _whole(before: Sequence[Row], after: Sequence[Row]) -> list[Row]:
    """Means of `after` over no fewer scenarios than those there were."""
    keys = _KEYS["mean_gains"]
    counts = {tuple(row[key] for key in keys): row["scenarios"] for row in before}
    return [row for row in after if row["scenarios"] >= counts.get(tuple(row[key] for key in keys), 0)]


def _merged(before: Sequence[Row], after: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    rows = {tuple(row[key] for key in keys): row for row in before}
    for row in after:
        key = tuple(row[key] for key in keys)
        if row["learner"] not in _LEVELS or key not in rows:
            rows[key] = row
    order = list(dict.fromkeys(row[keys[0]] for row in rows.values()))
    return sorted(rows.values(), key=lambda row: order.index(row[keys[0]]))


def _condition(title: str) -> str:
    return title.partition(", ")[2] or "plain"


def _by(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    return {(row["scenario"], row["learner"]): row for row in rows}


def _result(row: Row | None) -> Any:
    """What a row says apart from how long it took."""
    return None if row is None else {key: value for key, value in row.items() if key != "us_per_round"}
