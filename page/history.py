"""What changed from one version of a policy to another. Pure."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

from page.store import Row

SHOWN = (
    "stage", "canary_share", "baseline", "learner", "exploration", "exploration_scale", "floor", "objective", "multipliers",
    "squares", "reward_spec", "signed", "pinned", "acts",
)  # fmt: skip
Version = tuple[int, int]
"""Epoch and version."""


@dataclass(frozen=True)
class Change:
    """One difference; `old` and `new` are texts for people."""

    what: str
    old: str
    new: str


def parse_version(text: str) -> Version | None:
    """Read ``epoch.version``; None when it is not of that form."""
    epoch, dot, version = text.partition(".")
    if not dot or not (epoch.isdecimal() and version.isdecimal()) or len(text) > 40:
        return None
    return int(epoch), int(version)


def diff(old: Row, new: Row) -> list[Change]:
    """Return what differs between two rows of `page.store.HISTORY`, arms included."""
    changes = [Change("rewards applied", f"{old['applied_n']:,}", f"{new['applied_n']:,}")]
    changes += [
        Change(key.replace("_", " "), _text(old[key]), _text(new[key])) for key in SHOWN if old[key] != new[key]
    ]
    gone, come = set(old["arms"]) - set(new["arms"]), set(new["arms"]) - set(old["arms"])
    if gone or come:
        changes.append(Change("arms", _listed(gone, "gone"), _listed(come, "new")))
    if old["sha256"] == new["sha256"]:
        return []
    return changes


def share_changes(chosen: list[Row], old: Version, new: Version) -> list[dict[str, Any]]:
    """Return each arm's share of the decisions made with versions up to `old`, and after it up to `new`.

    Parameters
    ----------
    chosen
        Rows of `page.store.CHOSEN`.
    old, new
        The versions compared, the older one first.
    """
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for row in chosen:
        rank = (row["epoch"] or 0, row["version"] or 0)
        if rank <= old:
            before[row["arm"]] += row["n"]
        elif rank <= new:
            after[row["arm"]] += row["n"]
    n_before, n_after = before.total() or 1, after.total() or 1
    made: list[dict[str, Any]] = [
        {"arm": arm, "before": before[arm] / n_before, "after": after[arm] / n_after, "n": after[arm] + before[arm]}
        for arm in before.keys() | after.keys()
    ]
    return sorted(made, key=lambda row: (-abs(row["after"] - row["before"]), row["arm"]))[:20]


def _listed(arms: set[str], word: str) -> str:
    shown = ", ".join(sorted(arms)[:5])
    return f"{len(arms)} {word}: {shown}{' …' if len(arms) > 5 else ''}" if arms else "–"


def _text(value: object) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    return f"{value:.4g}" if isinstance(value, float) else str(value) or "–"
