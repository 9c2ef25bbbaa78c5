"""SquareCB on any regressor of River: its predictions of the quality, explored by inverse-gap weighting.

``learner = "squarecb"`` takes the linear learner's regression; ``learner = "squarecb:tree.HoeffdingTreeRegressor"`` any class of
``river`` that is a regressor and can be made without arguments. The rest of this page is about those.

A regressor of River depends on the order of its events, its state can be written only by pickle, and two of them do not
add up. So what is kept is a sample of the rewards, the `SAMPLE` with the smallest hashes of their decision ids (a bottom-k
sketch: E. Cohen and H. Kaplan, PODC 2007): a uniform sample, whoever saw the rewards in whatever order. The regressor
is learned again from the sample, in the order of the hashes, when a snapshot is made. A router runs its linear
image: the least-squares fit of phi(x, arm) to what it predicts for all arms in the sample's contexts. So the propensities are
exact, those of the image; what a tree knows beyond a linear model of phi does not reach the router.

Cost, latency and failures have the heads of the linear learner.
"""

from __future__ import annotations

import bisect
import importlib
import inspect
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from river import base

from steersman.errors import ConfigError
from steersman.fingerprint import hash64

from . import state
from .gram import assemble
from .moments import Moments
from .policy_learner import PolicyLearner
from .regression import Posterior, solve

if TYPE_CHECKING:
    from .spec import PolicySpec

SAMPLE = 500
"""Rewards kept."""

PREDICTIONS = 1000
"""Predictions that the linear image is fitted to, at most (one context's arms at least)."""

_RIDGE = 1e-3
_CLASS = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)\.([A-Za-z][A-Za-z0-9]*)\Z")


class Kept(NamedTuple):
    """A reward of the sample; ordered by the hash of its decision id."""

    code: int
    arm: int
    quality: float
    x: tuple[float, ...]


class SquareCB(PolicyLearner):
    """SquareCB (D. Foster and A. Rakhlin, ICML 2020); parameters as of `PolicyLearner`.

    Raises
    ------
    ConfigError
        When the spec's learner names no regressor of River.
    """

    KIND: ClassVar[str] = "igw"

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> None:
        super().__init__(spec, epoch, began)
        self.sample: list[Kept] = []
        name = spec.learner.partition(":")[2]
        self._make = maker_of(name) if name else None

    def _keep(self, reward: Mapping[str, Any], arm: int, quality: float | None) -> None:
        """Offer a reward whose quality is believed to the sample."""
        if self._make is not None and quality is not None:
            x = np.asarray(reward["features"], dtype=np.float32).tolist()
            self._offer(Kept(hash64(reward["decision_id"]), arm, float(quality), tuple(x)))

    def _offer(self, kept: Kept) -> None:
        if len(self.sample) < SAMPLE or kept < self.sample[-1]:
            bisect.insort(self.sample, kept)
            del self.sample[SAMPLE:]

    def merge(self, shard: PolicyLearner) -> None:
        """Add a shard's sums and sample; ValueError as of `PolicyLearner`."""
        super().merge(shard)
        if isinstance(shard, SquareCB):
            self.sample = sorted([*self.sample, *shard.sample])[:SAMPLE]

    def posteriors(self) -> tuple[Posterior, Posterior]:
        """As of the linear learner, the means of the quality being those of the regressor's linear image."""
        quality, others = super().posteriors()
        if self._make is not None and self.sample:
            quality = quality._replace(theta=self._image(self._taught(self._make())))
        return quality, others

    def _taught(self, model: base.Regressor) -> base.Regressor:
        for kept in self.sample:
            model.learn_one(self._inputs(kept.x, kept.arm), kept.quality)
        return model

    def _inputs(self, x: Sequence[float], arm: int) -> dict[Hashable, Any]:
        """phi(x, arm) by name, zeros left out."""
        phi = self.layout.phi(np.asarray(x), arm)
        return {f"phi{i}": float(phi[i]) for i in np.flatnonzero(phi)}

    def _image(self, model: base.Regressor) -> NDArray[np.float64]:
        """Parameters (D, 1) of the linear model of phi that comes closest to a regressor."""
        n_arms = len(self.spec.arms)
        contexts = [kept.x for kept in self.sample[: max(1, PREDICTIONS // n_arms)]]
        moments = Moments(n_arms, self.layout.dim)
        arms = np.arange(n_arms)
        for x in contexts:
            y = np.zeros((n_arms, 4))
            y[:, 0] = [float(model.predict_one(self._inputs(x, arm))) for arm in range(n_arms)]
            moments.add(np.tile(np.array(x, dtype=np.float32), (n_arms, 1)), y, arms, np.ones(n_arms, dtype=bool))
        xx, yx, yy, n = moments.unpack(moments.sums[:, 0])
        gram, products = assemble(self.layout, arms, xx, yx[:, :1], n)
        ridge = np.full(self.layout.size, _RIDGE)
        return solve(gram, products, yy[:, :1].sum(axis=0), float(n.sum()), ridge, 1.0, 1.0).theta

    def to_state(self) -> bytes:
        """The linear learner's state, with the sample in it."""
        _, header, array = state.unpack(super().to_state())
        kept = np.array([[k.arm, k.quality, *k.x] for k in self.sample]).ravel()
        codes = [k.code for k in self.sample]
        held = {key: value for key, value in header.items() if key != "shape"}
        return state.pack({**held, "of": list(array.shape), "codes": codes}, np.concatenate([array.ravel(), kept]))

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        """As of `PolicyLearner`."""
        origin, header, flat = state.unpack(data)
        codes, shape = header.pop("codes", []), header.pop("of", header["shape"])
        header.pop("shape")
        end = int(np.prod(shape))
        learner = super().from_state(spec, state.pack(header, flat.ravel()[:end].reshape(shape)))
        if (learner.epoch, learner.spec.lineage) == (origin.epoch, origin.lineage):
            rows = flat.ravel()[end:].reshape(len(codes), 2 + spec.features.dim)
            learner.sample = [
                Kept(code, int(row[0]), float(row[1]), tuple(row[2:].tolist()))
                for code, row in zip(codes, rows, strict=True)
            ]
        return learner


def maker_of(name: str) -> Callable[[], base.Regressor]:
    """A maker of fresh regressors: the class of ``river`` with this name, seeded where it draws.

    Raises
    ------
    ConfigError
        When River has no such regressor, or it cannot be made without arguments.
    """
    found = _CLASS.match(name)
    try:
        cls = getattr(importlib.import_module(f"river.{found[1]}"), found[2]) if found else None
        if not (isinstance(cls, type) and issubclass(cls, base.Regressor)):
            raise TypeError("no regressor of River is called so")
        seeded: dict[str, Any] = {"seed": 0} if "seed" in inspect.signature(cls).parameters else {}
        make = partial(cls, **seeded)
        make()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"squarecb:{name}: {error}; name a regressor that needs no arguments, such as "
            "squarecb:linear_model.LinearRegression or squarecb:tree.HoeffdingTreeRegressor"
        ) from error
    return make
