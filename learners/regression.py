"""Bayesian linear regression from sufficient statistics, with one prior precision per parameter.

With y = phi . theta + noise of variance s2 and the prior theta_i ~ N(0, s2 / precision_i), the posterior is
N(A^-1 b, s2 A^-1), A = G + diag(precision), G = sum phi phi', b = sum y phi (Bishop, PRML 3.3). s2 gets an inverse-gamma
prior worth `noise_n` events of variance `noise`: its estimate is (noise_n noise + sum y^2 - b' A^-1 b) / (noise_n + n).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack  # type: ignore[import-untyped]

Float = NDArray[np.float64]


class Posterior(NamedTuple):
    """What the data say about the parameters.

    Attributes
    ----------
    theta : float64 array (D, H)
        Posterior means, a column per target.
    noise : float64 array (H,)
        Estimated noise variances.
    factor : float64 array (D, D)
        Lower Cholesky factor of A (the upper triangle is undefined).
    """

    theta: Float
    noise: Float
    factor: Float

    def moved(self, pull: Float) -> Posterior:
        """The posterior under a prior mean that is not 0: `pull` (D,) is the prior precision times that mean."""
        if not pull.any():
            return self
        shift, _ = lapack.dpotrs(self.factor, pull[:, None], lower=1)
        return self._replace(theta=self.theta + shift)

    def covariance(self, start: int = 0) -> Float:
        """A^-1 of the parameters from `start` on, symmetric: times the noise variance it is their covariance."""
        inverse, info = lapack.dpotri(self.factor, lower=1)
        if info != 0:
            raise FloatingPointError(f"the posterior cannot be inverted (LAPACK dpotri {info})")
        lower = np.tril(inverse[start:, start:])
        full: Float = lower + np.tril(lower, -1).T
        return full


def solve(
    gram: Float, products: Float, squares: Float, n: float, precision: Float, noise: float, noise_n: float
) -> Posterior:
    """Posterior of H regressions that share their inputs.

    Parameters
    ----------
    gram : float64 array (D, D)
        Sum of phi phi'; only the lower triangle is read.
    products : float64 array (D, H)
        Sum of y phi.
    squares : float64 array (H,)
        Sum of y^2.
    n : float
        Number of events.
    precision : float64 array (D,)
        Prior precisions in events: how many observations the prior is worth. All above 0.
    noise, noise_n : float
        Prior noise variance, and how many events it is worth.

    Raises
    ------
    FloatingPointError
        When the sums are not finite or the matrix is not positive definite.
    """
    matrix = gram + np.diag(precision)
    factor, info = lapack.dpotrf(matrix, lower=1, clean=0)
    if info != 0 or not np.isfinite(matrix).all():
        raise FloatingPointError(f"the sums do not make a regression (LAPACK dpotrf {info})")
    theta, _ = lapack.dpotrs(factor, products, lower=1)
    residual = np.maximum(squares - (products * theta).sum(axis=0), 0.0)
    return Posterior(theta, (noise_n * noise + residual) / (noise_n + n), factor)


def centred(gram: Float, products: Float, squares: Float, mean: Float) -> tuple[Float, Float, Float]:
    """Sums as if `mean`'s predictions had been taken from every y: what a prior mean that is not 0 comes to.

    Parameters
    ----------
    gram, products, squares
        As of `solve`.
    mean : float64 array (D, H)
        Prior means, to be added to what `solve` makes of the sums returned.
    """
    if not mean.any():
        return gram, products, squares
    full = np.tril(gram) + np.tril(gram, -1).T
    predicted = full @ mean
    return gram, products - predicted, squares - ((2.0 * products - predicted) * mean).sum(axis=0)


def evidence(posterior: Posterior, precision: Float, n: float, noise_n: float) -> float:
    """Logarithm of the likelihood of the first target's data under its prior, parameters and noise integrated out, less what all priors of the same data share.

    Parameters
    ----------
    posterior : Posterior
        As `solve` made it.
    precision : float64 array (D,)
        The prior's, as given to `solve`.
    n, noise_n : float
        As given to `solve`.

    Notes
    -----
    Of the normal-inverse-gamma model: Bishop, PRML 3.5; here (sum ln precision - ln det A - (noise_n + n) ln(noise (noise_n + n))) / 2.
    """
    events = noise_n + n
    roots = float(np.log(posterior.factor.diagonal()).sum())
    return 0.5 * (float(np.log(precision).sum()) - events * math.log(posterior.noise[0] * events)) - roots
