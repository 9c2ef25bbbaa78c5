"""What a policies file would change, before it does, and the change itself: `steersman plan` and `steersman apply`."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

import typer

from console.brokers import require_broker
from console.life.plan import REFUSED, UNCHANGED, Planned, foresee
from console.output import err, out, print_json
from console.target import Target
from learners.policies import Policies
from learners.policies_file import load_policies
from steersman.errors import ConfigError
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.held_learner import split_key
from streams.ledger import STATE_KEY as LEDGER_KEY
from streams.state import read_state
from streams.topics import existing_partitions

OK, NOT_ALL = 0, 4


def show(target: Target, candidate: Path, running: Path, *, as_json: bool) -> int:
    """Print what a candidate would change; returns 0, or 4 when something is refused."""
    found = planned(target, candidate, running)
    _print(found, as_json=as_json)
    return NOT_ALL if any(one.effect == REFUSED for one in found) else OK


def put_in_place(target: Target, candidate: Path, running: Path, *, yes: bool, as_json: bool) -> int:
    """Print the plan and put the candidate in the place of what runs; returns 0, or 4 when something is refused or nobody agrees."""
    found = planned(target, candidate, running)
    _print(found, as_json=as_json)
    if any(one.effect == REFUSED for one in found):
        err.print("nothing was changed: the plan is refused in part", highlight=False)
        return NOT_ALL
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nobody is there to agree to the plan: say --yes")
        if not typer.confirm(f"put it in the place of {running}?", err=True):
            return NOT_ALL
    replace_file(candidate, running)
    err.print(f"{running} is replaced; workers look at it four times a second", markup=False, highlight=False)
    return OK


def planned(target: Target, candidate: Path, running: Path) -> list[Planned]:
    """Say what a candidate would change against what runs.

    Raises
    ------
    ConfigError
        When the candidate cannot be used: file, line and key.
    Unreachable
        When no broker answers.
    """
    wanted = load_policies(candidate)
    now: Policies | None = None
    try:
        now = load_policies(running)
    except ConfigError as error:
        err.print(
            f"what runs is told by the saved learners alone, for its file cannot be read: {error}",
            markup=False,
            highlight=False,
        )
    require_broker(target.brokers)
    return foresee(now, wanted, _saved(target))


def _saved(target: Target) -> dict[str, bytes]:
    """State of every learner by policy key."""
    topics = Topics(target.prefix)
    counts = existing_partitions(KafkaAdmin(target.brokers), target.brokers)
    found: dict[str, bytes] = {}
    for partition in range(counts.get(topics.state, 0)):
        for item, value in read_state(target.brokers, topics.state, "learn", partition).items.items():
            key, old = split_key(item)
            if old is None and item != LEDGER_KEY and "#" not in key and value.startswith(b"SLRN"):
                found[key] = value
    return found


def replace_file(source: Path, target: Path) -> None:
    """Put a file's content in the place of another file, so that whoever reads it sees the old or the new one, never a part.

    Raises
    ------
    ConfigError
        When that cannot be written.
    """
    target = target.resolve()  # a link stays a link
    try:
        content = source.read_bytes()
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{target} cannot be replaced: {error.strerror or error}") from error


def _print(found: list[Planned], *, as_json: bool) -> None:
    if as_json:
        for one in found:
            print_json(one.to_json())
        return
    for one in found:
        where = f" (epoch {one.epoch}, version {one.version})" if one.epoch >= 0 else ""
        out.print(
            f"{one.policy}{where}: {one.effect}",
            style="red" if one.effect == REFUSED else "",
            markup=False,
            highlight=False,
        )
        for line in one.changes:
            out.print(f"  {line}", markup=False, highlight=False)
        if one.keeps and one.effect != UNCHANGED:
            out.print(f"  keeps: {one.keeps}", markup=False, highlight=False)
    changed = sum(one.effect != UNCHANGED for one in found)
    out.print(f"{changed} of {len(found)} policies change" if changed else "nothing changes", highlight=False)
