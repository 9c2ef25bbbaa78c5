"""The learner of one policy: rewards in, snapshots out.

One linear head per component (quality, cost, latency, failures) over the factored phi(x, arm) of `steersman.layout`,
each a Bayesian regression with block priors: what arms share is hardly shrunk, an arm's own constant is worth 10 events,
and effects of the context on single levels are shrunk the harder the less they usually carry (categories, then
numbers, then texts and embeddings). So it behaves like a mean per arm until the data say otherwise. Cost, latency
and failures are nearly free of noise and get weak priors: they are believed quickly and explored by nobody.

All that is kept are sums (`learners.moments`): learning is exact, order-free and mergeable; weights are solved when a
snapshot is made.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from river import metrics, stats

from steersman.errors import SnapshotError
from steersman.fingerprint import hash64, signed, unsigned
from steersman.layout import Layout, make_layout
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot, Source, Term

from . import state
from .admission import UNHEARD, unfit
from .control import Control
from .drift import Alarm
from .exploring import floor_of, scale_of
from .influence import Leaning
from .moments import Moments
from .packing import moments_of, numbers_of, pack_learner
from .peers import PRECISION as PEER_PRECISION
from .peers import PeerEncoder
from .pending import MOST, Pending, Rows
from .posteriors import posteriors
from .prediction import predict
from .priors import COMPONENT_PRIOR, QUALITY_PRIOR, WORTH, Prior, precision
from .protocol import LearnReport, Place
from .regression import Posterior
from .revision import MAX_REVISIONS
from .spec import PolicySpec, digest
from .succession import repriced, take_over

Float = NDArray[np.float64]


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
    since : int
        First epoch whose decisions are learned from: the learner's own, or that from which the log is learned again.
    applied_hash : int
        Sum modulo 2^64 of `steersman.fingerprint.hash64` of the decision ids applied.
    moments : learners.moments.Moments
        Sums of all rewards applied.
    errors : dict of str to river.metrics.MAE
        Progressive validation: each head's mean absolute error on rewards before learning from them, under the
        weights last solved, since the process started. Cost and latency in scales.
    utility : river.stats.Mean
        Mean utility of the rewards applied, since the process started.
    """

    KIND: ClassVar[str] = "maillard"
    """Exploration rule where the policy names none."""

    QUALITY: ClassVar[Prior] = QUALITY_PRIOR
    """What is believed of the quality head before any reward."""

    WORTH: ClassVar[float] = WORTH
    """See `learners.priors.worth`; 0 for nothing."""

    TAKES_PEERS: ClassVar[bool] = True
    """Whether it knows the credit rule ``difference``."""

    TAKES_TOOL_CALLS: ClassVar[bool] = True
    """Whether it keeps ceilings on tool calls."""

    TAKES_SHARDS: ClassVar[bool] = True
    """Whether what several have learned adds up."""

    DEFERS: ClassVar[bool] = True
    """Whether rewards wait, up to `learners.pending.MOST` of them, until their sums are asked for."""

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, Place] | None = None) -> None:
        self.spec = spec
        self.epoch = epoch
        self.began: dict[int, Place] = dict(began or {})
        self.layout: Layout = make_layout(spec.arms, spec.features)
        self.peers = PeerEncoder(spec.peers)
        hidden = self.peers.width
        # What the heads see: the levels of the peers, which go with no arm and into no snapshot, then x.
        self._seen = replace(self.layout, dim=hidden + self.layout.dim, columns=hidden + self.layout.columns)
        self._moments = Moments(len(spec.arms), self._seen.dim)
        self._pending = Pending()
        self.control = Control(spec, self.layout)
        self.inherited: Float = np.zeros(0)  # sums (K, 2, W) that the epoch began with, if any
        self.applied_hash = 0
        self.sources: dict[int, Place] = dict(self.began)
        self.since = epoch
        self._errors = {head: metrics.MAE() for head in HEADS}  # type: ignore[no-untyped-call]
        self._utility = stats.Mean()
        self._version = 0
        self._units = spec.reward.scales.cost_micro_usd, spec.reward.scales.latency_us
        self._scales = np.array([1.0, *self._units, 1.0])
        self._factors = _factors(spec)
        kinds = spec.features.kinds
        of_peers = np.full(hidden, PEER_PRECISION)
        self._precisions = (
            np.concatenate([of_peers, precision(self.layout, kinds, self.QUALITY)]),
            np.concatenate([of_peers, precision(self.layout, kinds, COMPONENT_PRIOR)]),
        )
        self._theta: Float | None = None
        self._wakes = False

    @property
    def version(self) -> int:
        """Rewards applied in this epoch."""
        return self._version

    @property
    def ready(self) -> bool:
        """Whether a snapshot can be made at once: always."""
        return True

    @property
    def moments(self) -> Moments:
        """Sums of all rewards applied."""
        self._fold()
        return self._moments

    @moments.setter
    def moments(self, moments: Moments) -> None:
        self._pending.rows.clear()
        self._moments = moments

    @property
    def errors(self) -> dict[str, metrics.MAE]:
        """Mean absolute error of each head."""
        self._fold()
        return self._errors

    @property
    def utility(self) -> stats.Mean:
        """Mean utility of the rewards applied."""
        self._fold()
        return self._utility

    def learn_one(self, reward: Mapping[str, Any]) -> LearnReport:
        """Apply one reward record; the same as a batch of one."""
        return self.learn_many([reward])

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Apply reward records in the order of their log. Never raises for what a record holds.

        A batch leaves the very same state as its rewards one by one. A reward is applied at most once: provenance
        (source_offset, seq) must be above the highest seen of its source_partition (a source_partition below 0 is no provenance).
        """
        skipped: Counter[str] = Counter()
        unbelieved: Counter[str] = Counter()
        unheard: set[int] = set()
        leaning: list[tuple[int, Leaning]] = []
        outcomes: list[str] = []
        duplicates = without_quality = 0
        alarms: list[tuple[int, Alarm]] = []
        clipped = applied = 0
        control, waiting = self.control, self._pending.rows
        limit, cost_scale, latency_scale = self.spec.reward.clip, *self._units
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
            while (due := control.due(self._version)) is not None:
                self._revise(due)
            applied += 1
            self._version += 1
            arm = self.spec.arms.index(reward["arm"])
            taken = control.take(reward, arm, self._version)
            quality = taken.quality
            if taken.doubt:
                unbelieved[taken.doubt] += 1
                if taken.doubt in UNHEARD:
                    unheard.add(len(outcomes) - 1)
            if control.leaning:
                leaning += [(self._version, one) for one in control.take_leaning()]
            self._keep(reward, arm, quality)
            cost, latency = reward["cost_micro_usd"] / cost_scale, reward["latency_us"] / latency_scale
            failures = reward["failures"]
            if not (-limit <= cost <= limit and -limit <= latency <= limit and -limit <= failures <= limit):
                clipped += 1
                cost, latency, failures = (min(max(one, -limit), limit) for one in (cost, latency, failures))
            rated = quality is not None
            without_quality += not rated
            y = quality or 0.0, cost, latency, failures
            waiting.append((self.peers.widen(reward), y, arm, rated, taken.weight))
            if len(waiting) >= MOST and self.DEFERS:
                self._fold()
            self.applied_hash = unsigned(self.applied_hash + hash64(reward["decision_id"]))
            if taken.forget != 1.0:
                self._fold()
                self._forget(np.full(len(self.spec.arms), taken.forget))
            if taken.alarm is not None:
                self._fold()
                alarms.append((self._version, taken.alarm))
                self._forget_for(taken.alarm)
        if not self.DEFERS:
            self._fold()
        return LearnReport(
            applied, duplicates, skipped, without_quality, clipped, outcomes, alarms, unbelieved, unheard, leaning
        )

    def _unfit(self, reward: Mapping[str, Any]) -> str:
        """Why a reward cannot be learned from; empty when it can."""
        return unfit(self.spec, reward, self.since)

    def _keep(self, reward: Mapping[str, Any], arm: int, quality: float | None) -> None:
        """Take note of a reward that is being applied, and of the quality in it that is believed; for subclasses."""

    def _fold(self) -> None:
        """Put the rewards that wait into the sums."""
        if self._pending.rows:
            self._apply(self._pending.take())

    def _apply(self, rows: Rows) -> None:
        """Learn from rewards."""
        self._validate(rows)
        weights = None if (rows.weights == 1.0).all() else rows.weights
        self._moments.add(rows.x, rows.y, rows.arms, rows.rated, weights)

    def _forget(self, factors: Float) -> None:
        """Let what is known of each arm, (K,), count less."""
        self.moments.shorten(factors)

    def _forget_for(self, alarm: Alarm) -> None:
        """Let what is known count less because the world has changed."""
        self.moments.shorten(self.control.shortened(self.moments.counts, alarm))

    def _validate(self, rows: Rows) -> None:
        x, y, arms, rated, _ = rows
        if self._theta is not None:
            guess = predict(self._seen, self._theta, x, arms)
            for h, head in enumerate(HEADS):
                known = rated if head == "quality" else slice(None)
                off = np.abs(y[known, h] - guess[known, h])
                if len(off):
                    self._errors[head].update(float(off.mean()), 0.0, w=len(off))
        gained = (y @ self._factors)[rated]
        if len(gained):
            self._utility.update(float(gained.mean()), w=len(gained))

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

    @property
    def kind(self) -> str:
        """Exploration rule: the policy's, or the learner's own."""
        return self.spec.exploration.kind or self.KIND

    @property
    def revision(self) -> int:
        """How often the settings have changed in this epoch."""
        return self.control.revision

    @property
    def inherited_hash(self) -> str:
        """Hash of what the epoch rests on beside its rewards since it began, 16 hex digits; empty when that is nothing."""
        if len(self.inherited):
            return hashlib.sha256(self.inherited.tobytes()).hexdigest()[:16]
        return "" if self.since == self.epoch else digest(["since", self.since])

    def scale(self) -> float:
        """Scale of the exploration as of now."""
        n = float(self.moments.counts.sum()) if self.kind in ("maillard", "thompson") else self._version
        return scale_of(self.kind, len(self.spec.arms), n, self.spec.exploration.scale)

    def floor(self) -> float:
        """Floor of the exploration as of now."""
        return floor_of(self.kind, self._version, self.spec.exploration.floor)

    def revise(self, spec: PolicySpec) -> bool:
        """Go on under the settings of a spec of the same lineage; returns whether they are others than before."""
        before = self.spec
        if not self.control.revise(spec, self._version):
            self.spec = spec
            return False
        self._take_settings(before, spec)
        return True

    def _revise(self, spec: PolicySpec) -> None:
        before = self.spec
        self.control.revise(spec, self._version)
        self._take_settings(before, spec)

    def _take_settings(self, before: PolicySpec, spec: PolicySpec) -> None:
        self._fold()  # under the settings that these rewards came under
        self.spec = spec
        self._factors = _factors(spec)
        if before.prices != spec.prices:
            self._reprice(repriced(spec.arms, before.prices, spec.prices))

    def _reprice(self, factors: Float) -> None:
        """Let what was seen of costs be as if each arm, (K,), had cost so many times as much."""
        self.moments.reprice(factors)

    def heed(self, data: bytes, revision: int | None = None) -> None:
        """Begin as the learner of a state had begun, and change the settings where it did: for a replay.

        Parameters
        ----------
        data : bytes
            The state; what it has learned from rewards is not looked at.
        revision : int, optional
            The last revision to be repeated; all by default.
        """
        self.repeat_settings(data, revision)

    def repeat_settings(self, data: bytes, revision: int | None = None) -> None:
        """As `heed`, for a replay that is to come to something else: what else was on record about rewards is left out."""
        _, header, numbers = state.unpack(data)
        if "control" not in header:
            return
        self.since = header.get("since", self.epoch)
        revisions = header["control"]["revisions"]
        self.control.replay(revisions if revision is None else revisions[: revision + 1])
        self.spec = self.control.spec
        self._factors = _factors(self.spec)
        if header["inherited"]:
            began = numbers_of(header, numbers, self.moments.width).inherited
            self._inherit(began.reshape(self.moments.sums.shape), header["wakes"])

    def settle(self) -> None:
        """Make the changes of settings that are due now: for a replay that has come to its end."""
        while (due := self.control.due(self._version)) is not None:
            self._revise(due)

    def _inherit(self, sums: Float, wakes: bool) -> None:
        self.inherited = sums.copy()
        self.moments.sums[:] = sums
        self._wakes = wakes
        if wakes:
            self.control.welcome()
            self._meet()

    def _meet(self) -> None:
        self.control.meet(self.inherited[:, :, -1].sum(axis=1))

    def posteriors(self) -> tuple[Posterior, Posterior]:
        """Posterior of the quality head, and of cost, latency and failures (three columns, in scales)."""
        return posteriors(self.moments, self._seen, self.spec.arms, self._precisions, self._factors, self.WORTH)

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
        spec, d, hidden = self.spec, self.layout.dim, self.peers.width
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                quality, others = self.posteriors()
                theta = np.concatenate([quality.theta, others.theta], axis=1)
                cov = quality.covariance(hidden + d) * quality.noise[0]
                tensors = {
                    f"weights.{head}": (theta[hidden:, h] * self._scales[h]).astype(np.float32)
                    for h, head in enumerate(HEADS)
                }
                tensors[COVARIANCE] = cov[np.tril_indices(len(cov))].astype(np.float32)
                tensors |= self.control.tensors()
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
            exploration=self.kind,
            exploration_scale=self.scale() * self.control.width,
            floor=max(self.floor(), self.control.floor),
            switch_cost=spec.switch_cost,
            applied_n=self._version,
            applied_hash=signed(self.applied_hash),
            applied_sources=tuple(Source(p, *self.sources[p]) for p in sorted(self.sources)),
            revision=self.control.revision,
            inherited=self.inherited_hash,
            tenant_feature=self.control.tenant_feature,
        )
        self._theta = theta
        made = self._chosen(made)
        multipliers = self.control.multipliers(made)
        return replace(made, multipliers=multipliers) if multipliers else made

    def _chosen(self, made: PolicySnapshot) -> PolicySnapshot:
        """What is published, without the ceilings' prices: the linear model's policy, or what a subclass has that is better."""
        return made

    def to_state(self) -> bytes:
        """All that is needed to go on after a restart, to the bit: sums, counters, provenance. See `learners.state`."""
        return pack_learner(self, self._wakes)

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        """Go on from a state, under the settings of the spec.

        When arms, features or reward components have changed since, the sums mean something else: the learner starts
        afresh in the next epoch, which begins where the state's provenance vector ends, so that no reward of the old
        epoch comes in twice. Of a change of arms alone it takes over what still holds (`learners.succession`).

        Raises
        ------
        learners.state.StateError
            When the bytes are damaged, of an unknown version, or another policy's.
        """
        origin, header, numbers = state.unpack(data)
        if origin.key != spec.key:
            raise state.StateError(f"the state is of policy {origin.key}, not of {spec.key}")
        revisions = header["control"]["revisions"] if "control" in header else []
        if origin.lineage != spec.lineage or len(revisions) > MAX_REVISIONS:
            learner = cls(spec, origin.epoch + 1, origin.sources)
            if spec.shards == 1 and header.get("columns") == spec.columns:
                learner._succeed(header, numbers)
            return learner
        learner = cls(spec, origin.epoch, origin.began)
        learner.sources = dict(origin.sources)
        learner.since = header.get("since", origin.epoch)
        held = numbers_of(header, numbers, learner.moments.width)
        learner.moments.sums.reshape(-1, learner.moments.width)[header["rows"]] = held.sums
        if "control" in header:
            if header["inherited"]:
                learner.inherited = held.inherited.reshape(learner.moments.sums.shape).copy()
                learner._wakes = header["wakes"]
                if learner._wakes:
                    learner._meet()
            learner.control.load(header["control"], held.pacing)
            learner.spec = learner.control.spec
            learner._factors = _factors(learner.spec)
        learner._version = origin.version
        learner.applied_hash = header["applied_hash"]
        learner._resume(data)
        learner.revise(spec)
        return learner

    def _resume(self, data: bytes) -> None:
        """Take up what a subclass has put into the state, under the settings of that time."""

    def _succeed(self, header: Mapping[str, Any], numbers: Float) -> None:
        """Begin an epoch with what holds of the one before."""
        arms, old = moments_of(header, numbers, self.moments.dim)
        before = header["control"]["revisions"][-1][1]["prices"]
        fresh = take_over(self.spec.arms, self.moments, arms, old.sums, before, self.spec.prices)
        if self.moments.sums.any():
            self._inherit(self.moments.sums, bool(fresh))


def _factors(spec: PolicySpec) -> Float:
    weights = spec.reward.weights
    return np.array([weights.quality, -weights.cost, -weights.latency, -weights.failures])
