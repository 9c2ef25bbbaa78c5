"""`steersman policy explain`: one decision, and what it rested on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from console.life.snapshots import published
from console.output import err, out, print_json, print_rows
from console.rebuild import learned_at
from console.target import Target
from learners.chance import Chance
from learners.explanation import Decided, explained
from learners.policies_file import load_policies
from learners.why import Why
from sinks.clickhouse import connect
from sinks.published import Published, usable
from steersman.errors import ConfigError, SteersmanError
from streams.edges import make_codecs

SAME, DIFFERENT = 0, 4
_DECISION = "SELECT * FROM v_decisions WHERE tenant = {tenant:String} AND decision_id = {decision:String} AND trace_id = {trace:String} LIMIT 1"


_VECTORS = (
    "SELECT applied_sources, acts, created_at FROM v_policies WHERE tenant = {tenant:String} AND policy = {policy:String} "
    "AND epoch = {epoch:Int64} AND version = {version:Int64} ORDER BY acts"
)


def decision_row(target: Target, tenant: str, decision: str) -> dict[str, Any]:
    """Return a stored decision with its reward; SteersmanError when it is not stored."""
    with contextlib.closing(connect(target.reading)) as client:
        names = {"tenant": tenant, "decision": decision, "trace": decision.partition("-")[0]}
        result = client.query(_DECISION, parameters=names)
        for row in result.named_results():
            return dict(row)
    raise SteersmanError(
        f"tenant {tenant!r} has no decision {decision!r} in ClickHouse; decision ids are <trace id>-<span id>, and a decision "
        "is stored a second or two after it was made"
    )


def learned_again(target: Target, tenant: str, policy: str, at: tuple[int, int], policies: Path) -> list[Published]:
    """Make the snapshots of a version again from the log of rewards, unsigned; SteersmanError when that is not possible."""
    spec = load_policies(policies).get(tenant, policy)
    if spec is None:
        raise ConfigError(
            f"{policies} has no policy {policy!r} of tenant {tenant!r}; name the workers' file with --policies"
        )
    names = {"tenant": tenant, "policy": policy, "epoch": at[0], "version": at[1]}
    codec = make_codecs(("policy_snapshot",))["policy_snapshot"]
    made = []
    with contextlib.closing(connect(target.reading)) as client:
        rows = client.query(_VECTORS, parameters=names).result_rows
    for sources, acts, created_at in rows:
        vector = {one["partition"]: (one["offset"], one["seq"]) for one in json.loads(sources)}
        learner = learned_at(target, spec, policies, at[0], vector, acts)
        record = learner.snapshot(round(created_at.timestamp() * 1e6)).to_record()
        made.append(Published(record, codec.encode(record)))
    if not made:
        raise SteersmanError(f"version {at[0]}.{at[1]} of {policy} is not in ClickHouse")
    return made


def _published(target: Target, tenant: str, policy: str, at: tuple[int, int], policies: Path) -> list[Published]:
    """What was published as this version; where it is no longer kept, the same made again from the log of rewards."""
    try:
        return published(target, tenant, policy, at)
    except SteersmanError as gone:
        err.print("it is compacted away there too: learning the policy again from the log of rewards", highlight=False)
        try:
            return learned_again(target, tenant, policy, at, policies)
        except SteersmanError as error:
            raise SteersmanError(f"{gone}. Nor can it be learned again: {error}") from error


def show(target: Target, tenant: str, decision: str, policies: Path, *, as_json: bool) -> int:
    """Explain a decision; returns 0 when its probability comes out as logged, else 4."""
    row = decision_row(target, tenant, decision)
    if row["policy_version"] is None:
        facts = {**_facts(row), "snapshot": None, "note": f"no snapshot was followed ({row['reason'] or 'no policy'})"}
        if as_json:
            print_json(facts)
        else:
            _print_facts(facts)
            out.print(f"No weights were involved: {facts['note']}.", markup=False, highlight=False)
        return SAME
    at = (int(row["policy_epoch"]), int(row["policy_version"]))
    one = explained(usable(_published(target, tenant, row["policy"], at, policies)), Decided.of(row, "decided_at"))
    s, made, same, parts = one.snapshot, one.chance, one.same, one.why
    snapshot = {
        "epoch": s.epoch, "version": s.version, "stage": s.stage, "canary_share": s.canary_share, "pinned": s.pinned,
        "acts": s.acts, "exploration": s.exploration, "exploration_scale": s.exploration_scale, "floor": s.floor,
        "created_at": s.created_at,
        "multipliers": [
            {"tenant": m.tenant, "component": m.component, "value": m.value}
            for m in s.multipliers if not m.tenant or m.tenant == s.tenant_of(row["features"])
        ],
        "squares": [
            one._asdict() for one in s.squares if not one.tenant or one.tenant == s.tenant_of(row["features"])
        ],
    }  # fmt: skip
    if as_json:
        print_json(
            {
                **_facts(row),
                "snapshot": snapshot,
                "recomputed": asdict(made),
                "same": same,
                "why": [asdict(p) for p in parts],
            }
        )
    else:
        _print_facts(_facts(row))
        _print_draw(row, snapshot, made, same)
        _print_parts(parts)
    return SAME if same else DIFFERENT


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("decision_id", "policy", "agent", "decided_at", "arm", "mode", "reason", "propensity", "explored", "policy_epoch",
             "policy_version", "context", "rewarded", "quality", "cost_micro_usd", "latency_us", "failures", "utility")  # fmt: skip
    return {name: row[name] for name in names}


def _print_facts(facts: Mapping[str, Any]) -> None:
    print_rows(["decision", ""], [(k, v) for k, v in facts.items() if v not in (None, "")], as_json=False)


def _print_draw(row: Mapping[str, Any], snapshot: Mapping[str, Any], made: Chance, same: bool) -> None:
    rows = sorted(zip(made.arms, made.probabilities, made.utilities, strict=True), key=lambda one: -one[2])
    marked = [("*" if arm == row["arm"] else "", arm, p, u) for arm, p, u in rows]
    pinned = f", pinned to {snapshot['pinned']}" if snapshot["pinned"] else ""
    print_rows(
        ["", "arm", "probability", "utility"],
        marked,
        as_json=False,
        title=f"eligible under version {snapshot['epoch']}.{snapshot['version']} ({snapshot['stage'].lower()}{pinned}); * was taken",
    )
    best = "the arm of the highest expected utility" if made.best == row["arm"] else f"not the best one, {made.best}"
    how = f"{made.how}; {best}; {snapshot['exploration']} of scale {snapshot['exploration_scale']:.4g}, floor {snapshot['floor']:.4g}"
    if snapshot["multipliers"]:
        prices = ", ".join(
            f"{m['component']} {m['value']:.4g}" + (f" ({m['tenant']})" if m["tenant"] else "")
            for m in snapshot["multipliers"]
        )
        how = f"{how}; prices of ceilings: {prices}"
    for one in snapshot["squares"]:
        how = f"{how}; steady: {one['weight']:.3g} for each square of {one['component']} off {one['centre']:.4g}"
    verdict = "the same" if same else "NOT the same: was it decided by a session, or by another copy of this version?"
    out.print(
        f"why: {how}\nprobability logged {row['propensity']:.12g}, computed again {made.propensity:.12g}: {verdict}",
        markup=False,
        highlight=False,
    )


def _print_parts(parts: tuple[Why, ...]) -> None:
    for one in parts:
        unit = f" ({one.unit})" if one.unit else ""
        rows = [(p.feature, p.value, p.weight, p.adds) for p in one.parts]
        rows += [("all others", None, None, one.rest)] if one.rest else []  # type: ignore[list-item]
        print_rows(
            ["feature", "value", "x weight", "= adds"],
            rows,
            as_json=False,
            title=f"{one.component}{unit}: expected {one.expected:.4g}, average arm {one.mean:.4g}, baseline {one.baseline:.4g}",
        )
