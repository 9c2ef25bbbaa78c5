"""What a learner keeps beside its sums: settings and their revisions, ceilings' accounts, drift, whom it believes.

One step per reward applied, in the order of the log, in plain floats: the same log gives the same bits however it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steersman.layout import Layout
from steersman.snapshot import HEADS, TOOL_WEIGHTS, PolicySnapshot

from .admission import unheard
from .drift import COMPONENTS, FRESH, KNOWN, LIFTED, WAKE, WIDER, Alarm, DriftWatch, keeping, targets_of
from .influence import Clip, Leaning, SourceShares, leverage_weight
from .revision import settings_of, with_settings
from .spec import PolicySpec
from .succession import NEIGHBOURS
from .tenant_pacing import TenantPacer

Float = NDArray[np.float64]

FORGET_EVERY = 50
"""Rewards after which forgetting makes a step."""

BEFORE_CROWD = 0.1
"""What counts of all that was learned before there was a crowd to hold anybody back, once there is one."""


class Taken(NamedTuple):
    """What a reward is taken for.

    Attributes
    ----------
    quality : float or None
        Its quality; None when it has none or none that can be believed.
    weight : float
        What it counts.
    alarm : Alarm or None
        What changed, by the detectors.
    forget : float
        What everything known, this reward included, counts from now on; 1 mostly.
    doubt : str
        Why its quality is not believed, as in `learners.protocol.LearnReport.unbelieved`; empty when it is, or there is none.
    """

    quality: float | None
    weight: float
    alarm: Alarm | None
    forget: float
    doubt: str = ""


class Control:
    """See the module.

    Parameters
    ----------
    spec : PolicySpec
    layout : Layout

    Attributes
    ----------
    spec : PolicySpec
        The policy under its present settings.
    revisions : list of [int, dict]
        Rewards applied when settings began to hold, and the settings; the first at 0.
    alarms : list of Alarm
        Alarms of the batch in hand.
    """

    def __init__(self, spec: PolicySpec, layout: Layout) -> None:
        self._stand_under(spec)
        self.revisions: list[list[Any]] = [[0, settings_of(spec)]]
        self._layout = layout
        levels = [np.flatnonzero(row).tolist() for row in layout.level_of]
        self._watch = DriftWatch(levels, layout.n_levels, layout.dim)
        self._clip = Clip()
        self._shares = SourceShares()
        self._pacer = TenantPacer(spec, layout)
        self._wake = self._fresh = 0
        self._newcomers: frozenset[int] = frozenset()
        self._due: list[list[Any]] = []

    @property
    def revision(self) -> int:
        """How often the settings have changed in this epoch."""
        return len(self.revisions) - 1

    @property
    def _detects(self) -> bool:
        return self.spec.shards == 1 and self.spec.learning.drift

    def _stand_under(self, spec: PolicySpec) -> None:
        """Take a spec, and find out which components' changes are looked for."""
        self.spec = spec
        self._watched = tuple(c for c in COMPONENTS if self.spec.reward.decides(HEADS[c])) if self._detects else ()

    def welcome(self) -> None:
        """Explore more widely for a while, since there are new arms."""
        self._wake, self._fresh = WAKE, FRESH

    def meet(self, known: Float) -> None:
        """Learn which arms have a level that is new: one of which the epoch began with no more than its neighbours told.

        Parameters
        ----------
        known : float64 array (K,)
            Events' worth of evidence of each arm at the beginning of the epoch.
        """
        new = known @ self._layout.level_of <= NEIGHBOURS * (1.0 + 1e-9)
        self._newcomers = frozenset(np.flatnonzero(self._layout.level_of[:, new].any(axis=1)).tolist())

    @property
    def width(self) -> float:
        """How many times as wide as usual to explore, >= 1."""
        return 1.0 + (WIDER - 1.0) * self._wake / WAKE

    @property
    def floor(self) -> float:
        """Probability to be shared by all arms at least, while there are new ones."""
        return LIFTED * self._fresh / FRESH

    def take(self, reward: Mapping[str, Any], arm: int, version: int) -> Taken:
        """Take a reward that is being applied into account.

        Parameters
        ----------
        reward : mapping
            A reward record that is fit to be learned from.
        arm : int
        version : int
            Rewards applied, this one included.
        """
        learning = self.spec.learning
        features, quality = reward["features"], reward["quality"]
        cost, latency, failures = reward["cost_micro_usd"], reward["latency_us"], reward["failures"]
        tried = self._fresh > 0 and arm in self._newcomers
        self._wake = max(self._wake - (1 + WAKE // KNOWN if tried else 1), 0)
        self._fresh = max(self._fresh - (1 + FRESH // KNOWN if tried else 1), 0)
        weight, alarm = 1.0, None
        doubt = unheard(self.spec, reward)
        if doubt:
            quality = None
        if learning.robust:
            weight = leverage_weight(features)
        if learning.robust or self._watched:
            expected = self._watch.expect(features, arm)
            _, log_cost, log_latency = targets_of(None, cost, latency)
            off = None if quality is None else quality - expected[0]
            residuals = [off, log_cost - expected[1], log_latency - expected[2]]
            if learning.robust and off is not None:
                source, trusted = reward.get("source"), self.spec.reward.trusted
                # A source that says more than its share must not move the scale either.
                pulled = self._clip.residual(off, learn=self._shares.in_quota(source, trusted))
                doubt = self._shares.doubt(source, pulled, trusted) or ("too_far" if pulled != off else "")
                if not doubt and learning.trim is not None and self._clip.trims(off, learning.trim):
                    doubt = "trimmed"
                if doubt:
                    quality = residuals[0] = None
            alarm = self._watch.learn(features, arm, residuals, watched=self._watched)
            if alarm is not None:
                self._wake = WAKE
        calls, tools = reward.get("tool_calls", 0), self._pacer.tools
        if tools is not None:
            tools.add(features, arm, calls, weight)
        if self._pacer.active and reward["mode"] != "HOLDOUT":
            lag = version - 1 - reward["policy_version"] if reward.get("policy_version") is not None else -1
            decides = reward["mode"] not in ("SHADOW", "CANARY")  # not the policy, or nobody can tell
            used = {"cost": cost, "latency": latency, "failures": failures, "tool_calls": calls}
            self._pacer.add(features, arm, used, lag, decides)
        half_life = learning.half_life
        forget = 0.5 ** (FORGET_EVERY / half_life) if half_life is not None and version % FORGET_EVERY == 0 else 1.0
        if self._shares.met:
            self._shares.met = False
            forget *= BEFORE_CROWD
        if tools is not None and forget != 1.0:
            tools.shorten(np.full(self._layout.n_arms, forget))
        if tools is not None and alarm is not None:
            tools.shorten(self.shortened(tools.counts, alarm))
        return Taken(quality, weight, alarm, forget, doubt)

    @property
    def leaning(self) -> bool:
        """Whether sources were found leaning that nobody has taken yet."""
        return bool(self._shares.leaning)

    def take_leaning(self) -> list[Leaning]:
        """Sources found leaning since the last call."""
        taken, self._shares.leaning = self._shares.leaning, []
        return taken

    def shortened(self, counts: Float, alarm: Alarm) -> Float:
        """Factors (K,) by which an alarm shortens what is known of each arm, of which `counts` events' worth is known."""
        return keeping(counts, self._layout.level_of, alarm.level)

    def charged(self, snapshot: PolicySnapshot) -> PolicySnapshot:
        """A snapshot without charges with what the ceilings charge."""
        return self._pacer.charged(snapshot) if self._pacer.active else snapshot

    @property
    def tenant_feature(self) -> str:
        """The feature that names whose request it is, empty where no ceiling looks at it."""
        return self._pacer.feature

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What a snapshot needs for the ceilings beside the heads; FloatingPointError when it cannot be solved."""
        tools = self._pacer.tools
        return {} if tools is None else {TOOL_WEIGHTS: tools.theta().astype(np.float32)}

    # -- settings

    def revise(self, spec: PolicySpec, version: int) -> bool:
        """Go on under the settings of a spec of the same lineage, from a number of rewards applied; False when they are the same."""
        settings = settings_of(spec)
        if settings == self.revisions[-1][1]:
            self._stand_under(spec)
            return False
        self.revisions.append([version, settings])
        before = self._watched
        self._stand_under(spec)
        self._watch.renew(set(self._watched) - set(before))
        self._pacer.revise(spec)
        return True

    def replay(self, revisions: Sequence[Sequence[Any]]) -> None:
        """Begin under the first of some revisions, and note the others for `due`."""
        first, *others = revisions
        self._stand_under(with_settings(self.spec, first[1]))
        self.revisions = [[0, settings_of(self.spec)]]
        self._pacer.revise(self.spec)
        self._due = [list(one) for one in others]

    def due(self, version: int) -> PolicySpec | None:
        """The policy under the settings that a replay must change to after so many rewards, None when there are none."""
        if not self._due or self._due[0][0] > version:
            return None
        return with_settings(self.spec, self._due.pop(0)[1])

    # -- state

    def dump(self) -> tuple[dict[str, Any], Float]:
        """Return all that `load` needs: JSON-ready values, and numbers (float64, flat)."""
        learning = self.spec.learning
        pacing, numbers = self._pacer.dump()
        watched = learning.robust or self._detects
        values = {
            "revisions": self.revisions,
            "wake": [self._wake, self._fresh],
            "watch": self._watch.dump() if watched else [],
            "clip": self._clip.dump(),
            "shares": self._shares.dump(),
            "pacing": pacing,
        }
        # A key of its own, which the releases before do not look at; left out where there are no ceilings.
        more = self._pacer.more()
        return (values | {"plans": more} if more else values), numbers

    def load(self, values: Mapping[str, Any], numbers: Float) -> None:
        """Inverse of `dump`."""
        self.revisions = [list(one) for one in values["revisions"]]
        self._stand_under(with_settings(self.spec, self.revisions[-1][1]))
        self._wake, self._fresh = values["wake"]
        if values["watch"]:
            self._watch.load(values["watch"])
        self._clip.load(values["clip"])
        self._shares.load(values["shares"])
        self._pacer = TenantPacer(self.spec, self._layout)
        self._pacer.load(values["pacing"], numbers, values.get("plans", {}))
