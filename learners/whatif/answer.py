"""How a candidate would have done: estimates with intervals, and what a reader must know before believing them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.ope.decisions import Decisions
from learners.ope.estimators import Evaluation, evaluate
from learners.ope.gain import Gain, gain
from learners.ope.intervals import Interval
from learners.spec import PolicySpec
from learners.whatif.replaying import METRICS, Played, play, values_of
from learners.whatif.reward_log import Log, Rewarded
from learners.whatif.translation import Translation

Float = NDArray[np.float64]

UNITS = {
    "utility": "utility", "utility as it ran": "utility", "quality": "the metric's", "cost_micro_usd": "millionths of a US dollar",
    "latency_us": "microseconds", "failures": "spans",
}  # fmt: skip
BINS = 12
"""Points of the curve over time."""

RARE = 5
"""Times that an arm was taken below which it counts as hardly tried."""

_MUCH = 0.05
"""Share of the candidate's choices, or of the rewards, that is worth a remark."""


@dataclass(frozen=True)
class Measure:
    """One thing measured, for what ran and for the candidate, on the same decisions.

    Attributes
    ----------
    name : str
        A key of `UNITS`; ``utility`` is under the candidate's weights, ``utility as it ran`` under those in force.
    n : int
        Decisions of which it is known.
    ran : float
        Mean that was logged.
    ran_interval : Interval
        Of that mean, by its standard error.
    candidate : Evaluation
        IPS, SNIPS, DR and SWITCH.
    gain : Gain
        Candidate less what ran.
    """

    name: str
    n: int
    ran: float
    ran_interval: Interval
    candidate: Evaluation
    gain: Gain

    @property
    def sure(self) -> int:
        """Whether the candidate has more (1) or less (-1) than what ran, by more than chance explains; 0 when that cannot be told."""
        if self.candidate.off_balance:
            return 0
        low, high = self.gain.interval
        return int(low > 0) - int(high < 0)


@dataclass(frozen=True)
class Part:
    """A way to ask.

    Attributes
    ----------
    name : str
        ``as it learned``: prequential, over all decisions; ``final policy``: one fixed policy on the last part.
    since_us, until_us : int
        First and last decision; microseconds since 1970-01-01 UTC.
    learned : int
        Rewards that the candidate had learned from: at the end, or before the part began.
    measures : tuple of Measure
        Of what is known at all.
    """

    name: str
    since_us: int
    until_us: int
    learned: int
    measures: tuple[Measure, ...]

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name."""
        return next(measure for measure in self.measures if measure.name == name)


@dataclass(frozen=True)
class Answer:
    """All that a replay has to say of one policy.

    Attributes
    ----------
    policy : str
        Its key.
    epoch : int or None
        Epoch whose log it is.
    rewards, learned, decisions : int
        Rewards replayed, those that the candidate learned from, and decisions that can answer.
    parts : tuple of Part
        Empty when nothing can be answered.
    curve : tuple of (int, float or None, float or None)
        Over time: microseconds since 1970, mean utility that was logged, and the candidate's by DR.
    shares : tuple of (str, int, float, float)
        Arm that ran, times drawn, and its share of the last part: as it ran, and under the final policy.
    control_n, control : int, float or None
        Decisions of the control group, and their mean utility under the candidate's weights.
    remarks : tuple of str
        What a reader must know.
    """

    policy: str
    epoch: int | None
    rewards: int
    learned: int
    decisions: int
    parts: tuple[Part, ...]
    curve: tuple[tuple[int, float | None, float | None], ...]
    shares: tuple[tuple[str, int, float, float], ...]
    control_n: int
    control: float | None
    remarks: tuple[str, ...]

    @property
    def answerable(self) -> bool:
        """Whether there is an estimate of the utility at all."""
        return any(
            measure.name == "utility" and measure.candidate.ess > 0 for part in self.parts for measure in part.measures
        )


def answer(
    translation: Translation,
    log: Log,
    *,
    last_part: float = 0.25,
    confidence: float = 0.95,
    progress: Any = lambda done, total: None,
) -> Answer:
    """Replay a log and evaluate; parameters as of `learners.whatif.replaying.play`, `confidence` of the intervals."""
    control = [r for r in log.rewards if r.mode == "HOLDOUT"]
    earned, _ = _column(translation, control, "utility")
    head = translation.candidate.key, log.epoch, len(log.rewards)
    control_mean = float(np.mean(earned)) if len(earned) else None
    try:
        played = play(translation, log.rewards, last_part=last_part, progress=progress)
    except ValueError:
        return Answer(*head, 0, 0, (), (), (), len(control), control_mean, tuple(_nothing(translation, log)))
    n, start = len(played.rewards), played.start
    prequential = _part("as it learned", translation, played, 0, played.target, played.learned, confidence)
    final = _part("final policy", translation, played, start, played.final, played.learned_before, confidence)
    parts = (prequential, final) if n - start > 1 else (prequential,)
    made = Answer(
        *head,
        played.learned,
        n,
        parts,
        _curve(translation, played),
        _shares(translation, played),
        len(control),
        control_mean,
        (),
    )
    return Answer(**{**vars(made), "remarks": tuple(_remarks(translation, log, played, made))})


def _part(
    name: str, translation: Translation, played: Played, start: int, target: Float, learned: int, confidence: float
) -> Part:
    rewards = played.rewards[start:]
    names = ["utility", *METRICS]
    if translation.candidate.reward.weights != translation.ran.reward.weights or _scaled(translation):
        names.insert(1, "utility as it ran")
    measures = []
    for one in names:
        values, known = _column(translation, rewards, one)
        if len(known):
            measures.append(_measure(one, translation, played, values, known, start, target, confidence))
    return Part(name, rewards[0].decided_at, rewards[-1].decided_at, learned, tuple(measures))


def _scaled(translation: Translation) -> bool:
    return translation.candidate.reward.scales != translation.ran.reward.scales


def _measure(
    name: str,
    translation: Translation,
    played: Played,
    values: Float,
    known: NDArray[np.int64],
    start: int,
    target: Float,
    confidence: float,
) -> Measure:
    rows = known + start
    arms = np.array([played.rewards[i].arm for i in rows], dtype=np.int64)
    propensity = np.array([played.rewards[i].propensity for i in rows])
    decisions = Decisions(arms, propensity, values, played.eligible[rows])
    model = _model(name, translation, played)[rows]
    found = evaluate(decisions, target[known], confidence=confidence, model=model)
    more = gain(decisions, target[known], confidence=confidence, model=model)
    n = len(values)
    half = (
        NormalDist().inv_cdf(0.5 + confidence / 2.0) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    )
    mean = float(values.mean())
    ran = Interval(mean - half, mean + half).within(float(values.min()), float(values.max()))
    return Measure(name, n, mean, ran, found, more)


def _column(translation: Translation, rewards: Sequence[Rewarded], name: str) -> tuple[Float, NDArray[np.int64]]:
    """Values of a measure, and the places of the rewards that have one."""
    values = [values_of(translation, reward) for reward in rewards]
    known = [i for i, (quality, *_) in enumerate(values) if quality is not None or name in METRICS[1:]]
    if name in METRICS:
        place = METRICS.index(name)
        made = [values[i][place] for i in known]
    else:
        rules = _rules(name, translation)
        made = [rules.reward.utility(*values[i]) for i in known]  # type: ignore[arg-type]
    return np.array(made, dtype=np.float64), np.array(known, dtype=np.int64)


def _rules(name: str, translation: Translation) -> PolicySpec:
    return translation.candidate if name == "utility" else translation.ran


def _model(name: str, translation: Translation, played: Played) -> Float:
    if name in METRICS:
        return played.models[name]
    reward = _rules(name, translation).reward
    w, s, m = reward.weights, reward.scales, played.models
    made = (
        w.quality * m["quality"]
        - w.cost * m["cost_micro_usd"] / s.cost_micro_usd
        - w.latency * m["latency_us"] / s.latency_us
        - w.failures * m["failures"]
    )
    return np.asarray(made)


def _curve(translation: Translation, played: Played) -> tuple[tuple[int, float | None, float | None], ...]:
    """Logged and DR utility over runs of as many decisions each."""
    values, known = _column(translation, played.rewards, "utility")
    if len(known) < BINS:
        return ()
    arms = np.array([played.rewards[i].arm for i in known])
    propensity = np.array([played.rewards[i].propensity for i in known])
    target, model, rows = played.target[known], _model("utility", translation, played)[known], np.arange(len(known))
    w = target[rows, arms] / propensity
    terms = np.einsum("nk,nk->n", target, model) + w * (values - model[rows, arms])
    return tuple(
        (played.rewards[int(known[part[0]])].decided_at, float(values[part].mean()), float(terms[part].mean()))
        for part in np.array_split(rows, BINS)
    )


def _shares(translation: Translation, played: Played) -> tuple[tuple[str, int, float, float], ...]:
    n_ran = len(translation.ran.arms)
    taken = np.bincount([reward.arm for reward in played.rewards], minlength=n_ran)
    last = np.bincount([reward.arm for reward in played.rewards[played.start :]], minlength=n_ran)
    share, final = last / max(last.sum(), 1), played.final.mean(axis=0)
    order = np.lexsort((-share, -final))
    return tuple((translation.ran.arms.labels[a], int(taken[a]), float(share[a]), float(final[a])) for a in order)


# -- what to know


def _nothing(translation: Translation, log: Log) -> Iterator[str]:
    yield (
        "Nothing on this part of the log can answer: no decision was drawn with a probability below 1 among arms that the candidate has. "
        "A policy in shadow, a fallback and the control group draw nothing."
    )
    yield from _left_out(log.left_out)
    yield from translation.remarks


def _left_out(counts: Mapping[str, int]) -> Iterator[str]:
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        if reason not in ("repeats", "outside the time asked for"):
            yield f"{count} rewards {reason} were left out."


def _remarks(translation: Translation, log: Log, played: Played, made: Answer) -> Iterator[str]:
    yield from _overlap(played, made)
    if translation.unseen:
        yield (
            f"Never tried, so nobody can tell from this log: {', '.join(translation.unseen)}. They were left out; the final policy, free to "
            f"take what it has no data of, would have given {played.unseen_share:.0%} of its decisions to arms that never ran. Let the "
            "running policy try them for a while."
        )
    elif played.unseen_share > 0:
        yield (
            f"Some combinations never ran and were left out; the final policy, free to take them, would have given them "
            f"{played.unseen_share:.0%} of its decisions."
        )
    if played.no_choice:
        yield f"{played.no_choice} decisions were left out: none of the candidate's arms that ran was allowed in them."
    if played.thinned:
        yield f"{len(played.rewards)} decisions, spread evenly over the time, were evaluated; {played.thinned} more were learned from only."
    judged = sum(values_of(translation, reward)[0] is not None for reward in played.rewards)
    if judged < (1.0 - _MUCH) * len(played.rewards):
        yield (
            f"{1.0 - judged / len(played.rewards):.0%} of the decisions have no quality: utility and quality speak of the others only, "
            "which is fair only if being judged does not hang on the arm."
        )
    for reason, count in played.skipped.items():
        if count > _MUCH * max(made.rewards, 1):
            yield f"{count} rewards {reason.replace('_', ' ')} could not be learned from."
    yield from _left_out(log.left_out)
    yield from translation.remarks
    yield (
        "The candidate learned from what the policy that ran had chosen. Had it decided itself it would have seen other rewards, sooner "
        "for arms that it likes; how much that changes no log can tell."
    )


def _overlap(played: Played, made: Answer) -> Iterator[str]:
    for part in made.parts:
        found = next((measure.candidate for measure in part.measures if measure.name == "utility"), None)
        if found is None:
            continue
        if found.off_balance and found.weight_mean < 1.0:
            yield (
                f"Little overlap ({part.name}): the mean importance weight is {found.weight_mean:.2f} instead of 1, so the log covers about that "
                "share of the candidate's choices. The others fall where what ran gave an arm next to no chance; there DR only has its model, "
                "and SWITCH's interval is too short. Explore more (a higher floor), or run the candidate in shadow or canary."
            )
        elif found.off_balance:
            yield (
                f"The mean importance weight is {found.weight_mean:.2f} instead of 1, by more than chance ({part.name}): propensities are "
                "wrong, or the log is not all there. Do not believe the estimates."
            )
        if found.thin:
            yield (
                f"The log is thin for this candidate ({part.name}): {found.n} decisions are worth {found.ess:.0f}. Explore more (a higher "
                "floor), or ask about a longer time."
            )
    taken = np.bincount([reward.arm for reward in played.rewards], minlength=played.target.shape[1])
    rare = float(played.final.mean(axis=0)[taken < RARE].sum())
    if rare > _MUCH:
        yield f"{rare:.0%} of the final policy's choices fall on arms that were taken fewer than {RARE} times."
