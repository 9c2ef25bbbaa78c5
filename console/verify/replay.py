"""Every policy of the policies file learned again from the reward topic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from console.rebuild import rebuild_policy
from console.relearn import LogCut
from console.target import Target
from console.verify.policies import Hashes, Replayed
from learners.policies_file import load_policies
from steersman.errors import SteersmanError


def replay_policies(target: Target, policies: Path, progress: Callable[[str], None]) -> list[Replayed]:
    """Rebuild every policy and compare.

    Raises
    ------
    ConfigError
        When the policies file cannot be read.
    """
    return list(_replay(target, policies, progress))


def _replay(target: Target, policies: Path, progress: Callable[[str], None]) -> Iterator[Replayed]:
    for spec in load_policies(policies):
        progress(f"replaying the rewards of {spec.key}")
        try:
            rebuilt = rebuild_policy(target, spec, policies)
        except LogCut as error:
            yield Replayed(spec.key, cut=str(error))
        except SteersmanError as error:
            yield Replayed(spec.key, problem=str(error))
        else:
            yield Replayed(spec.key, [Hashes(one.what, one.found, one.rebuilt) for one in rebuilt.compared])
