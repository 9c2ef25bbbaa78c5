"""The router: which arm to use for this request, decided here and now."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman import forks
from steersman.arms import Level
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.decision import Decision
from steersman.errors import ConfigError
from steersman.events import Kind, Mode
from steersman.fallback import constrained, label_of
from steersman.finalize import LoggableContext
from steersman.held import Eligible, Held, PolicySource, UnknownArm
from steersman.ids import new_span_id, new_trace_id
from steersman.scoring import draw
from steersman.sink import merged
from steersman.span import CURRENT
from steersman.throttle import Throttle
from steersman.tracer import Tracer

_MODES = {"LIVE": Mode.LIVE, "FROZEN": Mode.LIVE, "CANARY": Mode.CANARY, "SHADOW": Mode.SHADOW}


class Router:
    """Decides by the policies at hand, in microseconds, and reports each decision as an event.

    Parameters
    ----------
    source : PolicySource
        Usually a started `PolicySubscriber`.
    tracer : Tracer
        Reports the decisions. A decision belongs to the tracer's current span.
    baselines : mapping of str to mapping, optional
        Policy -> arm to use when no snapshot of that policy is at hand.
    seed : int, optional
        Makes the draws repeatable; by default they come from the operating system, and anew in a forked child.
    holdout : float
        Share of the traces, 0 to 1, that always get the baseline, to measure against. It depends on the trace id
        alone, so all agents of a trace agree, and all that are configured with the same share.
    max_age_s : float
        Seconds after which a policy that could not be confirmed as current is no longer followed.
    clock : Clock
        Source of time.

    Raises
    ------
    ConfigError
        If `holdout` is not a share or `max_age_s` not positive. `choose` raises nothing.
    """

    def __init__(
        self,
        source: PolicySource,
        tracer: Tracer,
        *,
        baselines: Mapping[str, Mapping[str, Level]] | None = None,
        seed: int | None = None,
        holdout: float = 0.0,
        max_age_s: float = 86_400.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not 0.0 <= holdout <= 1.0:
            raise ConfigError(f"holdout must be a share between 0 and 1, not {holdout!r}")
        if not max_age_s > 0.0:
            raise ConfigError(f"max_age_s must be a positive number of seconds, not {max_age_s!r}")
        self._source = source
        self._tracer = tracer
        self._baselines = {name: dict(arm) for name, arm in (baselines or {}).items()}
        self._random = random.Random(seed)  # noqa: S311 - exploration, not a secret
        self._seeded = seed is not None
        forks.watch(self)
        self._holdout_below = int(holdout * 2**64)
        self._max_age_s = max_age_s
        self._clock = clock
        self._throttle = Throttle(clock=clock)
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()  # re-entrant: a signal handler may decide, too

    def choose(self, policy: str, context: Mapping[str, object], eligible: Eligible = None) -> Decision:
        """Decide how to handle a request.

        Parameters
        ----------
        policy : str
            Name of the policy, e.g. ``research/retrieval``.
        context : mapping
            What is known about the request; entries that the policy's feature spec does not name are ignored.
        eligible : mapping or collection, optional
            What is allowed this time: levels per knob, or labels of arms; all by default.

        Returns
        -------
        Decision
            Always. When the policy cannot be followed it is the baseline arm (the nearest one that is eligible, where
            it is not), with mode ``FALLBACK`` and a reason: ``no_snapshot``, ``unknown_policy``, ``stale``,
            ``expired``, ``retired``, ``unsupported_stage``, ``unknown_arm``, ``no_eligible_arm`` or ``error:<class>``.
        """
        span = CURRENT.get()
        span_id = new_span_id()
        if span is None:
            trace_id, parent, session = new_trace_id(), None, None
        else:
            trace_id, parent, session = span.trace_id, span.span_id, span.session_id
        record: dict[str, Any] = {
            "kind": Kind.DECISION,
            "trace_id": trace_id,
            "span_id": span_id,
            "parent_span_id": parent,
            "session_id": session,
        }
        held: Held | None = None
        try:
            held = self._source.get(policy)
            reason = self._why_not(policy, held)
            if held is not None and not reason:
                return self._follow(policy, held, context, eligible, record)
        except UnknownArm as error:
            reason = "unknown_arm"
            self._throttle.warn("policy %s has no %s: the baseline is used. Is the policy up to date?", policy, error)
        except Exception as error:  # an agent never fails because of us: say it, count it, use the baseline
            reason = f"error:{type(error).__name__}"
            self._throttle.warn("deciding by policy %.100r failed, the baseline is used: %r", policy, error)
        return self._fall_back(policy, held, context, eligible, record, reason)

    def after_fork_in_child(self) -> None:
        """Draw other numbers than the parent, unless the draws were to be repeatable."""
        self._lock = threading.RLock()
        self._throttle.reset()
        if not self._seeded:
            self._random.seed()

    def at_exit(self, timeout_s: float) -> None:
        """Nothing is left to do."""

    def stats(self) -> dict[str, int]:
        """Decisions so far by mode, and fallbacks by reason (``FALLBACK:<reason>``)."""
        with self._lock:
            return merged(self._counts)

    def _why_not(self, policy: str, held: Held | None) -> str:
        """Why a policy cannot be followed at all, or an empty string."""
        if held is None:
            return "no_snapshot" if policy in self._baselines else "unknown_policy"
        snapshot = held.snapshot
        if snapshot.stage not in _MODES:
            return "retired" if snapshot.stage == "RETIRED" else "unsupported_stage"
        if snapshot.not_after is not None and self._clock.now_us() > snapshot.not_after:
            return "expired"
        age_s = self._source.age_s(policy)
        return "stale" if age_s is None or age_s > self._max_age_s else ""

    def _follow(
        self,
        policy: str,
        held: Held,
        context: Mapping[str, object],
        eligible: Eligible,
        record: dict[str, Any],
    ) -> Decision:
        snapshot = held.snapshot
        mask = None if eligible is None else held.masks.mask(eligible)
        if mask is not None and not mask.any():
            return self._fall_back(policy, held, context, eligible, record, "no_eligible_arm")
        x = snapshot.features.encode(context)
        mode = _MODES[snapshot.stage]
        if self._holdout_below and _hash(record["trace_id"]) < self._holdout_below:
            mode = Mode.HOLDOUT
        if mode is Mode.HOLDOUT or mode is Mode.SHADOW:
            index, propensity, explored = _baseline(held, mask), 1.0, False
        else:
            scores = held.scorer.score(x, mask)
            chances = scores.propensity
            if mode is Mode.CANARY:
                share = snapshot.canary_share
                chances = chances * share
                chances[_baseline(held, mask)] += 1.0 - share
            index = draw(chances, self._random.random())
            propensity = min(float(chances[index]), 1.0)
            explored = index != scores.greedy
        label = snapshot.arms.labels[index]
        record["policy_epoch"] = snapshot.epoch
        record["policy_version"] = snapshot.version
        record["features"] = x
        if mask is not None:
            record["eligible"] = mask.nonzero()[0]
        record["context"] = LoggableContext(snapshot.features, context)
        return self._report(policy, snapshot.arms.arms[index], label, propensity, mode, None, explored, record)

    def _fall_back(
        self,
        policy: str,
        held: Held | None,
        context: Mapping[str, object],
        eligible: Eligible,
        record: dict[str, Any],
        reason: str,
    ) -> Decision:
        arm: Mapping[str, Level] = {}
        label = ""
        try:
            index = None if held is None else _allowed_baseline(held, eligible)
            if held is not None and index is not None:
                arm, label = held.snapshot.arms.arms[index], held.snapshot.arms.labels[index]
            else:
                arm = constrained(self._baselines.get(policy, {}), eligible)
                label = label_of(arm)
            if held is not None:
                record["context"] = LoggableContext(held.snapshot.features, context)
        except Exception as error:  # arguments of no sensible type: then the agent's own defaults have to do
            self._count(f"fallback_error:{type(error).__name__}")
        self._count(f"FALLBACK:{reason}")
        return self._report(policy, arm, label, 1.0, Mode.FALLBACK, reason, False, record)

    def _report(
        self,
        policy: str,
        arm: Mapping[str, Level],
        label: str,
        propensity: float,
        mode: Mode,
        reason: str | None,
        explored: bool,
        record: dict[str, Any],
    ) -> Decision:
        decision_id = f"{record['trace_id']}-{record['span_id']}"
        decision = Decision(
            arm,
            label,
            propensity,
            decision_id,
            policy,
            record.get("policy_epoch"),
            record.get("policy_version"),
            mode,
            reason,
            explored,
        )
        record["decision_id"] = decision_id
        record["policy"] = policy
        record["arm"] = label
        record["propensity"] = propensity
        record["explored"] = explored
        record["mode"] = mode
        record["reason"] = reason
        self._count(mode)
        self._tracer.emit(record)
        return decision

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def _baseline(held: Held, mask: NDArray[np.bool_] | None) -> int:
    """The baseline arm, or the first eligible one where it is not allowed: what a caller forbids is not done."""
    return held.baseline if mask is None or mask[held.baseline] else int(mask.argmax())


def _allowed_baseline(held: Held, eligible: Eligible) -> int | None:
    """The baseline arm of a snapshot under what is eligible, or None when the snapshot has no such arm."""
    mask = held.masks.mask(eligible, strict=False)
    return None if mask is not None and not mask.any() else _baseline(held, mask)


def _hash(trace_id: str) -> int:
    """Number in [0, 2^64) that depends on the trace id alone (trace ids from elsewhere need not be random)."""
    digest = hashlib.blake2b(trace_id.encode(), digest_size=8, person=b"holdout").digest()
    return int.from_bytes(digest, "big")
