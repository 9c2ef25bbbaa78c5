"""`steersman quarantine`: sources of feedback that policies are learned again without, and what that changes."""

from __future__ import annotations

import datetime as dt
import difflib
import getpass
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from console import toml_edit
from console.brokers import require_broker
from console.output import err, out, print_json, print_rows
from console.policy import held
from console.target import Target, registry_of
from learners.policies_file import load_policies, parse_policies
from learners.protocol import Learner
from learners.quarantine import with_quarantine
from learners.registry import make_learner
from learners.source_names import hashed, hashed_all
from learners.spec import PolicySpec
from steersman.codec import Codec
from steersman.errors import ConfigError, DecodeError
from steersman.kafka_admin import KafkaAdmin
from steersman.scoring import Scorer
from steersman.topics import Topics
from streams.learning_stage import partition_of
from streams.partition_log import PartitionLog
from streams.topics import existing_partitions

OK, LATE = 0, 4
_CHUNK = 1000
_PROGRESS = 20_000
_LOOK_S = 0.5


@dataclass
class Effect:
    """What leaving a source out changes in a policy, by the log of rewards.

    Attributes
    ----------
    policy
        Its key.
    rewards
        Rewards learned from.
    judgements
        Of those, judged by the source.
    mean, others_mean
        Mean quality that the source, and all others, gave; None where there is none.
    arms
        Arm -> its probability at the average context, now and without the source; those that change most.
    """

    policy: str
    rewards: int
    judgements: int
    mean: float | None
    others_mean: float | None
    arms: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Act:
    """What is to be done.

    Attributes
    ----------
    source
        The source.
    tenant
        Tenant of the policies.
    policies
        Names of the policies; empty for all of the tenant.
    file
        The policies file.
    lift
        Whether the source is to be believed again.
    reason
        Why; kept beside the source in the file.
    """

    source: str
    tenant: str
    policies: tuple[str, ...]
    file: Path
    lift: bool = False
    reason: str = ""


def run(target: Target, act: Act, *, dry_run: bool, wait_s: float, as_json: bool) -> int:
    """Change the policies file, or only show what that would change; returns the exit code.

    Raises
    ------
    ConfigError
        When there is no such policy, or the file cannot be changed.
    Unreachable
        When the broker is needed and does not answer.
    """
    specs = _chosen(act)
    keys = [(spec.tenant, spec.name) for spec in specs]
    note = _note(act)

    def edit(text: str) -> str:
        if act.lift:
            return toml_edit.lifted(text, keys, act.source)
        return toml_edit.listed(text, keys, act.source, note)

    if dry_run:
        before = act.file.read_text(encoding="utf-8")
        after = edit(before)
        parse_policies(after, str(act.file))
        require_broker(target.brokers)
        effects = [effect(target, spec, act) for spec in specs]
        _print_effects(act, effects, _diff(act.file, before, after), as_json=as_json)
        return OK
    changed = [spec for spec in specs if _is_listed(spec, act.source) == act.lift]
    toml_edit.change(act.file, edit)
    if not changed:
        _say(act, [], "nothing to do: it is so already", as_json=as_json)
        return OK
    if not wait_s:
        done = "written; workers that follow this file learn these policies again, and publish them when they are done"
        _say(act, changed, done, as_json=as_json)
        return OK
    require_broker(target.brokers)
    late = _wait(target, act, changed, wait_s)
    done = f"not published within {wait_s:g} s: {', '.join(late)}" if late else "learned again and published"
    _say(act, changed, done, as_json=as_json)
    return LATE if late else OK


def show(tenant: str, file: Path, *, as_json: bool) -> None:
    """Print who is in quarantine."""
    rows = []
    for spec in load_policies(file):
        if spec.tenant == tenant:
            rows += [[spec.key, *pair] for pair in toml_edit.notes(file, (spec.tenant, spec.name)).items()]
    if as_json or rows:
        print_rows(["policy", "source", "note"], rows, as_json=as_json)
    else:
        out.print(f"no source is in quarantine in {file}", markup=False, highlight=False)


def effect(target: Target, spec: PolicySpec, act: Act) -> Effect:
    """Learn a policy from the log, with the source and without it."""
    topics = Topics(target.prefix)
    count = existing_partitions(KafkaAdmin(target.brokers), target.brokers).get(topics.reward)
    if count is None:
        raise ConfigError(f"topic {topics.reward} does not exist at {target.brokers}: nothing was ever learned there")
    listed = set(spec.reward.quarantined)
    named = hashed_all([act.source])
    others = listed - {act.source, *named}
    learners = [
        make_learner(with_quarantine(spec, sorted(sources)), 0) for sources in (listed, others if act.lift else {*listed, act.source})
    ]  # fmt: skip
    judged: dict[bool, list[float]] = {True: [], False: []}
    codec, read = Codec("reward", registry=registry_of(topics)), 0
    chunk: list[Mapping[str, Any]] = []

    def teach() -> None:
        report, _ = [learner.learn_many(chunk) for learner in learners]
        for reward, outcome in zip(chunk, report.outcomes, strict=True):
            if outcome == "applied" and reward["quality"] is not None:
                source = reward["source"]
                judged[source is not None and hashed(source) in named].append(float(reward["quality"]))
        chunk.clear()

    for record in PartitionLog(target.brokers, topics.reward, partition_of(spec.key, count)):
        read += 1
        if read % _PROGRESS == 0:
            err.print(f"{spec.key}: {read} rewards read", markup=False, highlight=False)
        try:
            reward = codec.decode(record.value, record.headers)
        except DecodeError:
            continue
        if (reward["tenant"], reward["policy"]) == (spec.tenant, spec.name):
            chunk.append(reward)
        if len(chunk) >= _CHUNK:
            teach()
    teach()
    before, after = (_probabilities(learner) for learner in learners)
    most = sorted(before, key=lambda arm: -abs(after[arm] - before[arm]))[:5]
    means = [sum(judged[own]) / len(judged[own]) if judged[own] else None for own in (True, False)]
    return Effect(
        spec.key, learners[0].version, len(judged[True]), means[0], means[1], {arm: (before[arm], after[arm]) for arm in most}
    )  # fmt: skip


def _probabilities(learner: Learner) -> dict[str, float]:
    snapshot = learner.snapshot(0)
    scores = Scorer(snapshot).score(snapshot.features.encode({}))
    return dict(zip(snapshot.arms.labels, map(float, scores.propensity), strict=True))


def _chosen(act: Act) -> list[PolicySpec]:
    found = [spec for spec in load_policies(act.file) if spec.tenant == act.tenant]
    names = {spec.name for spec in found}
    if unknown := sorted(set(act.policies) - names):
        known = ", ".join(sorted(names)) or "none"
        raise ConfigError(f"{act.file} has no policy {unknown[0]!r} of tenant {act.tenant!r}; it has: {known}")
    chosen = [spec for spec in found if not act.policies or spec.name in act.policies]
    if not chosen:
        raise ConfigError(f"{act.file} has no policy of tenant {act.tenant!r}")
    return chosen


def _is_listed(spec: PolicySpec, source: str) -> bool:
    return source in spec.reward.quarantined


def _note(act: Act) -> str:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container without names
        who = "unknown"
    said = " ".join(act.reason.split())
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, {who}{': ' if said else ''}{said}"


def _wait(target: Target, act: Act, specs: list[PolicySpec], wait_s: float) -> list[str]:
    """Wait until each policy is published without the source, or with it again; returns those that are not, by name."""
    deadline = time.monotonic() + wait_s
    wanted = {spec.name: spec.learned_by for spec in load_policies(act.file)}
    late = [spec.name for spec in specs]
    while True:
        found = held(target, act.tenant)
        late = [name for name in late if name not in found or found[name].snapshot.learner != wanted[name]]
        if not late or time.monotonic() > deadline:
            return late
        err.print(f"waiting for {', '.join(late)} ...", markup=False, highlight=False)
        time.sleep(_LOOK_S)


def _diff(file: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(file), str(file), n=1, lineterm="")
    return "\n".join(lines)


def _say(act: Act, specs: list[PolicySpec], done: str, *, as_json: bool) -> None:
    names = [spec.key for spec in specs]
    if as_json:
        print_json({"source": act.source, "lifted": act.lift, "policies": names, "file": str(act.file), "result": done})
        return
    verb = "believed again" if act.lift else "in quarantine"
    out.print(f"{act.source} is {verb} in {', '.join(names) or act.file}: {done}", markup=False, highlight=False)


def _print_effects(act: Act, effects: list[Effect], diff: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"source": act.source, "diff": diff, "policies": [asdict(one) for one in effects]})
        return
    for one in effects:
        mean = "none" if one.mean is None else f"{one.mean:.3g}"
        others = "none" if one.others_mean is None else f"{one.others_mean:.3g}"
        out.print(
            f"{one.policy}: {one.judgements} of {one.rewards} rewards judged by {act.source}; mean quality {mean}, of all others {others}",
            markup=False, highlight=False,
        )  # fmt: skip
        print_rows(
            ["arm", "probability now", "then"],
            [[arm, *pair] for arm, pair in one.arms.items()],
            as_json=False,
            title="arms at the average context, those that change most",
        )
    out.print(diff or "the file would stay as it is", markup=False, highlight=False)
