"""What is known of levels becomes a table that a policies file takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.main import app
from console.prior import evaluated, learned, toml_of
from learners.policies_file import parse_policies
from learners.prior_spec import PriorSpec
from steersman.errors import ConfigError
from steersman.held import Held
from steersman.scoring import Scorer
from tests.learners.test_declared import ARMS, TOLD, taught

EVALUATION = """prompt,model,quality,cost_micro_usd
1,small,0.5,100
1,large 2,0.9,
2,small,0.7,120
2,large 2,1.0,2000
3,small,,140
"""
POLICY = """
[[policy]]
name = "p"
baseline = { model = "small" }
[policy.knobs]
model = ["small", "large 2"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "evals.csv"
    path.write_text(text)
    return path


def test_an_evaluation_becomes_a_table_that_a_policies_file_takes(tmp_path: Path) -> None:
    path = written(tmp_path, EVALUATION)
    prior = evaluated(path, "model", None)
    assert prior.events == 2.0
    assert prior.quality == {"model": {"small": pytest.approx(0.6), "large 2": pytest.approx(0.95)}}
    assert prior.cost_micro_usd == {"model": {"small": 120.0, "large 2": 2000.0}}
    assert not prior.latency_us
    printed = CliRunner().invoke(app, ["policy", "prior", "--file", str(path), "--events", "7"])
    assert printed.exit_code == 0
    spec = parse_policies(POLICY + printed.stdout).get("default", "p")
    assert spec is not None
    assert spec.prior == prior.model_copy(update={"events": 7.0})
    as_json = CliRunner().invoke(app, ["policy", "prior", "--file", str(path), "--json"])
    assert PriorSpec(**json.loads(as_json.stdout)) == prior


def test_what_one_policy_has_learned_another_starts_from() -> None:
    learner = taught(TOLD, 600)
    snapshot = learner.snapshot(0)
    prior = learned(Held(snapshot, Scorer(snapshot), 0), None)
    assert prior.events == 20.0
    expected = Scorer(snapshot).components(snapshot.features.encode({}))
    for knob, levels in ARMS.knobs.items():
        for i, level in enumerate(levels):
            mask = ARMS.levels[:, list(ARMS.knobs).index(knob)] == i
            assert prior.quality[knob][str(level)] == pytest.approx(expected.quality[mask].mean(), rel=1e-6)
            assert prior.cost_micro_usd[knob][str(level)] == pytest.approx(expected.cost[mask].mean(), rel=1e-6)
    text = (
        '[[policy]]\nname = "q"\nbaseline = { model = "l", k = 8 }\n[policy.knobs]\nmodel = ["s", "m", "l"]\nk = [2, 8]\n'
        + toml_of(prior, "what p had learned")
    )
    spec = parse_policies(text).get("default", "q")
    assert spec is not None
    assert spec.prior is not None
    assert spec.prior.quality["k"]["8"] == pytest.approx(prior.quality["k"]["8"], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt,quality\n1,0.5\n", ["no column 'model'"]),
        ("model,quality\nsmall,0.5\nsmall,0.6\n", ["qualities of 1 levels", "two at least"]),
        ("model,quality\nsmall,0.5\nlarge,good\n", ["evals.csv:3", "quality", "'good'"]),
        ("model,quality,cost_micro_usd\nsmall,0.5,-1\nlarge,1,2\n", ["evals.csv:2", "cost_micro_usd", "no amount"]),
        ("model,quality\nsmall,nan\nlarge,1\n", ["evals.csv:2", "no number"]),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluated(written(tmp_path, text), "model", None)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_it_asks_for_one_source() -> None:
    assert CliRunner().invoke(app, ["policy", "prior"]).exit_code == 2
    assert CliRunner().invoke(app, ["policy", "prior", "p", "--file", "x.csv"]).exit_code == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        evaluated(Path("nowhere.csv"), "model", None)
