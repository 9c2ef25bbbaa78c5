"""What another policies file would change, told by doing to copies of the learners what a worker would do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from learners import state
from learners.operated import standing_in
from learners.policies import Policies
from learners.registry import make_learner, restore_learner
from learners.revision import settings_of
from learners.spec import PolicySpec
from steersman.arms import ArmSpace, level_text
from steersman.errors import ConfigError

UNCHANGED, LIVE, NEW, EPOCH, STAYS, REFUSED = (
    "unchanged",
    "live at once",
    "new policy",
    "new epoch",
    "goes on",
    "refused",
)
ANSWERS: Final = (UNCHANGED, LIVE, NEW, EPOCH, STAYS, REFUSED)


@dataclass(frozen=True)
class Planned:
    """What becomes of a policy.

    Attributes
    ----------
    policy
        Its key.
    effect
        One of `ANSWERS`.
    epoch, version
        Where its learner is now, -1 without one.
    changes
        What changes, in words.
    keeps
        What of the learning stays, in words.
    """

    policy: str
    effect: str
    epoch: int = -1
    version: int = -1
    changes: list[str] = field(default_factory=list)
    keeps: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self)


def foresee(running: Policies | None, candidate: Policies, saved: Mapping[str, bytes]) -> list[Planned]:
    """Say what a candidate would do to each policy.

    Parameters
    ----------
    running
        What the workers' file says now, None where that is not known.
    candidate
        What it is to say.
    saved
        Saved state of learners by policy key; that of the sum of a policy in shards.

    Returns
    -------
    list of Planned
        In the order of the candidate, then those that it lacks.
    """
    found = [
        _one(spec, None if running is None else running.by_key(spec.key), saved.get(spec.key)) for spec in candidate
    ]
    known = {spec.key for spec in candidate}
    left = (set(saved) | {spec.key for spec in running or ()}) - known
    for key in sorted(left):
        note = "it is no longer in the file: its rewards are learned until the workers start again, its last policy stays published"
        found.append(Planned(key, STAYS, changes=[note + "; retire it to take agents to their baseline"]))
    return found


def _one(spec: PolicySpec, running: PolicySpec | None, data: bytes | None) -> Planned:
    try:
        make_learner(spec)
    except ConfigError as error:
        return Planned(spec.key, REFUSED, changes=[str(error)])
    if data is None:
        start = (
            "live, as the baseline with a little exploration"
            if spec.guard is None
            else f"in {spec.guard.start}, under its guard"
        )
        return Planned(
            spec.key, NEW, changes=[f"{len(spec.arms)} arms; it begins {start}"], keeps="nothing is saved of it"
        )
    origin, header, _ = state.unpack(data)
    at = (spec.key, origin.epoch, origin.version)
    if origin.lineage == spec.lineage:
        return _settings(spec, at, header)
    why = list(_lineage(spec, running, header))
    if max(spec.shards, running.shards if running is not None else 1) > 1:
        refusal = "it is learned in shards: arms, features, components and shards change when all workers start again"
        return Planned(at[0], REFUSED, at[1], at[2], [refusal, *why], "until then everything")
    return _epoch(spec, at, header, data, why)


def _settings(spec: PolicySpec, at: tuple[str, int, int], header: Mapping[str, Any]) -> Planned:
    key, epoch, version = at
    if "control" not in header:
        return Planned(
            key,
            LIVE,
            epoch,
            version,
            ["its state is of an earlier version and does not say its settings"],
            "everything",
        )
    before, after = header["control"]["revisions"][-1][1], settings_of(spec)
    changes = list(differing(before, after))
    if not changes:
        return Planned(key, UNCHANGED, epoch, version, [], "everything")
    guard, then = before.get("guard"), after["guard"]
    if guard is not None and then is not None:
        if {**guard, "freeze": 0} != {**then, "freeze": 0}:
            changes.append(f"its guard begins anew, in {then['start']}")
        elif any(before[name] != after[name] for name in ("weights", "baseline")):
            changes.append("its guard stays in its stage and begins the comparison anew")
    if before["prices"] != after["prices"]:
        changes.append("what was learned of costs is rescaled to the new prices")
    return Planned(key, LIVE, epoch, version, changes, "everything")


def _epoch(
    spec: PolicySpec, at: tuple[str, int, int], header: Mapping[str, Any], data: bytes, why: list[str]
) -> Planned:
    key, epoch, version = at
    learner: Any = restore_learner(spec, data)
    inherited = learner.inherited
    keeps = "nothing: sums of other features, components or another learner mean something else"
    if len(inherited):
        old = ArmSpace.from_record(header["arms"])
        stay = [label for label in spec.arms.labels if label in old]
        begun = int((inherited[:, :, -1].sum(axis=1) > 0).sum()) - len(stay)
        keeps = f"what was learned of the {len(stay)} arms that stay"
        if begun > 0:
            keeps += f"; {begun} new arms begin with a few events' worth of their neighbours"
        lost = len(old) - len(stay)
        keeps += f"; {lost} arms take what was learned of them along" if lost else ""
    standing, _ = standing_in(data)
    if standing.pin is not None:
        why.append(
            f"its pin to {standing.pin.epoch}.{standing.pin.version} ends: that version has other arms or features"
        )
    if standing.retired or standing.frozen:
        why.append(f"it stays {standing.word()}")
    if spec.guard is not None:
        why.append(f"its guard begins anew, in {spec.guard.start}")
    return Planned(key, EPOCH, epoch, version, [f"epoch {learner.epoch} begins", *why], keeps)


def _lineage(spec: PolicySpec, running: PolicySpec | None, header: Mapping[str, Any]) -> Iterator[str]:
    """What of the lineage changes, as far as the saved state and the running file tell."""
    old = ArmSpace.from_record(header["arms"])
    for knob in {**old.knobs, **spec.arms.knobs}:
        was, becomes = ([level_text(level) for level in arms.knobs.get(knob, ())] for arms in (old, spec.arms))
        if not was or not becomes:
            yield f"knob {knob} {'is gone' if was else 'is new'}"
            continue
        yield from (f"{knob}: {level} is new" for level in becomes if level not in was)
        yield from (f"{knob}: {level} is gone" for level in was if level not in becomes)
        if was != becomes and sorted(was) == sorted(becomes):
            yield f"{knob}: its levels are in another order"
    if old.to_record()["forbidden"] != spec.arms.to_record()["forbidden"]:
        yield "other combinations are forbidden"
    if running is None:
        if header.get("columns") != spec.columns:
            yield "features, reward components, peers or the learner are others"
        return
    if running.features != spec.features:
        yield "features: " + ", ".join(
            sorted({one.name for one in running.features.features} ^ {one.name for one in spec.features.features})
            or ["other settings"]
        )
    if running.reward_hash != spec.reward_hash:
        yield "what a reward is: " + ", ".join(
            differing(running.reward.model_dump(mode="json"), spec.reward.model_dump(mode="json"))
        )
    if running.learned_by != spec.learned_by:
        yield f"learner {running.learned_by} -> {spec.learned_by}"


def differing(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Name what differs between two JSON-ready values, with both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            yield from differing(before.get(name), after.get(name), f"{at}.{name}" if at else name)
    elif before != after:
        yield f"{at} {_text(before)} -> {_text(after)}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_text(one)}" for name, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
