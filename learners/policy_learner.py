"""The learner of one policy: rewards in, snapshots out.

One linear head per component (quality, cost, latency, failures) over the factored phi(x, arm) of `steersman.layout`,
each a Bayesian regression with block priors: what arms share is hardly shrunk, an arm's own constant is worth 10 events,
and effects of the context on single levels are shrunk the harder the less they usually carry (categories, then
numbers, then texts and embeddings). So it behaves like a mean per arm until the data say otherwise. Cost, latency
and failures are nearly free of noise and get weak priors: they are believed quickly and explored by nobody.

All that is kept are sums (`learners.moments`): learning is exact, order-free and mergeable; weights are solved when a
snapshot is made (`learners.publishing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from steersman.fingerprint import hash64, unsigned
from steersman.layout import Layout, make_layout
from steersman.snapshot import HEADS

from .admission import UNHEARD, unfit
from .control import Control
from .drift import Alarm
from .influence import Leaning
from .moments import Moments
from .odds import Odds
from .peers import PeerEncoder
from .pending import MOST, Pending, Rows
from .posteriors import Beliefs
from .prediction import predict
from .priors import COMPONENT_PRIOR, QUALITY_PRIOR, WORTH, Prior, precision
from .protocol import LearnReport, Place
from .publishing import Publishable
from .spec import PolicySpec
from .succession import repriced

if TYPE_CHECKING:
    from river import metrics, stats

Float = NDArray[np.float64]


class PolicyLearner(Publishable):
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
    beliefs : learners.posteriors.Beliefs
        What is believed before any reward.
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

    ODDS: ClassVar[bool] = True
    """Whether effects of contexts on quality are believed by their size in log-odds: see `learners.odds`."""

    TAKES_PEERS: ClassVar[bool] = True
    """Whether it knows the credit rule ``difference``."""

    TAKES_TOOL_CALLS: ClassVar[bool] = True
    """Whether it keeps ceilings on tool calls."""

    TAKES_PRIOR: ClassVar[bool] = True
    """Whether it starts from what ``[policy.prior]`` declares."""

    TAKES_SHARDS: ClassVar[bool] = True
    """Whether what several have learned adds up."""

    DEFERS: ClassVar[bool] = True
    """Whether rewards wait, up to `learners.pending.MOST` of them, until their sums are asked for."""

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, Place] | None = None) -> None:
        super().__init__(spec, epoch, began)
        self.layout: Layout = make_layout(spec.arms, spec.features)
        self.peers = PeerEncoder(spec.peers, spec.features, len(spec.arms))
        hidden = self.peers.width
        # What the heads see: what the peers' levels do, which goes with no arm and into no snapshot, then x.
        self._seen = replace(self.layout, dim=hidden + self.layout.dim, columns=hidden + self.layout.columns)
        self._moments = Moments(len(spec.arms), self._seen.dim)
        self._pending = Pending()
        self.control = Control(spec, self.layout)
        from river import metrics, stats  # metrics bring scipy.stats along

        self._errors = {head: metrics.MAE() for head in HEADS}  # type: ignore[no-untyped-call]
        self._utility = stats.Mean()
        self._units = spec.reward.scales.cost_micro_usd, spec.reward.scales.latency_us
        self._scales = np.array([1.0, *self._units, 1.0])
        kinds = spec.features.kinds
        of_peers = self.peers.precision
        # What a whole trace costs is what all of its decisions made it cost: no longer nearly free of noise.
        parts = self.QUALITY if hidden and spec.reward.credit == "trace" else COMPONENT_PRIOR
        precisions = (
            np.concatenate([of_peers(self.QUALITY), precision(self.layout, kinds, self.QUALITY)]),
            np.concatenate([of_peers(parts), precision(self.layout, kinds, parts)]),
        )
        odds = Odds.make(self._seen, spec.features) if self.ODDS else None
        self.beliefs = Beliefs(self._seen, spec.arms, precisions, self.WORTH, odds)
        self._theta: Float | None = None

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
    def revision(self) -> int:
        """How often the settings have changed in this epoch."""
        return self.control.revision

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
        self._stand_under(spec)
        if before.prices != spec.prices:
            self._reprice(repriced(spec.arms, before.prices, spec.prices))

    def _reprice(self, factors: Float) -> None:
        """Let what was seen of costs be as if each arm, (K,), had cost so many times as much."""
        self.moments.reprice(factors)

    def settle(self) -> None:
        """Make the changes of settings that are due now: for a replay that has come to its end."""
        while (due := self.control.due(self._version)) is not None:
            self._revise(due)
