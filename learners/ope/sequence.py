"""An anytime-valid lower bound of a mean: right at all times at once, however often one looks and whenever one stops.

The predictable plug-in empirical-Bernstein sequence of Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 2024 (theorem 2), in the one-sided form that needs a bound on one side only (Fan, Grama and
Liu, 2015; used for off-policy values by Waudby-Smith et al., "Anytime-valid off-policy inference for contextual bandits",
2022; and Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 2021). For terms y_t, each with a bound b_t known
before it with y_t >= -b_t, z_t = y_t / b_t, bets 0 <= l_t < 1 fixed before y_t, and psi(l) = -log(1 - l) - l,

    exp( sum of l_t (z_t - m / b_t) - sum of psi(l_t) z_t^2 )

is a nonnegative supermartingale when every y_t has mean m given the past, so by Ville's inequality

    m >= ( sum of l_t z_t - sum of psi(l_t) z_t^2 - log(1 / alpha) ) / sum of l_t / b_t     at all times, with 1 - alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_BET = 0.5
_FIRST_VARIANCE, _FIRST_N = 0.25, 1.0


@dataclass
class LowerSequence:
    """Lower bounds of a mean. Its fields are its state.

    Attributes
    ----------
    n : int
        Terms seen.
    gained : float
        Sum of l_t z_t.
    paid : float
        Sum of psi(l_t) z_t^2.
    staked : float
        Sum of l_t / b_t.
    squares : float
        Sum of z_t^2.
    """

    n: int = 0
    gained: float = 0.0
    paid: float = 0.0
    staked: float = 0.0
    squares: float = 0.0

    def add(self, y: float, bound: float, alpha: float) -> None:
        """Take a term in.

        Parameters
        ----------
        y : float
            The term; more than `bound` counts as `bound`, which only lowers the bound of the mean.
        bound : float
            Above 0; known before y; y >= -bound.
        alpha : float
            The level for which the bets are made; the bound is right for every level.
        """
        z = min(y / bound, 1.0)
        variance = (_FIRST_VARIANCE * _FIRST_N + self.squares) / (self.n + _FIRST_N)
        t = self.n + 1
        bet = min(math.sqrt(2.0 * math.log(1.0 / alpha) / (variance * t * math.log(1.0 + t))), _MAX_BET)
        self.n = t
        self.gained += bet * z
        self.paid += (-math.log1p(-bet) - bet) * z * z
        self.staked += bet / bound
        self.squares += z * z

    def lower(self, alpha: float) -> float:
        """Lower bound of the mean, at all times with 1 - alpha; minus infinity before the first term."""
        if not self.n:
            return -math.inf
        return (self.gained - self.paid - math.log(1.0 / alpha)) / self.staked

    @property
    def log_evidence(self) -> float:
        """Logarithm of the e-value against "the mean is at most 0": it is ever above log(1 / alpha) with alpha at most."""
        return self.gained - self.paid

    @classmethod
    def of(cls, state: Mapping[str, float]) -> LowerSequence:
        """Go on from ``vars()`` of another one."""
        return cls(int(state["n"]), *(float(state[name]) for name in ("gained", "paid", "staked", "squares")))
