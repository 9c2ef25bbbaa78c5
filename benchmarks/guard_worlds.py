"""Traffic in front of a guard: what policy and baseline earn, and when the policy turns bad."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from learners.guard import Guard, Transition
from steersman.lanes import in_share

Earn = Callable[[random.Random], float]
DELAY = 20
"""Decisions that pass before a reward comes."""


@dataclass(frozen=True)
class Traffic:
    """What is earned.

    Attributes
    ----------
    policy, baseline
        Draw the utility of a decision of either.
    bad
        Draws the policy's from decision `bad_from` to `good_again`.
    bad_from, good_again
        Numbers of decisions.
    holdout
        Share of the traces that the routers keep for the baseline.
    """

    policy: Earn
    baseline: Earn
    bad: Earn | None = None
    bad_from: int = 1 << 60
    good_again: int = 1 << 60
    holdout: float = 0.0


def play(guard: Guard, traffic: Traffic, decisions: int, *, seed: int, until: str = "") -> list[Transition]:
    """Let a guard watch decisions, each rewarded `DELAY` decisions later; returns what it did.

    The version at a decision is the number of rewards before it, and what a transition says is how the next ones are made, as
    in a router that hears of it at once. Stops after a transition to the stage `until`.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    waiting: list[dict[str, object]] = []
    seen: list[Transition] = []
    version = 0
    for number in range(decisions):
        trace = f"{rng.getrandbits(128):032x}"
        stage, share = guard.published
        ours = stage != "SHADOW" and in_share(trace, guard.policy, share)
        held_out = rng.random() < traffic.holdout
        mode = stage if stage != "LIVE" else "LIVE" if ours else "HOLDOUT"
        if held_out:
            mode, ours = "HOLDOUT", False
        bad = traffic.bad is not None and traffic.bad_from <= number < traffic.good_again
        earn = (traffic.bad if bad and traffic.bad else traffic.policy) if ours else traffic.baseline
        waiting.append({"utility": earn(rng), "trace_id": trace, "mode": mode, "policy_version": version})
        if len(waiting) > DELAY:
            version += 1
            guard.observe({**waiting.pop(0), "ts": version * 1_000}, version)
            seen += guard.transitions
            guard.transitions = []
            if until and seen and seen[-1].after == until:
                break
    return seen
