"""`steersman ope`: what another policy would have earned on the decisions that were logged."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from console.output import out, print_json, print_rows
from console.policy import held
from console.target import Target
from learners.batch_scorer import BatchScorer
from learners.ope.decisions import Decisions, always, best, uniform
from learners.ope.estimators import Evaluation, evaluate
from sinks.clickhouse import connect
from steersman.errors import ConfigError, SteersmanError
from steersman.held import Held

TARGETS = ("greedy", "snapshot", "baseline", "uniform")
_LOG = """
SELECT arms, baseline_index, arm_index, propensity, utility, eligible_arms, features, policy_version
FROM v_ope_decisions
WHERE tenant = {tenant:String} AND policy = {policy:String} AND decided_at >= {since:DateTime64(6, 'UTC')}
    AND decided_at < {until:DateTime64(6, 'UTC')}
"""
_CONTROL = """
SELECT count(), avg(utility) FROM v_rewards
WHERE tenant = {tenant:String} AND policy = {policy:String} AND mode = 'HOLDOUT' AND isNotNull(utility)
    AND decided_at >= {since:DateTime64(6, 'UTC')} AND decided_at < {until:DateTime64(6, 'UTC')}
"""
_EVER = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes
    ----------
    policy, tenant
        Whose decisions.
    target
        One of `TARGETS`, or an arm's label.
    since, until
        When they were made; None is no limit.
    confidence
        Of the intervals.
    """

    policy: str
    tenant: str
    target: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    confidence: float = 0.95


@dataclass(frozen=True, eq=False)
class Logged:
    """The decisions that were read.

    Attributes
    ----------
    decisions
        As `learners.ope` takes them.
    features
        Encoded contexts, float32 (n, d).
    arms, baseline
        Labels of the policy's arms; index of its baseline.
    newest_version
        Highest policy version that decided one of them.
    control_n, control
        Decisions of the control group in the same time, and what they earned on the mean; None without any.
    """

    decisions: Decisions
    features: NDArray[np.float32]
    arms: tuple[str, ...]
    baseline: int
    newest_version: int
    control_n: int
    control: float | None


def run(target: Target, request: Request, *, as_json: bool) -> None:
    """Read the decisions, evaluate, and print.

    Raises
    ------
    Unreachable
        When store or broker do not answer.
    SteersmanError
        When nothing was logged that could answer, or the target is none.
    """
    logged = read(target, request)
    snapshot = held(target, request.tenant).get(request.policy) if request.target in ("greedy", "snapshot") else None
    found = evaluate(logged.decisions, probabilities(request.target, logged, snapshot), confidence=request.confidence)
    if as_json:
        print_json(as_record(request, logged, found, snapshot))
    else:
        _print(request, logged, found, snapshot)


def read(target: Target, request: Request) -> Logged:
    """Read the decisions that count: drawn, rewarded, of the policy's present epoch."""
    since, until = request.since or _EVER[0], request.until or _EVER[1]
    parameters = {"tenant": request.tenant, "policy": request.policy, "since": since, "until": until}
    with contextlib.closing(connect(target.reading)) as client:
        columns = client.query(_LOG, parameters=parameters, column_oriented=True).result_columns
        n, control = client.query(_CONTROL, parameters=parameters).result_rows[0]
    if not columns or not columns[0]:
        raise SteersmanError(
            f"no decision of {request.tenant}/{request.policy} in that time can answer: none was drawn with a propensity below 1, "
            "rewarded with a quality, and stored. 'steersman policy list' names the policies; a policy in shadow draws nothing"
        )
    arms, baseline, arm, propensity, utility, eligible, features, versions = columns
    decisions = Decisions(
        np.asarray(arm, dtype=np.int64) - 1,
        np.asarray(propensity, dtype=np.float64),
        np.asarray(utility, dtype=np.float64),
        np.asarray(list(eligible), dtype=np.float64) > 0,
    )
    x = np.asarray(list(features), dtype=np.float32)
    return Logged(
        decisions,
        x,
        tuple(arms[0]),
        int(baseline[0]) - 1,
        max(v or 0 for v in versions),
        int(n),
        control if n else None,
    )


def probabilities(target: str, logged: Logged, snapshot: Held | None) -> NDArray[np.float64]:
    """Return the target's probabilities, (n, K).

    Raises
    ------
    ConfigError
        When there is no such target.
    SteersmanError
        When the snapshot is not at hand or of other arms or features.
    """
    eligible = logged.decisions.eligible
    if target == "uniform":
        return uniform(eligible)
    if target == "baseline":
        return always(logged.baseline, eligible)
    if target not in ("greedy", "snapshot"):
        if target not in logged.arms:
            raise ConfigError(
                f"no target is called {target!r}: it is {', '.join(TARGETS)}, or an arm: {', '.join(logged.arms)}"
            )
        return always(logged.arms.index(target), eligible)
    if (
        snapshot is None
        or snapshot.snapshot.arms.labels != logged.arms
        or snapshot.snapshot.features.dim != logged.features.shape[1]
    ):
        raise SteersmanError(
            "the policy published now has other arms or features than the one stored: wait for the sink"
        )
    if target == "greedy":
        return best(BatchScorer(snapshot.snapshot).utilities(logged.features), eligible)
    return np.stack([snapshot.scorer.score(x, e).propensity for x, e in zip(logged.features, eligible, strict=True)])


def as_record(request: Request, logged: Logged, found: Evaluation, snapshot: Held | None) -> dict[str, Any]:
    """Return the answer for programs."""
    return {
        "policy": request.policy,
        "tenant": request.tenant,
        "target": request.target,
        "version": None if snapshot is None else snapshot.snapshot.version,
        "confidence": request.confidence,
        "decisions": found.n,
        "effective_sample_size": found.ess,
        "weight_mean": found.weight_mean,
        "weight_max": found.weight_max,
        "logged_utility": found.logged,
        "control_decisions": logged.control_n,
        "control_utility": logged.control,
        "switch_at": found.switch_at,
        "estimates": {
            e.estimator: {
                "utility": None if math.isnan(e.value) else e.value,
                "likelihood": list(e.likelihood),
                "bernstein": list(e.bernstein),
            }
            for e in found.estimates
        },
        "remarks": remarks(logged, found, snapshot),
    }


def remarks(logged: Logged, found: Evaluation, snapshot: Held | None) -> list[str]:
    """Return what a reader should know before believing the numbers."""
    said = []
    if found.thin:
        said.append(
            f"The log is thin here: {found.n} decisions are worth {found.ess:.0f} for this question. Explore more (a higher floor), "
            "or ask about a longer time."
        )
    if found.off_balance:
        said.append(
            f"The mean importance weight is {found.weight_mean:.3f} and not 1, by more than chance: propensities are wrong, or the log "
            "is not all there. Do not believe the estimates."
        )
    if snapshot is not None:
        said.append(
            "The policy asked about has learned from these very decisions, so its estimate is somewhat too good; decisions made "
            "after its version are fair (--from)."
        )
    return said


def _print(request: Request, logged: Logged, found: Evaluation, snapshot: Held | None) -> None:
    best = found["dr"]
    what = {
        "greedy": "always taking the arm that looks best now",
        "snapshot": "deciding as the present policy does, exploration included",
        "baseline": f"always taking the baseline, {logged.arms[logged.baseline]}",
        "uniform": "taking every eligible arm equally often",
    }.get(request.target, f"always taking {request.target}")
    gain = best.value - found.logged
    lines = [
        f"{request.tenant}/{request.policy}: {what} would have earned {best.value:+.4f} utility a decision (DR), with {request.confidence:.0%} "
        f"confidence between {best.likelihood.low:+.4f} and {best.likelihood.high:+.4f}.",
        f"The decisions as they were made earned {found.logged:+.4f}: "
        + (
            f"{abs(gain):.4f} {'less' if gain > 0 else 'more'}, and that is {'more' if _apart(best.likelihood, found.logged) else 'not more'} "
            "than chance explains."
        ),
    ]
    if logged.control is not None:
        lines.append(f"The control group earned {logged.control:+.4f} ({logged.control_n} decisions).")
    lines.append(
        f"{found.n} decisions that were drawn count; for this question they are worth {found.ess:.0f} (effective sample size)."
    )
    for line in [*lines, *remarks(logged, found, snapshot)]:
        out.print(line, markup=False, highlight=False)
    rows = [(e.estimator, e.value, *e.likelihood, *e.bernstein) for e in found.estimates]
    print_rows(["estimator", "utility", "low", "high", "low, any n", "high, any n"], rows, as_json=False)


def _apart(interval: tuple[float, float], value: float) -> bool:
    return not interval[0] <= value <= interval[1]
