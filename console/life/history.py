"""`steersman policy history` and `diff`: what was published, what operators did, and what changed between two versions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from console.life.snapshots import parse_version, published
from console.output import out, print_json, print_rows
from console.policy import held
from console.target import Target
from learners.difference import difference, shown
from sinks.clickhouse import connect
from steersman.errors import SteersmanError
from steersman.held import Held

VERSIONS: Final = (
    "SELECT epoch, version, stage, canary_share, created_at, baseline, learner, acts, pinned, kept FROM v_policies "
    "WHERE tenant = {tenant:String} AND policy = {policy:String} "
    "ORDER BY epoch DESC, version DESC, acts DESC LIMIT {limit:UInt32}"
)
ACTS: Final = (
    "SELECT ts, act, who, why, outcome, reason, at_epoch, at_version, standing, epoch AS to_epoch, version AS to_version, act_id "
    "FROM v_policy_acts WHERE tenant = {tenant:String} AND policy = {policy:String} ORDER BY ts DESC, act_id LIMIT {limit:UInt32}"
)


def show(target: Target, tenant: str, name: str, limit: int, *, as_json: bool) -> None:
    """Print the published versions and the acts, newest first; as JSON one a line, acts with ``"act"``."""
    names = {"tenant": tenant, "policy": name, "limit": limit}
    with contextlib.closing(connect(target.reading)) as client:
        versions = client.query(VERSIONS, parameters=names)
        acts = client.query(ACTS, parameters=names)
        print_rows(
            versions.column_names,
            versions.result_rows,
            as_json=as_json,
            title="versions; kept: the weights are stored, so it can be pinned, compared and explained at any time",
        )
        if as_json or acts.result_rows:
            columns = acts.column_names[: None if as_json else -1]
            rows = [row[: len(columns)] for row in acts.result_rows]
            print_rows(columns, rows, as_json=as_json, title="acts of operators")


def show_diff(target: Target, tenant: str, name: str, old: str, new: str, *, as_json: bool) -> None:
    """Print what changed between two versions; ``now`` is the one that agents have.

    Raises
    ------
    SteersmanError
        When there is no such policy, or a version's weights are no longer kept.
    """
    current = held(target, tenant).get(name)
    if current is None:
        raise SteersmanError(f"tenant {tenant!r} has no policy {name!r} at {target.brokers}")

    def version(text: str) -> Held:
        if text == "now":
            return current
        at = parse_version(text, current.snapshot.epoch)
        return published(target, tenant, name, at)[-1].held

    one, other = version(old), version(new)
    found = difference(one, other)
    if as_json:
        print_json(found.to_json())
        return
    names = ["what", f"{one.snapshot.epoch}.{one.snapshot.version}", f"{other.snapshot.epoch}.{other.snapshot.version}"]
    print_rows(
        names, [(c.what, shown(c.old), shown(c.new)) for c in found.settings], as_json=False, title="settings that differ"
    )  # fmt: skip
    print_rows(names, [(c.what, shown(c.old), shown(c.new)) for c in found.levels], as_json=False, title="share of each level, at the average context")  # fmt: skip
    print_rows(
        ["arm", "probability", "", "utility", "", "quality", "", "cost, USD", "", "latency, ms", ""],
        [
            [a.arm, *a.probability, *a.utility, *a.quality, *a.cost, *a.latency]
            for a in found.arms[:MOST_ARMS]
        ],
        as_json=False,
        title="arms at the average context, before and after",
    )  # fmt: skip
    if len(found.arms) > MOST_ARMS:
        out.print(f"{len(found.arms) - MOST_ARMS} more arms changed less; --json has all", highlight=False)
    if found.note:
        out.print(found.note, markup=False, highlight=False)
        return
    print_rows(
        ["component", "unit", "knob", "level", "feature", "old", "new"],
        [[*_values(vars(w))] for w in found.weights],
        as_json=False,
        title="weights that changed most: what a feature adds to a component through a level",
    )


MOST_ARMS: Final = 20


def _values(change: Mapping[str, Any]) -> list[Any]:
    return [change[name] for name in ("component", "unit", "knob", "level", "feature", "old", "new")]
