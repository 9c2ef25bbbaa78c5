"""A River regressor on sufficient statistics: exact by event and by batch, mergeable, with an honest uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from river import base

from .regression import Posterior, solve

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


class BlockRidge(base.MiniBatchRegressor):
    """Bayesian linear regression with one prior precision per feature, for River pipelines.

    The arithmetic is that of the policies' heads (`learners.regression.solve`). Features absent from x are 0. Unlike
    River's ``BayesianLinearRegression`` its deviation falls as data come, and the noise is estimated.

    Parameters
    ----------
    precision : float
        Prior precision, in events, of features that `precisions` does not name.
    precisions : mapping of str to float, optional
        Prior precision of single features.
    intercept : float
        Prior precision of the constant.
    noise, noise_n : float
        Prior noise variance, and how many events it is worth.
    """

    def __init__(
        self,
        precision: float = 1.0,
        precisions: Mapping[str, float] | None = None,
        intercept: float = 0.1,
        noise: float = 0.1,
        noise_n: float = 4.0,
    ) -> None:
        self.precision = precision
        self.precisions = precisions
        self.intercept = intercept
        self.noise = noise
        self.noise_n = noise_n
        self._columns: dict[Any, int] = {}
        self._gram = np.zeros((1, 1))
        self._products = np.zeros((1, 1))
        self._square = 0.0
        self._n = 0
        self._posterior: Posterior | None = None

    def _row(self, x: Mapping[Any, Any], grow: bool) -> NDArray[np.float64]:
        if grow:
            for name in x:
                self._columns.setdefault(name, len(self._columns) + 1)
            missing = len(self._columns) + 1 - len(self._gram)
            if missing > 0:
                self._gram = np.pad(self._gram, (0, missing))
                self._products = np.pad(self._products, ((0, missing), (0, 0)))
        row = np.zeros(len(self._gram))
        row[0] = 1.0
        for name, value in x.items():
            column = self._columns.get(name)
            if column is not None and value is not None:
                row[column] = value
        return row

    def learn_one(self, x: Mapping[Any, Any], y: float) -> None:
        """Learn from features x (name -> number) and the target y."""
        row = self._row(x, grow=True)
        self._gram += np.outer(row, row)
        self._products[:, 0] += row * y
        self._square += float(y) * float(y)
        self._n += 1
        self._posterior = None

    def learn_many(self, X: pd.DataFrame, y: pd.Series) -> None:
        """Learn from N rows at once; the same as N times `learn_one` up to rounding."""
        if not len(X):
            return
        self._row(dict.fromkeys(X.columns, 0.0), grow=True)
        rows = self._matrix(X)
        targets = np.asarray(y, dtype=np.float64)
        self._gram += rows.T @ rows
        self._products[:, 0] += rows.T @ targets
        self._square += float(targets @ targets)
        self._n += len(rows)
        self._posterior = None

    def _matrix(self, X: pd.DataFrame) -> NDArray[np.float64]:
        rows = np.zeros((len(X), len(self._gram)))
        rows[:, 0] = 1.0
        for name in X.columns:
            column = self._columns.get(name)
            if column is not None:
                rows[:, column] = np.nan_to_num(np.asarray(X[name], dtype=np.float64), nan=0.0)
        return rows

    def _solved(self) -> Posterior:
        if self._posterior is None:
            precision = np.full(len(self._gram), self.precision)
            precision[0] = self.intercept
            for name, value in (self.precisions or {}).items():
                if name in self._columns:
                    precision[self._columns[name]] = value
            squares = np.array([self._square])
            self._posterior = solve(self._gram, self._products, squares, self._n, precision, self.noise, self.noise_n)
        return self._posterior

    def predict_one(self, x: Mapping[Any, Any], with_dist: bool = False) -> Any:
        """Expected target (float), or with `with_dist` the predictive `river.proba.Gaussian`, noise included."""
        posterior = self._solved()
        row = self._row(x, grow=False)
        mean = float(row @ posterior.theta[:, 0])
        if not with_dist:
            return mean
        variance = float(posterior.noise[0] * (1.0 + row @ posterior.covariance() @ row))
        from river.proba import Gaussian  # brings scipy.stats along

        return Gaussian._from_state(n=1, m=mean, var=variance, ddof=0)  # type: ignore[no-untyped-call]

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """Expected targets of N rows."""
        import pandas as pd  # only River's mini-batch interface needs it

        return pd.Series(self._matrix(X) @ self._solved().theta[:, 0], index=X.index)
