"""The game that learners are compared in: what they are shown, when, and what is made of it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation import runs
from benchmarks.evaluation.__main__ import PEERS, charts, main
from benchmarks.evaluation.chart import Mark, gain_chart
from benchmarks.evaluation.ours import Ours
from benchmarks.evaluation.play import Outcome, Played, X, judge, play
from benchmarks.evaluation.runs import ROOT, Run, Store, is_peer
from benchmarks.evaluation.scenario import Scenario
from benchmarks.evaluation.sets import file_of, scenario
from benchmarks.evaluation.simulated import WORLDS
from benchmarks.evaluation.summary import gain, mean_gains, paired, rows
from benchmarks.evaluation.update import updated
from learners.spec import PolicySpec, RewardSpec, Weights
from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.features import Categorical, FeatureSpec

SPEC = PolicySpec(
    "default",
    "p",
    ArmSpace({"model": ["s", "m", "l"]}),
    "model=l",
    FeatureSpec(features=(Categorical(name="c", values=("x", "y")),)),
    RewardSpec(weights=Weights(cost=1.0)),
)


def game(n: int = 8) -> Scenario:
    """Arm m is the best one, s and l are level; m costs 1000 micro-dollars, a tenth of a scale."""
    x = np.zeros((n, 3), dtype=np.float32)
    x[:, 2] = 1.0
    quality = np.tile([0.2, 0.9, 0.2], (n, 1))
    quality[0] = [1.0, 0.9, 0.0]
    return Scenario("toy", SPEC, x, quality, np.tile([0.0, 1000.0, 0.0], (n, 1)), np.zeros((n, 3)))


class Script:
    """Takes arms in turn, and notes what it is shown after how many choices."""

    def __init__(self, *arms: int) -> None:
        self.arms, self.chosen, self.shown = arms, 0, list[tuple[int, int, Outcome]]()

    def choose(self, x: X) -> tuple[int, float]:
        self.chosen += 1
        return self.arms[(self.chosen - 1) % len(self.arms)], 0.5

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        assert propensity == 0.5
        self.shown.append((self.chosen, arm, outcome))


def test_only_the_outcome_of_the_chosen_arm_is_shown() -> None:
    script = Script(0, 1)
    played = play(script, game())
    assert [(when, arm) for when, arm, _ in script.shown] == [(i + 1, i % 2) for i in range(8)]
    assert script.shown[0][2] == (1.0, 1.0, 0.0, 0.0)
    assert script.shown[1][2] == pytest.approx((0.8, 0.9, 1000.0, 0.0))
    assert played.mean_utility == pytest.approx((1.0 + 3 * 0.2 + 4 * 0.8) / 8)
    assert played.best_fixed == pytest.approx(0.8)
    assert played.oracle == pytest.approx((1.0 + 7 * 0.8) / 8)
    assert played.last_quarter == pytest.approx(0.5)
    assert played.cost_usd == pytest.approx(0.0005)


def test_late_outcomes_come_after_so_many_more_choices() -> None:
    script = Script(0, 1)
    play(script, game(), delay=3)
    assert [(when, arm) for when, arm, _ in script.shown] == [(i + 4, i % 2) for i in range(5)]


def test_drift_swaps_best_and_middle_arm_in_the_second_half() -> None:
    before, after = game(), game().drifted()
    assert (after.quality[:4] == before.quality[:4]).all()
    assert after.quality[4:].tolist() == [[0.9, 0.2, 0.2]] * 4
    assert after.cost[4:].tolist() == [[1000.0, 0.0, 0.0]] * 4
    assert after.truth is None


def test_learners_are_judged_by_expectations_where_they_are_known() -> None:
    truth = np.tile([0.1, 0.3, 0.2], (8, 1))
    played = judge(replace(game(), truth=truth), np.full(8, 2))
    assert (played.mean_utility, played.best_fixed, played.worst_two) == (
        pytest.approx(0.2),
        pytest.approx(0.3),
        1.0,
    )


def test_an_order_is_the_same_for_everyone() -> None:
    one, two, other = game().in_order(5), game().in_order(5), game().in_order(6)
    assert (one.quality == two.quality).all()
    assert not (one.quality == other.quality).all() or not (game(50).in_order(1).quality == game(50).quality).all()


@pytest.mark.parametrize("components", [True, False])
def test_ours_finds_the_best_arm(components: bool) -> None:
    ours = Ours(SPEC, "linear", seed=3, components=components)
    played = play(ours, game(400))
    assert played.last_quarter > 0.75
    assert (ours.spec.reward.weights.cost == 1.0) is components


def played(utility: float) -> Played:
    return Played(utility, utility, 0.5, 1.0, 0.9, 0.001, 0.0, 12.0, 0.1)


def results() -> dict[Run, Played]:
    made = {}
    for order, (ours, theirs) in enumerate([(0.6, 0.4), (0.7, 0.6), (0.8, 0.5)]):
        made[Run("toy", "f", "plain", "linear", order, 0)] = played(ours)
        made[Run("toy", "f", "plain", "vw greedy", order, 0)] = played(theirs)
        made[Run("other", "f", "plain", "linear", order, 0)] = played(0.5)
    return made


def test_rows_have_gain_and_standard_error() -> None:
    by_learner = {row["learner"]: row for row in rows(results()) if row["scenario"] == "toy"}
    assert by_learner["linear"]["mean_utility"] == pytest.approx(0.7)
    assert by_learner["linear"]["se"] == pytest.approx(0.1 / 3**0.5, abs=1e-5)
    assert by_learner["linear"]["gain"] == pytest.approx(0.4)
    assert by_learner["vw greedy"]["gain"] == pytest.approx(0.0)
    assert (by_learner["best fixed"]["gain"], by_learner["oracle"]["gain"]) == (0.0, 1.0)
    assert gain(replace(played(0.5), oracle=0.5)) == 0.0


def test_pairs_are_of_the_same_order() -> None:
    (pair,) = paired(results(), "linear", ["vw greedy", "absent"])
    assert (pair["difference"], pair["pairs"]) == (pytest.approx(0.4), 3)
    assert pair["se"] == pytest.approx(np.std([0.4, 0.2, 0.6], ddof=1) / 3**0.5, abs=1e-4)


def test_mean_gains_are_of_those_who_played_all_scenarios() -> None:
    best, second = mean_gains(results(), "plain", ["vw greedy", "linear"], ["toy", "absent"], "all")
    assert (best["learner"], best["mean_gain"], best["scenarios"]) == ("linear", pytest.approx(0.4), 1)
    assert second["learner"] == "vw greedy"
    (only,) = mean_gains(results(), "plain", ["vw greedy", "linear"], ["toy", "other"], "all")
    assert (only["learner"], only["mean_gain"], only["scenarios"]) == ("linear", pytest.approx(0.2), 2)
    assert mean_gains(results(), "drift", ["linear"], ["toy"], "all") == []


def test_new_rows_replace_their_own_and_what_rested_on_the_old_ones_goes() -> None:
    def results(ours: float, *learners: str) -> dict[str, list[dict[str, object]]]:
        gains = {"best fixed": 0.0, "linear": ours, "thompson": 0.1, "vw greedy": 0.2}
        made: list[dict[str, object]] = [
            {"scenario": s, "learner": name, "gain": gains[name], "us_per_round": 1.0}
            for s in ("a", "a, drift")
            for name in ("best fixed", *learners)
        ]
        means: list[dict[str, object]] = [
            {"over": "data sets", "condition": c, "learner": name, "mean_gain": gains[name], "scenarios": 2}
            for c in ("plain", "drift")
            for name in learners
        ]
        pairs: list[dict[str, object]] = [
            {"scenario": s, "learner": "linear", "peer": "vw greedy", "difference": ours - 0.2}
            for s in ("a", "a, drift")
            if {"linear", "vw greedy"} <= set(learners)
        ]
        return {"results": made, "mean_gains": means, "paired": pairs}

    before = results(0.3, "linear", "thompson", "vw greedy")
    assert updated(before, results(0.3, "linear"))["paired"] == before["paired"], "nothing has changed"
    merged = updated(before, results(0.4, "linear"))
    assert [(row["scenario"], row["learner"], row["gain"]) for row in merged["results"]] == [
        (scenario, name, value)
        for scenario in ("a", "a, drift")
        for name, value in (("best fixed", 0.0), ("linear", 0.4), ("thompson", 0.1), ("vw greedy", 0.2))
    ]
    assert merged["paired"] == []
    assert [row["learner"] for row in merged["mean_gains"]] == ["linear", "vw greedy", "thompson"] * 2
    as_before = {**results(0.3, "linear"), "mean_gains": []}
    kept = sorted(before["mean_gains"], key=str)
    assert sorted(updated(before, as_before)["mean_gains"], key=str) == kept, "played again, and nothing has changed"
    narrower = results(0.3, "linear")
    for row in narrower["mean_gains"]:
        row |= {"scenarios": 1, "mean_gain": 9.0}
    assert sorted(updated(before, narrower)["mean_gains"], key=str) == kept
    without_mean = {**results(0.4, "linear"), "mean_gains": []}
    assert [row["learner"] for row in updated(before, without_mean)["mean_gains"]] == ["vw greedy", "thompson"] * 2


def test_a_store_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "runs.jsonl"
    run = Run("fleet/retrieval", "fleet", "plain", "linear", 1, 0)
    Store(path).add(run, played(0.5))
    path.write_text(path.read_text() + '{"key": "cut of')
    assert Store(path).get(run) == played(0.5)
    assert Store(path).get(replace(run, order=2)) is None


def test_a_run_depends_on_the_code_of_its_own_learner() -> None:
    ours, peer = (Run("fleet/retrieval", "fleet", "plain", name, 1, 0).key for name in ("linear, scalar", "vw greedy"))
    assert json.loads(ours)[-1] != json.loads(peer)[-1]
    assert not is_peer("linear, scalar")
    assert is_peer("vw greedy")


def test_the_names_of_the_peers_are_those_that_there_are() -> None:
    source = (ROOT / "benchmarks" / "peers" / "routing.py").read_text()
    assert all(f'"{name}": lambda' in source for name in PEERS)
    assert source.count(": lambda k, d, seed:") == len(PEERS)


def test_charts() -> None:
    drawn = charts(
        {"results": rows(results()), "mean_gains": mean_gains(results(), "plain", ["linear"], ["toy"], "all")}
    )
    assert sorted(drawn) == ["learning-mean-all-plain.svg", "learning-other.svg", "learning-toy.svg"]
    for svg in drawn.values():
        ET.fromstring(svg)
    far = ET.fromstring(gain_chart("a < b", [Mark("far", -9.0, 0.1, False), Mark("near", 0.1, 0.0, True)]))
    circles = [float(c.get("cx", "0")) for c in far.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles[0] == 190.0 < circles[1]
    with pytest.raises(ValueError, match="nothing"):
        gain_chart("t", [])


def test_scenarios_by_name(tmp_path: Path) -> None:
    assert file_of("bfcl@2", tmp_path) is None
    assert file_of("fleet/synthesis", tmp_path) == "fleet"
    with pytest.raises(ConfigError, match="pareto_k4"):
        file_of("nonsense", tmp_path)
    fleet = scenario("fleet/retrieval", "fleet")
    assert fleet.quality.shape == (len(fleet.x), 18)
    assert fleet.truth is not None
    assert np.abs(fleet.utility.mean(axis=0) - fleet.truth.mean(axis=0)).max() < 0.003
    with pytest.raises(ConfigError, match="no price"):
        scenario("pareto_k3@dear", "paretobandit")


def test_simulated_sets_are_as_they_say(tmp_path: Path) -> None:
    for name, world in WORLDS.items():
        assert file_of(f"{name}@2", tmp_path) == "simulated"
        made = scenario(name, "simulated")
        rates, dollars = np.array(list(world.arms.values())).T
        assert made.x.shape[0] == world.requests
        np.testing.assert_allclose(made.quality.mean(axis=0), rates, atol=1.0 / world.requests)
        np.testing.assert_allclose(1e-6 * made.cost.mean(axis=0), dollars, rtol=0.25, atol=1e-6)
        np.testing.assert_array_equal(made.quality, scenario(name, "simulated").quality)
        cheap = scenario(f"{name}@0.0", "simulated")
        np.testing.assert_array_equal(cheap.utility, made.quality)
        # What a domain says of single models is little, of the request much.
        assert made.utility.max(axis=1).mean() - made.utility.mean(axis=0).max() > 0.05


CSV = "query_id,domain,q:small,cost_usd:small,q:big,cost_usd:big\n" + "".join(
    f"{i},{'xy'[i % 2]},{i % 2},0.0001,0.9,0.01\n" for i in range(40)
)


def test_from_the_command_line_to_results_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "mine.csv"
    data.write_text(CSV)
    monkeypatch.setattr(runs, "KEPT", tmp_path / "runs.jsonl")
    monkeypatch.setattr(Store.__init__, "__defaults__", (tmp_path / "runs.jsonl",))
    command = ["--scenarios", f"{data}@20", "bfcl", "--data", str(tmp_path), "--learners", "linear", "linear, scalar"]
    command += ["--close-orders", "1"]
    with pytest.raises(ConfigError, match="none of these runs"):
        main([*command, "--kept"])
    main([*command, "--orders", "2", "--jobs", "2", "--conditions", "plain", "delay", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert "bfcl: its file is not in" in said.err
    assert "8 runs, 0 of them made before" in said.err
    result = json.loads((tmp_path / "learning.json").read_text())
    row = next(r for r in result["results"] if r["learner"] == "linear")
    assert {
        "scenario",
        "learner",
        "mean_utility",
        "se",
        "gain",
        "last_quarter",
        "quality",
        "cost",
        "us_per_round",
    } <= row.keys()
    assert (tmp_path / "learning-mean-data-sets-plain.svg").exists()
    main([*command, "--orders", "2", "--conditions", "plain", "delay", "--json", "--dry", "--kept"])
    said = capsys.readouterr()
    assert json.loads(said.out)["results"] == result["results"]
    with pytest.raises(ConfigError, match="no scenario has its data"):
        main(["--scenarios", "bfcl", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--orders", "0"])
