"""How a learner of sums becomes a snapshot: how widely to explore as of now, weights solved, what is published."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from steersman.errors import SnapshotError
from steersman.fingerprint import signed
from steersman.layout import Layout
from steersman.snapshot import COVARIANCE, HEADS, SECOND_LOOK, PolicySnapshot, Source, Term

from .declared import Declared
from .exploring import floor_of, scale_of, second_look
from .peers import PeerEncoder
from .posteriors import Beliefs
from .regression import Posterior
from .restoring import Restorable

Float = NDArray[np.float64]


class Publishable(Restorable):
    """The part of a `learners.policy_learner.PolicyLearner` that agents get to see; parameters and attributes as there."""

    KIND: ClassVar[str]
    layout: Layout
    peers: PeerEncoder
    beliefs: Beliefs
    _seen: Layout
    _scales: Float
    _theta: Float | None

    @property
    def kind(self) -> str:
        """Exploration rule: the policy's, or the learner's own."""
        return self.spec.exploration.kind or self.KIND

    def scale(self) -> float:
        """Scale of the exploration as of now; with arms that are new it is as wide as at first again."""
        n = float(self.moments.counts.sum()) if self.kind in ("maillard", "thompson") else self._version
        if self._inheritance.wakes:
            n = min(n, self._version)
        return scale_of(self.kind, len(self.spec.arms), n, self.spec.exploration.scale)

    def floor(self) -> float:
        """Floor of the exploration as of now."""
        return floor_of(self.kind, self._version, self.spec.exploration.floor)

    def posteriors(self) -> tuple[Posterior, Posterior]:
        """Posterior of the quality head, and of cost, latency and failures (three columns, in scales)."""
        return self.beliefs.posteriors(self.moments, self._factors, self._declared())

    def _declared(self) -> Declared | None:
        prior = self.spec.prior
        return Declared.make(prior, self.spec.arms, self._seen, self._scales) if prior else None

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
                if self.kind == "maillard":
                    declared = self._declared()
                    events = declared.events_of_levels(self._seen) if declared else 0.0
                    looks = second_look(self.moments.counts, self.layout.level_of, events)
                    tensors[SECOND_LOOK] = looks.astype(np.float32)
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
        return self.control.charged(self._chosen(made))

    def _chosen(self, made: PolicySnapshot) -> PolicySnapshot:
        """What is published, without the ceilings' prices: the linear model's policy, or what a subclass has that is better."""
        return made
