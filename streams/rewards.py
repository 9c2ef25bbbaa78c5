"""Building the reward record of a decision from what its trace reported."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, isfinite
from typing import Any, Final

from streams.credit import SpanTree
from streams.team import peers, share
from streams.trace_state import Decision, Trace

_MAX_INT: Final = (1 << 31) - 1
_MAX_LONG: Final = (1 << 63) - 1


def aggregate(used: Sequence[float], aggregation: str) -> float:
    """One quality out of several feedback values.

    Parameters
    ----------
    used : sequence of float
        Values in order of event time, at least one.
    aggregation : str
        ``first``, ``last``, ``max`` or ``mean``.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For another aggregation.
    """
    match aggregation:
        case "first":
            return used[0]
        case "last":
            return used[-1]
        case "max":
            return max(used)
        case "mean":
            return fsum(used) / len(used)
    raise ValueError(f"unknown aggregation {aggregation!r}: use first, last, max or mean")


def build_reward(decision: Decision, tree: SpanTree, trace: Trace, ts: int, *, complete: bool) -> dict[str, Any]:
    """Make the reward record of one decision, all but its provenance.

    Parameters
    ----------
    decision : Decision
        The decision.
    tree : SpanTree
        Spans of its trace.
    trace : Trace
        Its trace, the decision still among those that wait. Feedback that does not count for it is passed over.
    ts : int
        Event time at which the reward closes; unit: microseconds since 1970-01-01 UTC.
    complete : bool
        True when the trace had ended and been judged, False when the window ran out.

    Returns
    -------
    dict
        A record of ``reward.avsc`` without ``source_partition``, ``source_offset`` and ``seq``.
    """
    policy = decision.policy
    rules = policy.reward
    fields = decision.fields
    used = sorted(one for one in trace.feedback if decision.matches(one))
    if rules.aggregation == "first":
        del used[1:]
    quality = aggregate([one.value for one in used if one.value is not None], rules.aggregation) if used else None
    whole = None
    if decision.shares and quality is not None:
        whole, quality = share(trace, decision, quality)
    defaulted = not used and rules.default is not None
    if defaulted:
        quality = rules.default
    charge = tree.charge(decision.ts, fields["parent_span_id"], rules.credit)
    utility = None
    if quality is not None:
        utility = float(rules.utility(quality, charge.cost_micro_usd, charge.latency_us, charge.failures))
        if not isfinite(utility):
            utility = None
    sources = {one.source for one in used}
    return {
        "decision_id": fields["decision_id"],
        "tenant": fields["tenant"],
        "policy": fields["policy"],
        "trace_id": fields["trace_id"],
        "agent": fields["agent"],
        "ts": ts,
        "decided_at": decision.ts,
        "policy_epoch": fields["policy_epoch"],
        "policy_version": fields["policy_version"],
        "arm": fields["arm"],
        "propensity": fields["propensity"],
        "explored": bool(fields["explored"]),
        "mode": fields["mode"],
        "features": fields["features"],
        "eligible": fields["eligible"],
        "quality": quality,
        "quality_defaulted": defaulted,
        "cost_micro_usd": min(charge.cost_micro_usd, _MAX_LONG),
        "latency_us": charge.latency_us,
        "failures": min(charge.failures, _MAX_INT),
        "utility": utility,
        "reward_spec": policy.reward_hash,
        "input_tokens": charge.input_tokens,
        "output_tokens": charge.output_tokens,
        "spans": charge.spans,
        "feedback_count": len(used),
        "feedback_delay_us": max(0, used[-1].ts - decision.ts) if used else 0,
        "closed_by": "COMPLETE" if complete else "WINDOW",
        "context_fill": charge.fill,
        "source": sources.pop() if len(sources) == 1 else None,
        "trace_quality": whole,
        "peers": peers(trace, decision) if rules.peers else "",
        "hits": "",
        "tool_calls": min(charge.tool_calls, _MAX_INT),
    }
