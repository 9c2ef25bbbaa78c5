"""The learner of one policy: rewards in, snapshots out.

One linear head per component (quality, cost, latency, failures) over the factored phi(x, arm) of `steersman.layout`,
each a Bayesian regression with block priors: what arms share is hardly shrunk, an arm's own constant is worth 20 events,
and effects of the context on single levels are shrunk the harder the less they usually carry (categories, then
numbers, then texts and embeddings). So it behaves like a mean per arm until the data say otherwise. Cost, latency
and failures are nearly free of noise and get weak priors: they are believed quickly and explored by nobody.

All that is kept are sums (`learners.moments`): learning is exact, order-free and mergeable; weights are solved when a
snapshot is made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from river import metrics, stats

from steersman.errors import SnapshotError
from steersman.fingerprint import hash64, signed, unsigned
from steersman.layout import Layout, make_layout
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot, Source, Term

from . import state
from .gram import assemble
from .moments import Moments
from .priors import COMPONENT_PRIOR, NOISE, NOISE_N, QUALITY_PRIOR, exploration_scale, precision
from .regression import Posterior, solve
from .spec import PolicySpec

Float = NDArray[np.float64]

MAX_QUALITY = 1e6
"""A quality beyond this is taken for garbage."""

Place = tuple[int, int]
"""Provenance of a reward within its source partition: (source_offset, seq)."""


@dataclass(frozen=True)
class LearnReport:
    """What became of a batch of rewards.

    Attributes
    ----------
    applied : int
        Rewards learned from.
    duplicates : int
        Rewards dropped because their provenance was not above the highest seen.
    skipped : Counter of str
        Rewards not learned from, by reason: ``fallback``, ``no_features``, ``other_policy``, ``other_reward_spec``,
        ``other_epoch``, ``unknown_arm``, ``wrong_dims``, ``bad_features``, ``not_finite``.
    without_quality : int
        Of those applied, how many taught cost, latency and failures only.
    clipped : int
        Of those applied, how many had a cost or latency beyond the spec's clip.
    outcomes : sequence of str
        For each reward, in order: ``applied``, ``duplicate`` or ``skipped:<reason>``.
    """

    applied: int = 0
    duplicates: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    without_quality: int = 0
    clipped: int = 0
    outcomes: Sequence[str] = ()


class PolicyLearner:
    """Learns one policy.

    Parameters
    ----------
    spec : PolicySpec
    epoch : int
        Lineage; a learner whose arms, features or reward components change goes on in the next epoch.
    began : mapping of int to (int, int), optional
        Source partition -> provenance of the last reward read before the epoch began; none for the first epoch.
        Rewards up to there are no business of this epoch's.

    Attributes
    ----------
    sources : dict of int to (int, int)
        Source partition -> provenance of the last reward read: the provenance vector.
    applied_hash : int
        Sum modulo 2^64 of `steersman.fingerprint.hash64` of the decision ids applied.
    errors : dict of str to river.metrics.MAE
        Progressive validation: each head's mean absolute error on rewards before learning from them, under the
        weights last solved, since the process started. Cost and latency in scales.
    utility : river.stats.Mean
        Mean utility of the rewards applied, since the process started.
    """

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, Place] | None = None) -> None:
        self.spec = spec
        self.epoch = epoch
        self.began: dict[int, Place] = dict(began or {})
        self.layout: Layout = make_layout(spec.arms, spec.features)
        self.moments = Moments(len(spec.arms), spec.features.dim)
        self.applied_hash = 0
        self.sources: dict[int, Place] = dict(self.began)
        self.errors = {head: metrics.MAE() for head in HEADS}  # type: ignore[no-untyped-call]
        self.utility = stats.Mean()
        self._version = 0
        self._scales = np.array([1.0, spec.reward.scales.cost_micro_usd, spec.reward.scales.latency_us, 1.0])
        weights = spec.reward.weights
        self._factors = np.array([weights.quality, -weights.cost, -weights.latency, -weights.failures])
        kinds = spec.features.kinds
        self._precisions = (
            precision(self.layout, kinds, QUALITY_PRIOR),
            precision(self.layout, kinds, COMPONENT_PRIOR),
        )
        self._theta: Float | None = None

    @property
    def version(self) -> int:
        """Rewards applied in this epoch."""
        return self._version

    def learn_one(self, reward: Mapping[str, Any]) -> LearnReport:
        """Apply one reward record; the same as a batch of one."""
        return self.learn_many([reward])

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Apply reward records in the order of their log. Never raises for what a record holds.

        A batch leaves the very same state as its rewards one by one. A reward is applied at most once: provenance
        (source_offset, seq) must be above the highest seen of its source_partition (a source_partition below 0 is no provenance).
        """
        skipped: Counter[str] = Counter()
        outcomes: list[str] = []
        duplicates = without_quality = 0
        arms: list[int] = []
        xs: list[Any] = []
        ys: list[tuple[float, float, float, float]] = []
        rated: list[bool] = []
        for reward in rewards:
            partition = reward["source_partition"]
            if partition >= 0:
                place = (reward["source_offset"], reward["seq"])
                if place <= self.sources.get(partition, (-1, -1)):
                    duplicates += 1
                    outcomes.append("duplicate")
                    continue
                self.sources[partition] = place
            reason = self._unfit(reward)
            if reason:
                skipped[reason] += 1
                outcomes.append(f"skipped:{reason}")
                continue
            outcomes.append("applied")
            quality = reward["quality"]
            arms.append(self.spec.arms.index(reward["arm"]))
            xs.append(reward["features"])
            ys.append((quality or 0.0, reward["cost_micro_usd"], reward["latency_us"], reward["failures"]))
            rated.append(quality is not None)
            without_quality += quality is None
            self.applied_hash = unsigned(self.applied_hash + hash64(reward["decision_id"]))
        clipped = 0
        if arms:
            clipped = self._apply(
                np.array(xs, dtype=np.float32), np.array(ys) / self._scales, np.array(arms), np.array(rated)
            )
        return LearnReport(len(arms), duplicates, skipped, without_quality, clipped, outcomes)

    def _unfit(self, reward: Mapping[str, Any]) -> str:
        """Why a reward cannot be learned from; empty when it can."""
        spec = self.spec
        features = reward["features"]
        if reward["tenant"] != spec.tenant or reward["policy"] != spec.name:
            return "other_policy"
        if reward["reward_spec"] != spec.reward_hash:
            return "other_reward_spec"
        if not len(features):
            return "fallback" if reward["mode"] == "FALLBACK" else "no_features"
        decided_in = reward["policy_epoch"]
        if decided_in is not None and decided_in < self.epoch:
            return "other_epoch"
        if reward["arm"] not in spec.arms:
            return "unknown_arm"
        if len(features) != self.layout.dim:
            return "wrong_dims"
        # min and max may pass over a NaN, a sum does not
        if features[-1] != 1.0 or not (min(features) >= -1e3 and max(features) <= 1e3) or math.isnan(sum(features)):
            return "bad_features"
        quality = reward["quality"]
        if quality is not None and not abs(quality) <= MAX_QUALITY:
            return "not_finite"
        finite = math.isfinite
        if finite(reward["cost_micro_usd"]) and finite(reward["latency_us"]) and finite(reward["failures"]):
            return ""
        return "not_finite"

    def _apply(self, x: NDArray[np.float32], y: Float, arms: NDArray[np.int64], rated: NDArray[np.bool_]) -> int:
        limit, priced = self.spec.reward.clip, y[:, 1:]
        beyond = np.abs(priced) > limit
        clipped = 0
        if beyond.any():
            clipped = int(np.count_nonzero(beyond.any(axis=1)))
            np.clip(priced, -limit, limit, out=priced)
        self._validate(x, y, arms, rated)
        self.moments.add(x, y, arms, rated)
        self._version += len(arms)
        return clipped

    def _validate(self, x: NDArray[np.float32], y: Float, arms: NDArray[np.int64], rated: NDArray[np.bool_]) -> None:
        if self._theta is not None:
            layout, d = self.layout, self.layout.dim
            levels = self._theta[d : d + layout.n_levels * len(layout.columns)].reshape(layout.n_levels, -1)
            blocks = levels.reshape(layout.n_levels, len(layout.columns), len(HEADS))
            own = np.tensordot(layout.level_of[arms], blocks, axes=1)
            guess = x @ self._theta[:d] + np.einsum("nm,nmh->nh", x[:, layout.columns], own)
            guess += layout.pair_of[arms] @ self._theta[d + layout.n_levels * len(layout.columns) :]
            for h, head in enumerate(HEADS):
                known = rated if head == "quality" else slice(None)
                off = np.abs(y[known, h] - guess[known, h])
                if len(off):
                    self.errors[head].update(float(off.mean()), 0.0, w=len(off))
        gained = (y @ self._factors)[rated]
        if len(gained):
            self.utility.update(float(gained.mean()), w=len(gained))

    def merge(self, shard: PolicyLearner) -> None:
        """Add what a learner of the same policy has learned from other source partitions.

        Raises
        ------
        ValueError
            When the shard's lineage or epoch is another, or both have read the same source partition.
        """
        if (shard.spec.key, shard.spec.lineage, shard.epoch) != (self.spec.key, self.spec.lineage, self.epoch):
            raise ValueError("a shard of another policy, lineage or epoch cannot be added")
        if set(shard.sources) & set(self.sources):
            raise ValueError("both shards have read the same source partitions: rewards would count twice")
        self.moments.merge(shard.moments)
        self.sources.update(shard.sources)
        self.began.update(shard.began)
        self.applied_hash = unsigned(self.applied_hash + shard.applied_hash)
        self._version += shard._version

    def posteriors(self) -> tuple[Posterior, Posterior]:
        """Posterior of the quality head, and of cost, latency and failures (three columns, in scales)."""
        with_quality = self.moments.sums[:, 0]
        quality = self._solve(with_quality, slice(0, 1), self._precisions[0])
        others = self._solve(with_quality + self.moments.sums[:, 1], slice(1, 4), self._precisions[1])
        return quality, others

    def _solve(self, sums: Float, heads: slice, precisions: Float) -> Posterior:
        """Put the arms' sums together into the sums over phi(x, arm), and solve."""
        seen = np.flatnonzero(sums[:, -1])
        xx, yx, yy, n = self.moments.unpack(sums[seen])
        gram, products = assemble(self.layout, seen, xx, yx[:, heads], n)
        return solve(gram, products, yy[:, heads].sum(axis=0), float(n.sum()), precisions, NOISE, NOISE_N)

    def snapshot(self, now_us: int) -> PolicySnapshot:
        """Solve the weights and make the policy as of now.

        Parameters
        ----------
        now_us : int
            Becomes `created_at`; microseconds since 1970-01-01 UTC.

        Raises
        ------
        SnapshotError
            When the weights are not finite: then nothing must be published.
        """
        spec, d = self.spec, self.layout.dim
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                quality, others = self.posteriors()
                theta = np.concatenate([quality.theta, others.theta], axis=1)
                cov = quality.covariance(d) * quality.noise[0]
                tensors = {
                    f"weights.{head}": (theta[:, h] * self._scales[h]).astype(np.float32)
                    for h, head in enumerate(HEADS)
                }
                tensors[COVARIANCE] = cov[np.tril_indices(len(cov))].astype(np.float32)
        except FloatingPointError as e:
            raise SnapshotError(f"policy {spec.key} v{self._version}: {e}; nothing to publish") from e
        made = PolicySnapshot(
            tenant=spec.tenant,
            policy=spec.name,
            epoch=self.epoch,
            version=self._version,
            arms=spec.arms,
            features=spec.features,
            baseline=spec.baseline,
            tensors=tensors,
            objective=tuple(
                Term(head, float(weight), float(scale))
                for head, weight, scale in zip(HEADS, self._factors, self._scales, strict=True)
            ),
            reward_spec=spec.reward_hash,
            created_at=now_us,
            learner=spec.learned_by,
            exploration=spec.exploration.kind,
            exploration_scale=exploration_scale(len(spec.arms), spec.exploration.scale),
            floor=spec.exploration.floor,
            switch_cost=spec.switch_cost,
            applied_n=self._version,
            applied_hash=signed(self.applied_hash),
            applied_sources=tuple(Source(p, *self.sources[p]) for p in sorted(self.sources)),
        )
        self._theta = theta
        return made

    def to_state(self) -> bytes:
        """All that is needed to go on after a restart, to the bit: sums, counters, provenance. See `learners.state`."""
        rows = self.moments.occupied()
        header = {
            "key": self.spec.key,
            "lineage": self.spec.lineage,
            "epoch": self.epoch,
            "version": self._version,
            "applied_hash": self.applied_hash,
            "began": state.vector_to_json(self.began),
            "sources": state.vector_to_json(self.sources),
            "rows": rows,
        }
        return state.pack(header, self.moments.sums.reshape(-1, self.moments.width)[rows])

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        """Go on from a state.

        When arms, features or reward components have changed since, the sums mean something else: the learner starts
        afresh in the next epoch, which begins where the state's provenance vector ends, so that no reward of the old
        epoch comes in twice.

        Raises
        ------
        learners.state.StateError
            When the bytes are damaged, of an unknown version, or another policy's.
        """
        origin, header, sums = state.unpack(data)
        if origin.key != spec.key:
            raise state.StateError(f"the state is of policy {origin.key}, not of {spec.key}")
        if origin.lineage != spec.lineage:
            return cls(spec, origin.epoch + 1, origin.sources)
        learner = cls(spec, origin.epoch, origin.began)
        learner.sources = dict(origin.sources)
        flat = learner.moments.sums.reshape(-1, learner.moments.width)
        if sums.shape != (len(header["rows"]), flat.shape[1]):
            raise state.StateError(f"the state holds sums of shape {sums.shape}, which the spec does not make")
        flat[header["rows"]] = sums
        learner._version = origin.version
        learner.applied_hash = header["applied_hash"]
        return learner
