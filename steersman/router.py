"""The router: which arm to use for this request, decided here and now."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman import forks
from steersman.arms import Level
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.decision import Decision, decided
from steersman.errors import ConfigError
from steersman.events import Kind, Mode
from steersman.fallback import constrained, label_of
from steersman.finalize import LoggableContext
from steersman.held import Eligible, Held, PolicySource, UnknownArm
from steersman.ids import new_span_id, new_trace_id
from steersman.lanes import in_share
from steersman.scoring import draw
from steersman.sessions import Kept, Sessions
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
        self._sessions = Sessions()
        self._lock = threading.RLock()  # re-entrant: a signal handler may decide, too

    def choose(
        self,
        policy: str,
        context: Mapping[str, object],
        eligible: Eligible = None,
        *,
        own: Mapping[str, Level] | None = None,
    ) -> Decision:
        """Decide how to handle a request.

        Parameters
        ----------
        policy : str
            Name of the policy, e.g. ``research/retrieval``.
        context : mapping
            What is known about the request; entries that the policy's feature spec does not name are ignored.
        eligible : mapping or collection, optional
            What is allowed this time: levels per knob, or labels of arms; all by default.
        own : mapping of str to level, optional
            What the service would do without us. It takes the place of the policy's baseline: wherever the policy does
            not decide (shadow, the rest of a canary, control group, fallback), this is done, and learned from.

        Returns
        -------
        Decision
            Always. When the policy cannot be followed it is the baseline arm (the nearest one that is eligible, where
            it is not), with mode ``FALLBACK`` and a reason: ``no_snapshot``, ``unknown_policy``, ``stale``,
            ``expired``, ``retired``, ``unsupported_stage``, ``unknown_arm``, ``no_eligible_arm`` or ``error:<class>``.
        """
        record = _new_record()
        held: Held | None = None
        try:
            held = self._source.get(policy)
            reason = self._why_not(policy, held)
            if held is not None and not reason:
                return self._follow(policy, held, context, eligible, own, record)
        except UnknownArm as error:
            reason = "unknown_arm"
            self._throttle.warn("policy %s has no %s: the baseline is used. Is the policy up to date?", policy, error)
        except Exception as error:  # an agent never fails because of us: say it, count it, use the baseline
            reason = f"error:{type(error).__name__}"
            self._throttle.warn("deciding by policy %.100r failed, the baseline is used: %r", policy, error)
        return self._fall_back(policy, held, context, eligible, own, record, reason)

    def observe(
        self,
        policy: str,
        context: Mapping[str, object],
        arm: Mapping[str, Level],
        eligible: Eligible = None,
        *,
        propensity: float = 1.0,
    ) -> Decision:
        """Report a decision that the service has made by itself, so that the policy learns from it.

        Parameters
        ----------
        policy, context, eligible
            As for `choose`.
        arm : mapping of str to level
            What was done, knob by knob.
        propensity : float
            Probability with which the service drew it, where it drew at random and knows; 1 says that it did not draw.

        Returns
        -------
        Decision
            With that arm and mode ``SHADOW``, or ``FALLBACK`` when the policy is not at hand: then nothing can be learned
            from it. Give feedback on it as on any other. Raises nothing.
        """
        record = _new_record()
        held: Held | None = None
        reason = "unknown_policy"
        try:
            held = self._source.get(policy)
            reason = self._why_not(policy, held)
            if held is not None and not reason:
                snapshot = held.snapshot
                mask = None if eligible is None else held.masks.mask(eligible)
                _describe(record, held, snapshot.features.encode(context), mask, context)
                p = float(propensity) if 0.0 < propensity <= 1.0 else 1.0
                label = label_of({knob: arm[knob] for knob in snapshot.arms.knobs})
                return self._report(policy, arm, label, p, Mode.SHADOW, None, False, record)
        except Exception as error:  # as in `choose`
            reason = f"error:{type(error).__name__}"
            self._throttle.warn("observing a decision for policy %.100r failed: %r", policy, error)
        return self._fall_back(policy, held, context, eligible, arm, _new_record(), reason)

    def after_fork_in_child(self) -> None:
        """Draw other numbers than the parent, unless the draws were to be repeatable."""
        self._lock = threading.RLock()
        self._sessions.after_fork_in_child()
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
        own: Mapping[str, Level] | None,
        record: dict[str, Any],
    ) -> Decision:
        snapshot = held.snapshot
        mask = None if eligible is None else held.masks.mask(eligible)
        if mask is not None and not mask.any():
            return self._fall_back(policy, held, context, eligible, own, record, "no_eligible_arm")
        x = snapshot.features.encode(context)
        _describe(record, held, x, mask, context)
        mode, share, trace_id = _MODES[snapshot.stage], snapshot.canary_share, record["trace_id"]
        ours = mode is not Mode.SHADOW and (share >= 1.0 or in_share(trace_id, snapshot.policy, share))
        if (self._holdout_below and _hash(trace_id) < self._holdout_below) or (mode is Mode.LIVE and not ours):
            mode, ours = Mode.HOLDOUT, False
        if mode is Mode.HOLDOUT:
            arm, label, _ = _control(held, mask, own)
            return self._report(policy, arm, label, 1.0, mode, None, False, record)
        scores = held.scorer.weigh(x, mask)
        if mode is Mode.SHADOW:
            arm, label, index = _control(held, mask, own)
            return self._report(policy, arm, label, 1.0, mode, None, index != scores.greedy, record)
        cost, session = snapshot.switch_cost, record["session_id"] or trace_id
        sticky = cost is not None and ours and record["parent_span_id"] is not None
        kept = self._sessions.keep(policy, session, trace_id, snapshot.arms, mask, scores, cost) if sticky else None
        if kept is not None:
            arm, label = snapshot.arms.arms[kept], snapshot.arms.labels[kept]
            return self._report(policy, arm, label, 1.0, mode, None, kept != scores.greedy, record)
        arm, label, index = _control(held, mask, own) if mode is Mode.CANARY else ({}, "", None)
        if ours:
            drawn = draw(scores.propensity, self._random.random())
            own_chance = 1.0 if drawn == index else 0.0
            index, arm, label = drawn, snapshot.arms.arms[drawn], snapshot.arms.labels[drawn]
        else:
            own_chance = 1.0
        propensity = 0.0 if index is None else float(scores.propensity[index])
        if mode is Mode.CANARY:
            propensity = share * propensity + (1.0 - share) * own_chance
        if sticky:
            self._sessions.put(policy, session, Kept(label, trace_id))
        return self._report(policy, arm, label, min(propensity, 1.0), mode, None, index != scores.greedy, record)

    def _fall_back(
        self,
        policy: str,
        held: Held | None,
        context: Mapping[str, object],
        eligible: Eligible,
        own: Mapping[str, Level] | None,
        record: dict[str, Any],
        reason: str,
    ) -> Decision:
        arm: Mapping[str, Level] = {}
        label = ""
        for name in ("policy_epoch", "policy_version", "features", "eligible"):
            record.pop(name, None)  # of a policy that could not be followed in the end
        try:
            index = None if held is None else _allowed_baseline(held, eligible)
            if own is not None:
                arm = MappingProxyType(dict(own))
                label = label_of(arm)
            elif held is not None and index is not None:
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
        decision = decided(
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


def _new_record() -> dict[str, Any]:
    """Begin a decision's event, where the running code is."""
    span, span_id = CURRENT.get(), new_span_id()
    if span is None:
        trace_id, parent, session = new_trace_id(), None, None
    else:
        trace_id, parent, session = span.trace_id, span.span_id, span.session_id
    return {
        "kind": Kind.DECISION,
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_span_id": parent,
        "session_id": session,
    }


def _describe(
    record: dict[str, Any],
    held: Held,
    x: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    context: Mapping[str, object],
) -> None:
    """Add what a learner must know about the context."""
    snapshot = held.snapshot
    record["policy_epoch"] = snapshot.epoch
    record["policy_version"] = snapshot.version
    record["features"] = x
    if mask is not None:
        record["eligible"] = mask.nonzero()[0]
    record["context"] = LoggableContext(snapshot.features, context)


def _control(
    held: Held, mask: NDArray[np.bool_] | None, own: Mapping[str, Level] | None
) -> tuple[Mapping[str, Level], str, int | None]:
    """What is done where the policy does not decide: the service's own arm, or else the baseline; its label and its index.

    The index is None for an arm that the policy does not have.
    """
    arms = held.snapshot.arms
    if own is None:
        index = _baseline(held, mask)
        return arms.arms[index], arms.labels[index], index
    label = label_of({knob: own[knob] for knob in arms.knobs})
    return MappingProxyType(dict(own)), label, arms.index(label) if label in arms else None


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
