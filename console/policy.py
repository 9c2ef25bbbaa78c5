"""`steersman policy`: what agents decide by."""

from __future__ import annotations

import contextlib
import datetime as dt

import numpy as np

from console.output import out, print_json, print_rows
from console.stack import require_broker
from console.target import Target
from sinks.clickhouse import connect
from steersman.errors import SteersmanError
from steersman.held import Held
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics

_LIST = ["policy", "stage", "share", "epoch", "version", "arms", "baseline", "learner", "created_at"]


def held(target: Target, tenant: str) -> dict[str, Held]:
    """Return the newest snapshot of every policy of a tenant.

    Raises
    ------
    Unreachable
        When no broker answers.
    SteersmanError
        When the policy topic could not be read to its end in time.
    """
    require_broker(target.brokers)
    subscriber = PolicySubscriber(target.brokers, topics=Topics(target.prefix), tenant=tenant)
    subscriber.start()
    try:
        if not subscriber.wait_ready(10):
            raise SteersmanError(f"the policy topic at {target.brokers} could not be read within 10 s")
        return {name: h for name in subscriber.policies() if (h := subscriber.get(name)) is not None}
    finally:
        subscriber.close()


def _summary(h: Held) -> list[object]:
    s = h.snapshot
    created = dt.datetime.fromtimestamp(s.created_at / 1e6, dt.UTC)
    return [
        s.policy,
        s.stage,
        0.0 if s.stage == "SHADOW" else s.canary_share,
        s.epoch,
        s.version,
        len(s.arms),
        s.baseline,
        s.learner,
        created.isoformat(timespec="milliseconds"),
    ]


def show_all(target: Target, tenant: str, *, as_json: bool) -> None:
    """Print one line a policy."""
    found = held(target, tenant)
    print_rows(_LIST, [_summary(found[name]) for name in sorted(found)], as_json=as_json)


def show_one(target: Target, tenant: str, name: str, *, as_json: bool) -> None:
    """Print a policy's arms, best first, for the context in which every feature is at its mean.

    Raises
    ------
    SteersmanError
        When the tenant has no such policy.
    """
    found = held(target, tenant)
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise SteersmanError(f"tenant {tenant!r} has no policy {name!r} at {target.brokers}; it has: {known}")
    h = found[name]
    x = h.snapshot.features.encode({})
    scores, expected = h.scorer.score(x), h.scorer.components(x)
    order = np.argsort(-scores.utility)
    rows = [
        [
            h.snapshot.arms.labels[a],
            *(float(v[a]) for v in (scores.utility, scores.propensity, *expected[:3])),
        ]
        for a in order
    ]
    columns = ["arm", "utility", "probability", "quality", "cost", "latency"]
    if as_json:
        arms = [dict(zip(columns, row, strict=True)) for row in rows]
        print_json({**dict(zip(_LIST, _summary(h), strict=True)), "arms": arms})
        return
    out.print("  ".join(f"{k} {v}" for k, v in zip(_LIST, _summary(h), strict=True)), markup=False, highlight=False)
    print_rows(
        columns,
        rows,
        as_json=False,
        title="arms at the average context; cost in millionths of a US dollar, latency in microseconds",
    )


def show_events(target: Target, tenant: str, name: str, limit: int, *, as_json: bool) -> None:
    """Print what the guard did with a policy, newest first, with its reasons; as JSON with all evidence."""
    query = (
        "SELECT ts, severity, value, message, evidence FROM v_alerts WHERE detector = 'guard' "
        "AND tenant = {tenant:String} AND policy = {policy:String} "
        "ORDER BY JSONExtractInt(evidence, 'epoch') DESC, JSONExtractInt(evidence, 'version') DESC LIMIT {limit:UInt32}"
    )
    with contextlib.closing(connect(target.clickhouse)) as client:
        result = client.query(query, parameters={"tenant": tenant, "policy": name, "limit": limit})
        shown = len(result.column_names) - (not as_json)
        print_rows(result.column_names[:shown], [row[:shown] for row in result.result_rows], as_json=as_json)


def show_history(target: Target, tenant: str, name: str, limit: int, *, as_json: bool) -> None:
    """Print the published versions of a policy, newest first."""
    query = (
        "SELECT epoch, version, stage, canary_share, created_at, baseline, learner FROM v_policies "
        "WHERE tenant = {tenant:String} AND policy = {policy:String} ORDER BY epoch DESC, version DESC LIMIT {limit:UInt32}"
    )
    with contextlib.closing(connect(target.clickhouse)) as client:
        result = client.query(query, parameters={"tenant": tenant, "policy": name, "limit": limit})
        print_rows(result.column_names, result.result_rows, as_json=as_json)
