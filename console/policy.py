"""`steersman policy`: what agents decide by."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from dataclasses import asdict

import numpy as np

from console.brokers import require_broker
from console.output import out, print_json, print_rows
from console.target import Target, registry_of
from learners.knobs import front, level_reports, mixture
from steersman.errors import SteersmanError
from steersman.held import Held
from steersman.snapshot import TOOL_CALLS
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics

_LIST = ["policy", "stage", "share", "epoch", "version", "arms", "baseline", "learner", "created_at", "pinned", "acts"]


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
    topics = Topics(target.prefix)
    subscriber = PolicySubscriber(target.brokers, topics=topics, tenant=tenant, registry=registry_of(topics))
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
        s.pinned,
        s.acts,
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
    h = one(target, tenant, name)
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
    report: object = h.snapshot.learner_report
    with contextlib.suppress(ValueError):
        report = json.loads(h.snapshot.learner_report)
    columns = ["arm", "utility", "probability", "quality", "cost", "latency"]
    levels = [asdict(report) for report in level_reports(h, x)]
    prices = [{"tenant": m.tenant, "component": m.component, "value": m.value} for m in h.snapshot.multipliers]
    if as_json:
        arms = [dict(zip(columns, row, strict=True)) for row in rows]
        made = {**dict(zip(_LIST, _summary(h), strict=True)), "revision": h.snapshot.revision}
        ceilings = {"multipliers": prices, "squares": [near._asdict() for near in h.snapshot.squares]}
        print_json({**made, **ceilings, "learner_report": report, "arms": arms, "levels": levels})
        return
    out.print("  ".join(f"{k} {v}" for k, v in zip(_LIST, _summary(h), strict=True)), markup=False, highlight=False)
    if report:
        out.print(f"learner_report {json.dumps(report)}", markup=False, highlight=False)
    print_rows(
        columns,
        rows,
        as_json=False,
        title="arms at the average context; cost in millionths of a US dollar, latency in microseconds",
    )
    print_rows(
        list(levels[0]),
        [list(level.values()) for level in levels],
        as_json=False,
        title="levels at the average context: share of the decisions, and what a level adds to the mean of its knob's levels",
    )
    for price in prices:
        unit = "tool call" if price["component"] == TOOL_CALLS else f"scale of {price['component']}"
        whose = f" of {h.snapshot.tenant_feature} {price['tenant']}" if price["tenant"] else ""
        out.print(f"ceiling{whose}: one {unit} costs {price['value']:.4g} of utility", markup=False, highlight=False)
    for near in h.snapshot.squares:
        whose = f" of {h.snapshot.tenant_feature} {near.tenant}" if near.tenant else ""
        text = f"steady ceiling{whose}: the square of {near.component} off {near.centre:.4g} costs {near.weight:.3g} of utility"
        out.print(text, markup=False, highlight=False)


def one(target: Target, tenant: str, name: str) -> Held:
    """Return the newest snapshot of a policy; SteersmanError when the tenant has no such policy."""
    found = held(target, tenant)
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise SteersmanError(f"tenant {tenant!r} has no policy {name!r} at {target.brokers}; it has: {known}")
    return found[name]


def show_front(target: Target, tenant: str, name: str, by: str, ceiling: float | None, *, as_json: bool) -> None:
    """Print what quality is to be had for what spending, for the context in which every feature is at its mean.

    Raises
    ------
    SteersmanError
        When the tenant has no such policy, or nothing keeps the ceiling.
    """
    h = one(target, tenant, name)
    arms = front(h, h.snapshot.features.encode({}), by)
    mixed: list[dict[str, object]] = []
    if ceiling is not None:
        expected = h.scorer.components(h.snapshot.features.encode({}))
        try:
            found = mixture(np.maximum(getattr(expected, by), 0.0), expected.quality, ceiling)
        except ValueError as error:
            raise SteersmanError(f"policy {name}: {error}; ask for more with --ceiling") from error
        mixed = [{"arm": h.snapshot.arms.labels[a], "share": share} for a, share in found]
    if as_json:
        made = dict(zip(_LIST, _summary(h), strict=True))
        print_json({**made, "by": by, "front": [asdict(arm) for arm in arms], "mixture": mixed})
        return
    columns = ["", "arm", "probability", "quality", "cost", "latency", f"quality per {by}"]
    rows = [
        ["*" if a.on_front else "", a.arm, a.probability, a.quality, a.cost, a.latency, a.worth] for a in arms
    ]  # fmt: skip
    title = (
        f"{name} v{h.snapshot.version}: arms by {by} at the average context; * no mixture of others is as good for less"
    )
    print_rows(columns, rows, as_json=False, title=title)
    for part in mixed:
        out.print(f"best mix for {by} {ceiling:g}: {part['share']:.1%} {part['arm']}", markup=False, highlight=False)


def show_events(target: Target, tenant: str, name: str, limit: int, *, as_json: bool) -> None:
    """Print what the guard did with a policy, newest first, with its reasons; as JSON with all evidence."""
    query = (
        "SELECT ts, severity, value, message, evidence FROM v_alerts WHERE detector = 'guard' "
        "AND tenant = {tenant:String} AND policy = {policy:String} "
        "ORDER BY JSONExtractInt(evidence, 'epoch') DESC, JSONExtractInt(evidence, 'version') DESC LIMIT {limit:UInt32}"
    )
    from sinks.clickhouse import connect  # only events are in the store

    with contextlib.closing(connect(target.reading)) as client:
        result = client.query(query, parameters={"tenant": tenant, "policy": name, "limit": limit})
        shown = len(result.column_names) - (not as_json)
        print_rows(result.column_names[:shown], [row[:shown] for row in result.result_rows], as_json=as_json)
