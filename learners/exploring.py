"""How widely to explore where `policies.toml` does not say: per rule of `steersman.exploration`."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

RULES = 4
"""Number of the rules by which what was learned becomes a snapshot. A release that changes them, here or elsewhere in `learners`,
counts one on: it publishes the versions that it finds anew, with another content (`steersman verify`, E6c)."""

LEAST_FLOOR = 0.001
"""Never less, so that every log can answer what another policy would have earned."""

SECOND, FEW = 0.01, 30.0
"""Weight of Maillard sampling's second look at an arm of which nothing is known, and the rewards after which it is half as much."""

EPSILON = 0.05
"""Floor of epsilon-greedy."""

NARROWING = 1000.0
"""Events' worth of evidence after which exploration by doubt varies half as much as at first."""

_FLOOR_EVENTS, _FLOOR_LAG = 1.0, 50.0


def scale_of(kind: str, n_arms: int, n: float, given: float | None = None) -> float:
    """Scale of a snapshot's exploration after n rewards.

    Parameters
    ----------
    kind : str
        A kind of `steersman.exploration`.
    n_arms : int
    n : float
        Rewards learned from; of maillard and thompson the evidence that is left of them, in events.
    given : float, optional
        The policy's own, constant; by default what did well on replays of real routing data, the same for all sets.

    Returns
    -------
    float
        maillard and thompson: 0.2 (10 / arms)^0.35 / sqrt(1 + n / 1000), since calibrated posterior sampling (1) explores too much
        at a few thousand decisions, and many arms explore more between them; ucb: 0.75; igw: `given` (10) times the square root
        of n + 1, as SquareCB's regret bound asks; softmax: 0.02.

    Notes
    -----
    What is doubtful after many rewards are effects of contexts, and contexts differ by themselves: so much so that a greedy learner
    finds out about them (A. Bietti, A. Agarwal and J. Langford, "A Contextual Bandit Bake-off", JMLR 2021; S. Kannan et al., NeurIPS
    2018). What is drawn against the best guess then costs more than it teaches. Where evidence is cut off, because the world has
    changed, or arms are new, exploration is as wide as at first again.
    """
    if kind == "igw":
        return (10.0 if given is None else given) * sqrt(n + 1.0)
    if given is not None:
        return given
    if kind in ("maillard", "thompson"):
        return 0.2 * float((10.0 / n_arms) ** 0.35) / sqrt(1.0 + n / NARROWING)
    return {"ucb": 0.75, "softmax": 0.02}.get(kind, 0.0)


def second_look(
    known: NDArray[np.float64], level_of: NDArray[np.float64], declared: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Weights of the second look (`steersman.exploration.maillard`), float64 (K,).

    Parameters
    ----------
    known : float64 array (K,)
        Events' worth of evidence of each arm.
    level_of : float64 array (K, L)
        1 where the arm has the level.
    declared : float64 array (L,), optional
        Events that what was declared of each level is worth.

    Notes
    -----
    It is for arms given up after bad luck with their first rewards. What decides is the arm's least-known level: of an arm whose levels
    are all well known little is in doubt but effects of contexts, which contexts teach by themselves.
    """
    of_level = known @ level_of + declared
    least = np.where(level_of > 0, of_level, np.inf).min(axis=1)
    return np.asarray(SECOND * FEW / (FEW + least))


def floor_of(kind: str, n: float, given: float | None = None) -> float:
    """Probability that all arms share after n rewards, under a kind of exploration.

    Returns
    -------
    float
        The given one; else 0.05 for greedy, which nothing else makes explore; else 0.02 at first, which falls as 1 / (n + 50)
        to 0.001. A constant floor costs the same for ever; a falling one adds up to a decision or so each time that n doubles.
    """
    if given is not None:
        return given
    return EPSILON if kind == "greedy" else max(LEAST_FLOOR, _FLOOR_EVENTS / (_FLOOR_LAG + n))


def ucb1_scale(n: float, given: float | None = None) -> float:
    """Width of UCB1 after n rewards, in units of 1 / sqrt(pulls): the given one (0.3) times the square root of log n."""
    return (0.3 if given is None else given) * sqrt(log(max(n, 2.0)))
