"""The ``[detectors]`` table and the penalties of a reward spec."""

from __future__ import annotations

import pytest

from learners.detector_settings import DetectorSettings
from learners.policies_file import parse_policies
from learners.spec import RewardSpec, Weights
from steersman.errors import ConfigError

POLICY = """
[[policy]]
name = "p"
baseline = { a = 1 }
[policy.knobs]
a = [1, 2]
"""


def test_defaults_and_a_table() -> None:
    assert parse_policies(POLICY).detectors == DetectorSettings()
    found = parse_policies(POLICY + '[detectors]\noff = ["ping_pong"]\n[detectors.tool_loop]\nrepeats = 7\n').detectors
    assert (found.off, found.tool_loop.repeats, found.tool_loop.most) == (["ping_pong"], 7, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[detectors]\noff = ["loops"]\n', r"f\.toml:8: detectors\.off"),
        ("[detectors.tool_loop]\nrepeats = 1\n", r"f\.toml:8: detectors\.tool_loop\.repeats"),
        ("[detectors]\ncolour = 1\n", r"f\.toml:8: detectors\.colour: unknown key"),
        ("[detectors.behaviour_drift]\nslack = inf\n", r"detectors\.behaviour_drift\.slack"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_policies(POLICY + text, "f.toml")


def test_penalties_belong_to_the_lineage_and_need_a_weight() -> None:
    plain = RewardSpec(weights=Weights(failures=1.0))
    assert plain.model_copy(update={"penalties": []}).hash == plain.hash
    some = RewardSpec(weights=Weights(failures=1.0), penalties=["tool_loop", "runaway"])
    assert some.hash != plain.hash
    assert some.hash == RewardSpec(weights=Weights(failures=1.0), penalties=["runaway", "tool_loop", "runaway"]).hash
    with pytest.raises(ConfigError, match=r"reward\.penalties: penalties count as failures"):
        parse_policies(POLICY + '[policy.reward]\npenalties = ["tool_loop"]\n')
    with pytest.raises(ConfigError, match=r"reward\.penalties"):
        parse_policies(POLICY + '[policy.reward]\npenalties = ["behaviour_drift"]\nweights = { failures = 1.0 }\n')
