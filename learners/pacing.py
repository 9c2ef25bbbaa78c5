"""Ceilings kept by primal-dual pacing: a price on what is limited, such that what is used comes to the ceiling.

Maximising mean utility under a ceiling B on the mean of a component c is, by Lagrangian duality, maximising
utility - price c / B for the right price. Dual descent finds it from what is spent, step by step, and swings as long as
it looks (Balseiro, Lu and Mirrokni, "The Best of Many Worlds: Dual Mirror Descent for Online Allocation Problems",
Operations Research 2023). Here the heads already say what each arm will use, so the dual problem is solved outright, over
the contexts that came last and with the propensities that the router will state (`learners.dual`): the price at which a decision uses

    aim - (account + planned) / horizon          ceilings, in the mean

where the account is what was spent beyond the aim so far, in ceilings, from rewards alone:

    account <- clip(account + c / B - aim, -CREDIT, DEBT)

That is the feedback: whatever the model gets wrong shows in the account and is paid back. While the account stays within
its bounds, the mean of any n rewards is off the aim by (account after - account before) / n, exactly.

The aim is below the ceiling, since a ceiling is an upper limit of what a user sees, and no controller can keep the account at 0: nobody knows
yet what the decisions on their way will use. Of n decisions, `lag` are on their way at either end, and what is known is settled
over a horizon, so with a variance v of a single use the account's two ends differ by a standard deviation of about

    s = sqrt(2 v (lag + horizon / 2))            ceilings

(an autoregressive process of the first order, of variance v horizon / 2, v lag of it yet unseen). So that a window of n decisions
is more than SLACK above the ceiling with a small chance only, the aim is 1 - max(SURE s - SLACK n, 0) / n: a chance constraint (Charnes and
Cooper, "Chance-Constrained Programming", Management Science 6, 1959). v and lag are measured as rewards come; where decisions scatter little or rewards
come soon the aim is the ceiling itself.

Paying back is not worth any price. Where arms are few, quality falls steeply below some use (the next cheaper model is far worse) and rises hardly at all
above it, and a price that makes decisions use as much less as the account asks for may be hundreds of times what a ceiling is worth. Since what is due
may as well be paid back later, the price is no more than

    price at (aim - due / SLOWLY) * exp(HASTE due / horizon)            due = account + planned, where above 0

that is, so many times the price that would settle it slowly: a step of multiplicative weights (the entropic mirror map of Balseiro et al.) bounds the step that
solves the dual problem outright. It counts where use hardly responds to the price: where it falls by less than the HASTE-th part of itself as the price rises e-fold.

Rewards come late, and who does not reckon with what is on its way pays back twice and swings. So what the decisions whose
rewards have not come were meant to use beyond the ceiling is planned with (a Smith predictor: O. J. M. Smith, "Closer
Control of Loops with Dead Time", Chemical Engineering Progress 53, 1957). Nobody knows which decisions these are, but by
how many rewards a reward is late, in the mean: a plan is forgotten at that rate. Plans are made anew at every reward,
whether or not a snapshot is, so they are in the log; and a reward that never comes is forgotten with the others.

A *steady* ceiling is an aim: windows are to be near it on either side, so there is no reserve. A price alone cannot do that where single
decisions use many ceilings or next to nothing: what those on their way will use is not known. So decisions are also charged

    shun * (c / B - 1)^2                             utility

for what they are expected to use off one ceiling, by the router, one by one; the price beside it may be below 0. `shun` is no setting, but found by
feedback: with s as above, windows keep within SLACK by chance where SURE s <= SLACK n, which allows single uses a variance of at most

    (SLACK n / SURE)^2 / (2 lag + horizon)

so the logarithm of shun follows that of the measured variance over the allowed one (multiplicative weights again). What it costs is quality in proportion to what decisions must give up
for being alike. Where even the policy without any price uses less than the ceiling, nothing is charged: it is no duty to spend.

A limit on a quantile q of the latency is one on the share of decisions above it: c / B is 1 / (1 - q) for a decision above,
else 0. What an arm uses of it is counted by arm, and the price is put on the latency head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steersman.snapshot import TOOL_CALLS

from .contexts import Contexts
from .spec import Ceilings

Float = NDArray[np.float64]

CONTEXTS, NEWEST = 256, 64
"""Contexts that the price is solved for: the last so many rewards' of the policy's own decisions. What is dear by chance in the
last few is in the account already: with few of them it would be paid back twice. And how many lie in a state where earlier
releases look for them."""

HORIZON, PATIENCE, LATE, LONGEST = 10.0, 6.0, 0.5, 300.0
"""Decisions within which the account is to be settled: the first at least; the second for every unit of the variance of a use, since
what one decision overspends cannot be had back from a few without loss of quality, the last at most; and the third more for every
reward by which rewards are late."""

SOON = 20.0
"""The last for steady ceilings, where what is overspent must be had back in the same window, whatever that costs."""

SLOWLY, HASTE = 300.0, 5.0
"""Decisions over which what is due is paid back where that is costly, and logarithm of how many times the price that does so may be asked at most, for each
ceiling that a decision would have to use less to pay back within the horizon."""

_BOUNDLESS = 50.0
"""Logarithm of what no price is bounded by; where even the cheapest arm uses more than the ceiling, what is due grows for ever."""

MOST = 3.0
"""What a decision may use at most to make up for a thrifty time, in ceilings."""

CREDIT, DEBT = 60.0, 100.0
"""Ceilings saved up or overspent beyond which nothing is remembered at all."""

LUCK, LEAST = 3.0, 10.0
"""Standard deviations, and ceilings at least, up to which what is saved up is taken for luck, and may be spent; more comes of a policy that
would use less by itself, and a thrifty time is not squandered later."""

WINDOW, SLACK = 1000, 0.01
"""Decisions whose mean is to be no more than so much above the ceiling."""

SURE = 2.33
"""Standard deviations of such a mean that are kept in reserve: 99 of 100, were they normal, but single uses have long tails."""

SURER = 3.0
"""The same for either side of a steady ceiling."""

FURTHEST = 0.1
"""Share of the ceiling that is kept in reserve at most."""

SHUN, SHUNNED, SHYER, OFF = 0.1, (1e-4, 1.0), 0.003, 1.5
"""What a decision one ceiling off the aim loses at first under a steady ceiling, as a share of the span of the arms' utilities; at least and at most; by how much its logarithm moves
with each reward for each e-fold that the variance of a use is off the allowed one; and how many of these e-folds count at most."""

_TINY = 1e-6
_LARGEST = 1e3
_SHRINK = 5.0
_FORGET = 0.998
_SPREAD = 0.005


class Limit(NamedTuple):
    """One ceiling.

    Attributes
    ----------
    name : str
        Its key in the file.
    component : str
        Head that its price is put on.
    ceiling : float
        Upper limit of the mean, or for a quantile of the value there; unit: the component's.
    above : float
        For a quantile q: 1 - q, the share of decisions that may be above; 0 for a mean.
    steady : bool
        Whether it is an aim, which decisions are kept near one by one.
    """

    name: str
    component: str
    ceiling: float
    above: float
    steady: bool = False

    def used(self, value: float) -> float:
        """What a decision uses up, in what it may use on average."""
        if self.above:
            return 1.0 / self.above if value > self.ceiling else 0.0
        return min(max(value, 0.0) / self.ceiling, _LARGEST)


def limits_of(ceilings: Ceilings) -> tuple[Limit, ...]:
    """The ceilings that are set, in a fixed order."""
    ways = (
        ("cost_micro_usd", "cost", 0.0),
        ("latency_us", "latency", 0.0),
        ("latency_us_p95", "latency", 0.05),
        ("latency_us_p99", "latency", 0.01),
        ("failures", "failures", 0.0),
        ("tool_calls", TOOL_CALLS, 0.0),
    )
    steady = bool(ceilings.steady)
    return tuple(
        Limit(name, component, ceiling, above, steady and not above)
        for name, component, above in ways
        if (ceiling := getattr(ceilings, name)) is not None
    )


class Pacer:
    """Accounts of all ceilings of a policy, and the prices that they make. One step a reward, in the order of the log.

    Parameters
    ----------
    limits : sequence of Limit
    n_arms, dim : int
        Arms, and entries of x.
    contexts, newest : int
        How many of the latest contexts the prices are solved for, and how many of them `dump` gives; `more` the others.
    """

    def __init__(
        self, limits: Sequence[Limit], n_arms: int, dim: int, contexts: int = CONTEXTS, newest: int = NEWEST
    ) -> None:
        self.limits = tuple(limits)
        self._lag = 0.0
        self._account: dict[str, float] = dict.fromkeys((limit.name for limit in self.limits), 0.0)
        self._spread: dict[str, float] = dict.fromkeys((limit.name for limit in self.limits), 1.0)
        self._planned: dict[str, float] = dict.fromkeys((limit.name for limit in self.limits), 0.0)
        self._shuns: dict[str, float] = {limit.name: SHUN for limit in self.limits if limit.steady}
        self._contexts = Contexts(contexts, newest, dim)
        self._above: Float = np.zeros((n_arms, 1 + len(self.limits)))  # events, then those above each limit

    def add(self, x: Sequence[float], arm: int, values: Mapping[str, float], lag: float, own: bool = True) -> None:
        """Take a reward into account.

        Parameters
        ----------
        x : sequence of float
            Encoded context, d entries.
        arm : int
        values : mapping of str to float
            Cost (millionths of a US dollar), latency (microseconds), failures (spans) and tool calls by head.
        lag : float
            Rewards applied since the snapshot was made that decided; below 0 when nobody knows.
        own : bool
            Whether the policy decided. What others use tells of arms and contexts, and is put to no account.
        """
        aims, plans = [], []
        for limit in self.limits:
            horizon = self._horizon(limit)
            aims.append(aim := self._aim(limit, horizon))
            plans.append(self._target(limit, aim, horizon) - aim if own else 0.0)
        if lag >= 0:
            self._lag += 0.05 * (lag - self._lag)
        for limit, plan in zip(self.limits, plans, strict=True):
            self._planned[limit.name] += plan - self._planned[limit.name] / max(self._lag, 1.0)
        self._contexts.add(x)
        row = self._above[arm]
        row *= _FORGET
        row[0] += 1.0
        for i, limit in enumerate(self.limits):
            used = limit.used(values[limit.component])
            if limit.above:
                row[1 + i] += used
            if not own:
                continue
            account = self._account[limit.name] + used - aims[i]
            self._spread[limit.name] += _SPREAD * ((used - 1.0) ** 2 - self._spread[limit.name])
            self._account[limit.name] = min(max(account, -self._credit(limit)), DEBT)
            if limit.steady:
                self._shuns[limit.name] = self._shyer(limit)

    @property
    def seen(self) -> int:
        """Rewards taken into account so far."""
        return self._contexts.seen

    @property
    def contexts(self) -> Float:
        """The contexts that came last, (n, d)."""
        return self._contexts.all()

    @property
    def size(self) -> int:
        """Numbers that `dump` gives."""
        return self._contexts.size + self._above.size

    def aim(self, limit: Limit) -> float:
        """What decisions are to use in the long run, in ceilings: so far below 1 that what is not known yet hardly ever takes a window above."""
        return self._aim(limit, self._horizon(limit))

    def target(self, limit: Limit) -> float:
        """What a decision is to use in the mean, in ceilings."""
        horizon = self._horizon(limit)
        return self._target(limit, self._aim(limit, horizon), horizon)

    def slow(self, limit: Limit) -> float:
        """What a decision is to use in the mean, in ceilings, were what is due settled as slowly as may be."""
        horizon = self._horizon(limit)
        return self._target(limit, self._aim(limit, horizon), max(SLOWLY, horizon))

    def most(self, limit: Limit) -> float:
        """How many times the price that settles slowly may be asked; infinity where nothing is to be paid back."""
        due = self._due(limit)
        return math.exp(min(HASTE * due / self._horizon(limit), _BOUNDLESS)) if due > 0.0 else math.inf

    def shun(self, limit: Limit) -> float:
        """What a decision loses that is expected to use one ceiling more or less than a steady one, as a share of the span of the arms' utilities."""
        return self._shuns[limit.name]

    def _shyer(self, limit: Limit) -> float:
        allowed = (SLACK * WINDOW / SURER) ** 2 / (2.0 * self._lag + self._horizon(limit))
        off = math.log(max(self._spread[limit.name], _TINY) / allowed)
        least, most = SHUNNED
        return min(max(self._shuns[limit.name] * math.exp(SHYER * min(max(off, -OFF), OFF)), least), most)

    def _aim(self, limit: Limit, horizon: float) -> float:
        if limit.steady:
            return 1.0
        scatter = math.sqrt(2.0 * self._spread[limit.name] * (self._lag + horizon / 2.0))
        return 1.0 - min(max(SURE * scatter / WINDOW - SLACK, 0.0), FURTHEST)

    def _target(self, limit: Limit, aim: float, horizon: float) -> float:
        return min(max(aim - self._due(limit) / horizon, 0.0), MOST)

    def _due(self, limit: Limit) -> float:
        """What is still to be paid back (below 0: may be spent), in ceilings."""
        return self._account[limit.name] + self._planned[limit.name]

    def _horizon(self, limit: Limit) -> float:
        longest = SOON if limit.steady else LONGEST
        return min(max(HORIZON, PATIENCE * self._spread[limit.name]), longest) + LATE * self._lag

    def _credit(self, limit: Limit) -> float:
        """Ceilings that may have been saved up by luck: uses of so many decisions scatter before anything can be done about it."""
        luck = LUCK * math.sqrt(self._spread[limit.name] * (self._horizon(limit) + self._lag))
        return min(max(luck, LEAST), CREDIT)

    def use(self, i: int, charge: Float) -> Float:
        """What the arms use of a limit in each context (n, K): predicted for a mean, counted for a quantile."""
        if not self.limits[i].above:
            return charge
        events, above = self._above[:, 0], self._above[:, 1 + i]
        overall = (above.sum() + _SHRINK) / (events.sum() + _SHRINK)
        return np.broadcast_to((above + _SHRINK * overall) / (events + _SHRINK), charge.shape)

    def accounts(self) -> dict[str, float]:
        """What is spent beyond the aim (below 0: saved up) by ceiling, in ceilings."""
        return dict(self._account)

    def revise(self, limits: Sequence[Limit]) -> None:
        """Go on under other ceilings: the accounts of those that moved begin anew."""
        old = {limit.name: (i, limit) for i, limit in enumerate(self.limits)}
        account, spread, planned, above = self._account, self._spread, self._planned, self._above
        shuns = self._shuns
        self.limits = tuple(limits)
        self._shuns = {one.name: shuns.get(one.name, SHUN) for one in self.limits if one.steady}
        self._account, self._spread, self._planned = {}, {}, {}
        self._above = np.zeros((len(above), 1 + len(self.limits)))
        self._above[:, 0] = above[:, 0]
        for i, limit in enumerate(self.limits):
            at, before = old.get(limit.name, (0, None))
            same = before == limit
            self._account[limit.name] = account[limit.name] if same else 0.0
            self._spread[limit.name] = spread[limit.name] if same else 1.0
            self._planned[limit.name] = planned[limit.name] if same else 0.0
            # Of another limit nobody has counted what was above it: as much as may be.
            self._above[:, 1 + i] = above[:, 1 + at] if same else above[:, 0]

    def dump(self) -> tuple[list[Any], Float]:
        """Return what releases before read of `load`'s: JSON-ready values, and numbers (float64, flat)."""
        accounts = [[limit.name, self._account[limit.name], self._spread[limit.name]] for limit in self.limits]
        return [self._lag, self.seen, accounts], np.concatenate([self._contexts.dump(), self._above.ravel()])

    def more(self) -> list[Any]:
        """Return what `load` needs beside `dump`, JSON-ready: plans by ceiling, older contexts, and what is shunned under steady ceilings, which releases before do not know."""
        return [self._planned, self._contexts.older(), *([self._shuns] if self._shuns else [])]

    def load(self, values: Sequence[Any], numbers: Float, more: Sequence[Any] = ()) -> None:
        """Inverse of `dump` and, where the release that wrote the state had it, `more`, under the same limits; ValueError when the shapes differ."""
        self._lag, seen, accounts = values
        self._account = {name: account for name, account, _ in accounts}
        self._spread = {name: spread for name, _, spread in accounts}
        at = self._contexts.size
        self._above = numbers[at:].reshape(self._above.shape).copy()
        if more:
            planned, older, *shuns = more
            self._shuns = dict(shuns[0]) if shuns else self._shuns
            self._planned = {limit.name: planned[limit.name] for limit in self.limits}
            self._contexts.load(seen, numbers[:at], older)
        else:
            self._contexts.load(seen, numbers[:at])
