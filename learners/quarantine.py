"""Sources of feedback that are no longer believed, and a policy learned again without them. Pure.

``[policy.reward] quarantined`` names them. The list is part of the policy's lineage: when it changes, an epoch begins, which is
the log of rewards learned again from where the old epoch began, with the same settings at the same places. What a source
in quarantine said is not believed then, now, or ever; its rewards still teach cost, latency and failures, which are measured
and not said. So a reward has the same version in the old epoch and in the new one, and counts once in each.

A source may be listed by its name, or as ``#`` and the 16 hex digits that a learner's state has for it, so that no user's name
has to be in a file (`learners.source_names`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import state
from .protocol import Learner
from .registry import make_learner
from .spec import PolicySpec


def learned_under(spec: PolicySpec, data: bytes) -> PolicySpec | None:
    """The policy as it was when a state was learned, if all that has changed since is who is in quarantine; else None.

    Parameters
    ----------
    spec : PolicySpec
        As it is now.
    data : bytes
        The state.
    """
    origin, header, _ = state.unpack(data)
    if origin.lineage == spec.lineage:
        return None
    before = with_quarantine(spec, header.get("quarantined", ()))
    return before if before.lineage == origin.lineage else None


def with_quarantine(spec: PolicySpec, sources: Iterable[str]) -> PolicySpec:
    """The policy with these sources in quarantine, and no others."""
    return replace(spec, reward=spec.reward.model_copy(update={"quarantined": tuple(sources)}))


def begin_again(spec: PolicySpec, data: bytes, *, whole: bool = True) -> Learner:
    """A learner of the next epoch that stands where a state's own began, to be taught the same log of rewards.

    What that epoch had taken over from one with other arms is left out: nobody can tell a source's part in it.

    Parameters
    ----------
    spec : PolicySpec
        The policy under the new quarantine.
    data : bytes
        The state learned under the old one.
    whole : bool
        Whether the log still has all rewards of the epoch. If not, versions are others, so settings cannot change where they
        did: the present ones hold from the start.
    """
    origin, header, _ = state.unpack(data)
    learner = make_learner(spec, origin.epoch + 1, origin.began)
    since = {"inherited": False, "wakes": False, "since": header.get("since", origin.epoch)}
    if not whole and "control" in header:
        since["control"] = {**header["control"], "revisions": [[0, header["control"]["revisions"][-1][1]]]}
    learner.repeat_settings(state.amend(data, since))  # type: ignore[attr-defined]
    return learner


def after(vector: Mapping[int, tuple[int, int]], reward: Mapping[str, Any]) -> bool:
    """Whether a reward lies behind a provenance vector in its source partition."""
    place = (reward["source_offset"], reward["seq"])
    return place > vector.get(reward["source_partition"], (-1, -1))
