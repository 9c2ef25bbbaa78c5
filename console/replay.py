"""`steersman replay`: what a candidate policies file would have done, learned again from the reward log; nothing is published."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from console.brokers import require_broker
from console.output import err, out, print_json, print_rows
from console.relearn import RewardTopic
from console.sparkline import sparkline
from console.target import Target, registry_of
from learners.policies_file import load_policies
from learners.shard_keys import shard_key
from learners.spec import PolicySpec
from learners.whatif.answer import Answer, Measure, Part, answer
from learners.whatif.reward_log import LogReader
from learners.whatif.translation import Translation, translate
from steersman.errors import ConfigError
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.topics import existing_partitions

OK, NO_ANSWER = 0, 4
_SHOWN = {
    "utility": ("utility", 1.0, "", 1), "utility as it ran": ("utility, weights in force", 1.0, "", 1), "quality": ("quality", 1.0, "", 1),
    "cost_micro_usd": ("cost", 1e-6, " USD", -1), "latency_us": ("latency", 1e-6, " s", -1), "failures": ("failures", 1.0, "", -1),
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes
    ----------
    candidate, policies
        The candidate's file, and the one in force.
    policy
        Only this one; else all of the candidate's file.
    tenant
        Whose.
    since, until
        Decisions made from then on and before then; None is no limit.
    last_part
        Share of the decisions on which the final policy is evaluated.
    confidence
        Of the intervals.
    """

    candidate: Path
    policies: Path
    policy: str | None
    tenant: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    last_part: float = 0.25
    confidence: float = 0.95


def run(target: Target, request: Request, *, as_json: bool) -> int:
    """Read the log, replay every policy asked for, and print; returns the exit code.

    Raises
    ------
    ConfigError
        When a file cannot be used, or the log cannot tell what the candidate would have done.
    Unreachable
        When the broker does not answer.
    """
    asked = translations(request)
    require_broker(target.brokers)
    code = OK
    readers, cut = read(target, request, asked)
    for translation, reader in zip(asked, readers, strict=True):
        with _progress(translation.candidate.key) as progress:
            made = answer(
                translation,
                reader.finish(),
                last_part=request.last_part,
                confidence=request.confidence,
                progress=progress,
            )
        code = code if made.answerable else NO_ANSWER
        if as_json:
            print_json(as_record(made, reader.read, cut))
        else:
            _print(made, cut, request.confidence)
    return code


def translations(request: Request) -> list[Translation]:
    """What is to be replayed, of both files; ConfigError when there is none, or what runs knows no such policy."""
    candidates, ran = load_policies(request.candidate), load_policies(request.policies)
    wanted = [
        spec for spec in candidates if spec.tenant == request.tenant and request.policy in (None, spec.name)
    ]  # fmt: skip
    if not wanted:
        what = f"no policy {request.policy!r}" if request.policy else "no policy"
        raise ConfigError(f"{request.candidate} has {what} of tenant {request.tenant!r}: nothing to replay")
    made = []
    for spec in wanted:
        running = ran.get(spec.tenant, spec.name)
        if running is None:
            if request.policy is None:
                err.print(
                    f"{spec.key} is left out: {request.policies} does not have it, so it never ran", highlight=False
                )
                continue
            raise ConfigError(
                f"{request.policies} has no policy {spec.name!r} of tenant {spec.tenant!r}; name the file that ran with --policies"
            )
        made.append(translate(running, spec))
    if not made:
        raise ConfigError(
            f"{request.candidate} and {request.policies} have no policy of tenant {request.tenant!r} in common"
        )
    return made


def read(target: Target, request: Request, asked: Sequence[Translation]) -> tuple[list[LogReader], Mapping[int, int]]:
    """Read the rewards of the policies in one pass; also where partitions begin that have lost their beginning.

    Raises
    ------
    ConfigError
        When there is no reward topic.
    Unreachable
        When the broker does not let us.
    """
    topics = Topics(target.prefix)
    counts = existing_partitions(KafkaAdmin(target.brokers), target.brokers)
    if topics.reward not in counts:
        raise ConfigError(f"topic {topics.reward} does not exist at {target.brokers}: nothing was ever learned there")
    log = RewardTopic(target.brokers, topics.reward, counts[topics.reward], registry_of(topics))
    readers = [LogReader(one.ran, _micros(request.since), _micros(request.until)) for one in asked]
    by_policy = {(one.ran.tenant, one.ran.name): reader for one, reader in zip(asked, readers, strict=True)}
    for reward in log.rewards([key for one in asked for key in _keys(one.ran)]):
        reader = by_policy.get((reward["tenant"], reward["policy"]))
        if reader is not None:
            reader.add(reward)
    return readers, log.cut


def _keys(spec: PolicySpec) -> list[str]:
    return [spec.key] if spec.shards == 1 else [shard_key(spec.key, shard) for shard in range(spec.shards)]


def _micros(at: dt.datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1e6)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Say on standard error how far a replay is: a bar in a terminal, else nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        task = shown.add_task(f"replaying {what}", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


# -- what is printed


def as_record(made: Answer, read_n: int, cut: Mapping[int, int]) -> dict[str, Any]:
    """Return the answer for programs."""
    return {
        "policy": made.policy,
        "epoch": made.epoch,
        "answerable": made.answerable,
        "rewards_read": read_n,
        "rewards": made.rewards,
        "learned": made.learned,
        "decisions": made.decisions,
        "control_decisions": made.control_n,
        "control_utility": made.control,
        "log_begins_at": dict(cut),
        "parts": {part.name: _part_record(part) for part in made.parts},
        "curve": [
            {"at": _when(at).isoformat(), "ran": ran, "candidate": candidate} for at, ran, candidate in made.curve
        ],
        "arms": [
            {"arm": arm, "drawn": drawn, "share": share, "candidate_share": mine}
            for arm, drawn, share, mine in made.shares
        ],
        "remarks": list(made.remarks),
    }


def _part_record(part: Part) -> dict[str, Any]:
    return {
        "since": _when(part.since_us).isoformat(),
        "until": _when(part.until_us).isoformat(),
        "learned": part.learned,
        "measures": {measure.name.replace(" ", "_"): _measure_record(measure) for measure in part.measures},
    }


def _measure_record(measure: Measure) -> dict[str, Any]:
    found = measure.candidate
    return {
        "decisions": measure.n,
        "effective_sample_size": found.ess,
        "weight_mean": found.weight_mean,
        "weight_max": found.weight_max,
        "ran": measure.ran,
        "ran_interval": list(measure.ran_interval),
        "gain": measure.gain.value,
        "gain_interval": list(measure.gain.interval),
        "sure": measure.sure,
        "estimates": {
            e.estimator: {
                "value": None if math.isnan(e.value) else e.value,
                "likelihood": list(e.likelihood),
                "bernstein": list(e.bernstein),
            }
            for e in found.estimates
        },
    }


def _print(made: Answer, cut: Mapping[int, int], confidence: float) -> None:
    _line(
        f"{made.policy}: {made.rewards} rewards replayed, {made.learned} learned from; {made.decisions} decisions that were drawn can answer. "
        "Nothing was published."
    )
    if cut:
        _line("The reward topic has lost its beginning (retention): the candidate learned from what is left.")
    for part in made.parts:
        since, until = (f"{_when(at):%Y-%m-%d %H:%M:%S}" for at in (part.since_us, part.until_us))
        what = (
            "as it learned: at each decision it knew only the rewards that had closed before"
            if part.name == "as it learned"
            else f"the policy it had learned from {part.learned} rewards, held fixed on the last part"
        )
        rows = [_row(measure) for measure in part.measures if measure.name != "failures" or measure.ran]
        columns = [
            "",
            "what ran",
            "candidate (DR)",
            f"{confidence:.0%} interval",
            "difference",
            "interval",
            "",
            "worth",
            "covered",
        ]
        print_rows(columns, rows, as_json=False, title=f"{what} ({since} to {until} UTC)")
    for part in made.parts[-1:]:
        found = next((m for m in part.measures if m.name == "utility"), None)
        if found is not None:
            rows = [[e.estimator, e.value, *e.likelihood, *e.bernstein] for e in found.candidate.estimates]
            columns = ["estimator", "utility", "low", "high", "low, any n", "high, any n"]
            print_rows(columns, rows, as_json=False, title=f"utility by every estimator, {part.name}")
    if made.shares:
        rows = [[arm, drawn, f"{share:.1%}", f"{mine:.1%}"] for arm, drawn, share, mine in made.shares[:12]]
        print_rows(
            ["arm", "drawn", "as it ran", "candidate"], rows, as_json=False,
            title="share of the decisions of the last part" + (", the first 12 arms" if len(made.shares) > 12 else ""),
        )  # fmt: skip
    if made.curve:
        logged, mine = [ran for _, ran, _ in made.curve], [candidate for _, _, candidate in made.curve]
        together = [value for value in (*logged, *mine) if value is not None]
        low, high = min(together), max(together)
        _line(f"utility over time, {low:.3f} to {high:.3f}:")
        _line(f"  what ran   {sparkline(logged, low, high)}")
        _line(f"  candidate  {sparkline(mine, low, high)}")
    if made.control is not None:
        _line(
            f"The control group earned {made.control:+.4f} under the candidate's weights ({made.control_n} decisions)."
        )
    _line(verdict(made))
    for remark in made.remarks:
        _line(f"- {remark}")


def verdict(made: Answer) -> str:
    """Say in one sentence whether the candidate would have been better."""
    if not made.parts:
        return "This log cannot tell how the candidate would have done."
    part = made.parts[-1]
    found = next((measure for measure in part.measures if measure.name == "utility"), None)
    if found is None:
        return "No decision has a quality, so there is no utility to compare; the other rows stand for themselves."
    if found.candidate.off_balance:
        return "Whether the candidate would have been better this log cannot tell: see what is said below about its overlap."
    low, high = found.gain.interval
    if found.sure:
        return (
            f"The candidate would have earned {'more' if found.sure > 0 else 'less'} than what ran: {found.gain.value:+.4f} utility a decision "
            f"({low:+.4f} to {high:+.4f}), {part.name}."
        )
    return f"Candidate and what ran cannot be told apart: {found.gain.value:+.4f} utility a decision ({low:+.4f} to {high:+.4f}), {part.name}."


def _row(measure: Measure) -> list[object]:
    name, factor, unit, good = _SHOWN[measure.name]
    found = measure.candidate["dr"]

    def text(value: float, sign: str = "") -> str:
        return f"{value * factor:{sign}.4g}{unit}"

    words = {0: "cannot be told", 1: "better", -1: "worse"}
    low, high = measure.gain.interval
    return [
        name,
        text(measure.ran),
        text(found.value),
        f"{text(found.likelihood.low)} to {text(found.likelihood.high)}",
        text(measure.gain.value, "+"),
        f"{text(low, '+')} to {text(high, '+')}",
        words[measure.sure * good],
        f"{measure.candidate.ess:.0f} of {measure.n}",
        f"{min(measure.candidate.weight_mean, 1.0):.0%}",
    ]


def _when(at_us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC)


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False)
