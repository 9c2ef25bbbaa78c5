"""Equations of the policies: what the topic, the agents and the store hold, and what a replay makes again. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from console.verify.equations import LISTED, Equation


class Version(NamedTuple):
    """A version of a policy; `sha256` of its record, '' where the bytes are not at hand."""

    epoch: int
    version: int
    sha256: str = ""


NONE = Version(0, 0)
"""Before every version."""


@dataclass(frozen=True)
class PolicyRecord:
    """One record of the policy topic.

    Attributes
    ----------
    policy
        Key: tenant/policy.
    at
        The version.
    content
        What `content_of` gives of the record.
    stage
        Stage, canary share, acts of operators, revision of the settings, and rules of the release that made it: where these
        differ one version may be published again.
    """

    policy: str
    at: Version
    content: str
    stage: str = ""


_ASIDE = frozenset({"created_at", "signature", "applied_sources"})
"""Fields that may differ in two records of one version: a restart makes the same policy at another time, which the signature
covers, and may have read on since over rewards that teach nothing."""


def content_of(record: Mapping[str, Any]) -> str:
    """Return a hash of all that a policy snapshot says to agents."""
    content = sorted((name, value) for name, value in record.items() if name not in _ASIDE)
    return hashlib.sha256(repr(content).encode()).hexdigest()


class Hashes(NamedTuple):
    """SHA-256 of some bytes as they are, and as the replay of the reward topic makes them."""

    what: str
    found: str
    again: str


@dataclass(frozen=True)
class Replayed:
    """A policy and what its replay gave.

    Attributes
    ----------
    policy
        Key: tenant/policy.
    hashes
        Of its state, and of its newest record where there is one.
    problem
        Why it could not be replayed, though it should.
    cut
        Why it cannot be replayed any more: the log has lost its beginning.
    """

    policy: str
    hashes: Sequence[Hashes] = ()
    problem: str = ""
    cut: str = ""


Replay = Callable[[], Sequence[Replayed]]
"""Replays the reward topic."""


def heads(records: Iterable[PolicyRecord]) -> dict[str, Version]:
    """Return the head of each policy: of its highest (epoch, version) the last record on the topic."""
    found: dict[str, Version] = {}
    for record in records:
        held = found.get(record.policy)
        if held is None or record.at[:2] >= held[:2]:
            found[record.policy] = record.at
    return found


def due_or_newer(due: Mapping[str, Version], held: Mapping[str, Version], policy: str, head: Version) -> Version:
    """Return the version of a policy that somebody who follows a growing topic must hold.

    Parameters
    ----------
    due
        Heads when the other had time to take them up.
    held
        What it held a little later.
    policy
        Which policy.
    head
        Its head after that: what is held may be anything from the head that was due to this one.
    """
    has = held.get(policy, NONE)[:2]
    at = has if due.get(policy, NONE)[:2] <= has <= head[:2] and policy in held else head[:2]
    return Version(*at)


def compare_versions(
    identity: str, name: str, topic: Mapping[str, Version], other: Mapping[str, Version], of: str
) -> Equation:
    """Compare the topic's heads with what somebody else holds."""
    lines = [
        f"{policy}: {_text(topic.get(policy))} on the topic, {_text(other.get(policy))} in {of}"
        for policy in sorted(topic.keys() | other.keys())
        if topic.get(policy) != other.get(policy)
    ]
    return Equation(
        identity, name, {"of": "policy topic", "n": len(topic)}, {"of": of, "n": len(other)}, not lines, lines[:LISTED]
    )


def one_content_each(records: Iterable[PolicyRecord]) -> Equation:
    """Check that every record of one version says the same, whenever it was made."""
    contents: dict[tuple[str, int, int, str], set[str]] = {}
    for record in records:
        contents.setdefault((record.policy, *record.at[:2], record.stage), set()).add(record.content)
    lines = [
        f"{policy} epoch {epoch} version {version}: {len(found)} different records"
        for (policy, epoch, version, _), found in sorted(contents.items())
        if len(found) > 1
    ]
    n = sum(map(len, contents.values()))
    return Equation(
        "E6c",
        "every version of a policy has one content",
        {"of": "versions", "n": len(contents)},
        {"of": "contents", "n": n},
        not lines,
        lines[:LISTED],
    )


def compare_replay(replayed: Sequence[Replayed] | None) -> Equation:
    """Check that the replay of the reward topic gave the same bytes; None: it was not asked for."""
    name = "replaying the rewards gives the same state and policy bytes"
    if replayed is None:
        return Equation("E5", name, {"of": "learners"}, {"of": "replay"}, True, [], "not asked for")
    lines = []
    for one in replayed:
        if one.problem:
            lines.append(f"{one.policy}: {one.problem}")
        lines += [
            f"{one.policy}: {h.what} {h.found[:16]}, replayed {h.again[:16]}" for h in one.hashes if h.found != h.again
        ]
    compared = [one for one in replayed if not one.cut]
    same = sum(not one.problem and all(h.found == h.again for h in one.hashes) for one in compared)
    note = "; ".join(f"not compared: {one.policy}: {one.cut}" for one in replayed if one.cut)
    return Equation(
        "E5", name, {"of": "learners", "n": len(compared)}, {"of": "replay", "n": same}, not lines, lines[:LISTED], note
    )


def _text(version: Version | None) -> str:
    if version is None:
        return "nothing"
    return f"{version.epoch}.{version.version}" + (f" ({version.sha256[:16]})" if version.sha256 else "")
