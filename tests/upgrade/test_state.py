"""State written by the last release is read by this one, and the other way round: the same rewards, the same weights.

``golden/`` holds what a release wrote, for clones without its commit: ``python -m tests.upgrade.golden`` makes it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.upgrade.golden import EVENTS, FILE
from tests.upgrade.released import released_tree, stages
from tests.upgrade.stages import begun, ended

GOLDEN: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the last release."""
    return released_tree(tmp_path_factory.mktemp("released"))


def plain(value: Any) -> Any:
    """What JSON makes of it."""
    return json.loads(json.dumps(value))


def but_weights(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage made, without what snapshots believe."""
    bare = {**outputs}
    if "snapshots" in bare:
        bare["snapshots"] = [
            {name: value for name, value in one.items() if name != "tensors"} for one in bare["snapshots"]
        ]
    return bare


def said(made: Any, before: Any) -> Any:
    """What a later version says, without the fields that it has gained."""
    if isinstance(before, Mapping):
        return {key: said(made[key], value) for key, value in before.items()}
    if isinstance(before, list):
        assert len(made) == len(before)
        return [said(one, other) for one, other in zip(made, before, strict=True)]
    # The last bits of weights belong to the kind of CPU.
    return before if isinstance(before, float) and made == pytest.approx(before, rel=1e-4, abs=1e-6) else made


def test_the_fixture_shows_something() -> None:
    trace, learn = GOLDEN["trace"], GOLDEN["learn"]
    assert len(trace["state"]) > 20, "traces wait in the middle of the log"
    assert len(trace["rest"]["rewards"]) > 20
    assert len(trace["rest"]["rollups"]) > 20
    assert len(learn["state"]) >= 4, "of four policies and the ledger"
    assert {snapshot["version"] for snapshot in learn["rest"]["snapshots"]} != {0}


@pytest.mark.parametrize("stage", GOLDEN)
def test_state_of_the_last_release_is_read_as_it_was_written(stage: str) -> None:
    golden = GOLDEN[stage]
    rest = but_weights(golden["rest"])
    assert said(but_weights(plain(ended(stage, golden["records"], golden["state"]))), rest) == rest


def test_from_sums_of_the_last_release_weights_are_those_of_this_one() -> None:
    """Of the same sums releases may believe different things: `learners.exploring.RULES`."""
    records, state = GOLDEN["learn"]["records"], GOLDEN["learn"]["state"]
    own = plain(ended("learn", records, begun("learn", records)))
    assert any(snapshot["tensors"] for snapshot in own["snapshots"])
    assert said(plain(ended("learn", records, state)), own) == own


def test_state_of_this_version_is_read_by_the_last_release(tree: Path) -> None:
    asked = {
        stage: {"records": golden["records"], "state": begun(stage, golden["records"])}
        for stage, golden in GOLDEN.items()
    }
    answered = stages(tree, asked)
    for stage, golden in GOLDEN.items():
        assert said(answered[stage], golden["rest"]) == golden["rest"]


def test_the_fixture_is_what_the_last_release_writes(tree: Path) -> None:
    now = stages(tree, {"count": EVENTS})
    for stage, golden in GOLDEN.items():
        assert now[stage]["records"] == golden["records"]
        assert now[stage]["state"] == golden["state"]
        assert said(now[stage]["rest"], golden["rest"]) == golden["rest"]
