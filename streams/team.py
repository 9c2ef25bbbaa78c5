"""What the decisions of one trace share: feedback on the whole trace, and knowledge of each other.

Three rules say how such feedback becomes the quality of a decision (`[policy.reward] quality_credit`):

``own``
    Feedback aimed at the decision, its span or the whole trace is its quality, in full.
``shared``
    Only feedback on the whole trace counts, and it is split: the shares of a trace's decisions add up to it, to the bit.
    The split is made once, when the first of the sharers that have been judged closes, among those that wait at that time.
``difference``
    As ``own``, and the reward says what the trace's other decisions were (its *peers*), so that the learner can take their
    part out of the account (`learners.peers`). What is learned never goes into a reward: the stage remains a function
    of its log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from streams.trace_state import Decision, Split, Trace

MAX_PEERS: Final = 256
"""Closed decisions of a trace that are remembered, and peers that a reward names at most."""
MAX_TEXT: Final = 60_000
"""Characters that the peers of a reward take at most."""


def split(total: float, weights: Sequence[float]) -> list[float]:
    """Split a number in proportion to weights, so that the parts add up to it exactly, in any order of addition.

    The number is a whole multiple of its last bit, and so is each part: the multiples are apportioned by largest
    remainder (Hamilton's method), and no partial sum is ever rounded.

    Parameters
    ----------
    total : float
        Finite.
    weights : sequence of float, shape (n,)
        All above 0, at least one.

    Returns
    -------
    list of float, shape (n,)
    """
    unit = math.ulp(total)
    units = int(total / unit)
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    quotas = [units * weight / whole for weight in exact]
    parts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - quotas[i], i))
    for i in by_remainder[: units - sum(parts)]:
        parts[i] += 1
    return [part * unit for part in parts]


def share(trace: Trace, decision: Decision, quality: float) -> tuple[float | None, float | None]:
    """What is split, and a decision's share of it.

    Parameters
    ----------
    trace : Trace
        Its trace, the decision still among those that wait.
    decision : Decision
        A decision of rule ``shared`` that closes, judged.
    quality : float
        The quality of the trace as the feedback that counts for the decision has it: split, if nothing has been split yet.

    Returns
    -------
    tuple of (float or None, float or None)
        Both None when others have already shared everything out among them: the decision came too late.
    """
    rules = decision.policy.reward
    made = trace.splits.get(rules.metric)
    if made is None:
        sharers = {
            name: other.policy.reward.share
            for name, other in sorted(trace.open.items())
            if other.policy.reward.quality_credit == "shared" and other.policy.reward.metric == rules.metric
        }
        parts = split(quality, list(sharers.values()))
        made = trace.splits[rules.metric] = Split(quality, dict(zip(sharers, parts, strict=True)))
    part = made.parts.get(decision.fields["decision_id"])
    return (None, None) if part is None else (made.total, part)


def peers(trace: Trace, decision: Decision) -> str:
    """The other decisions of a trace that a decision's policy wants to know of: a line ``policy arm`` each, sorted."""
    wanted = decision.policy.reward.peers
    own = decision.fields["decision_id"]
    found = [(f["policy"], f["arm"]) for name, other in trace.open.items() if name != own for f in (other.fields,)]
    found += trace.team
    lines = sorted(f"{policy} {arm}" for policy, arm in found if arm and policy in wanted)[:MAX_PEERS]
    while sum(map(len, lines)) + len(lines) > MAX_TEXT:
        lines.pop()
    return "\n".join(lines)


def remember(trace: Trace, decision: Decision) -> None:
    """Keep what a closed decision was, where others of its trace may have to know it."""
    if decision.policy.is_peer and len(trace.team) < MAX_PEERS:
        trace.team.append((decision.fields["policy"], decision.fields["arm"]))
