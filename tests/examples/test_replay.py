"""The loaders of routing data, the policy made for them, and what a replay is compared with."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from examples.replay.__main__ import main, play
from examples.replay.dataset import UNIT_MICRO_USD, Dataset, load
from examples.replay.policy import context_of, policy_name, policy_toml
from examples.replay.score import score
from learners.policies_file import load_policies, parse_policies
from learners.policy_learner import PolicyLearner
from steersman import ConfigError, MemorySink, Router, StaticPolicies, Tracer

ROOT = Path(__file__).resolve().parents[2]

CSV = """query_id,domain,prompt_chars,prompt,q:small,cost_usd:small,q:big,cost_usd:big,e0,e1
a,math/easy,10,one,0.5,0.00001,1,0.01,0.1,-0.2
b,math/hard,20,two,0.0,0.00001,1,0.02,0.3,0.4
c,text,30,three,1.0,0.00002,1,,0.5,0.6
d,text,,four,1.0,0.00002,0.5,0.01,0.7,0.8
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    return path


def test_default_data_is_found_inside_the_package_without_importing_it() -> None:
    dataset = load()
    assert dataset.quality.shape == dataset.cost_micro_usd.shape == (3609, 3)
    assert dataset.quality.min() >= 0
    assert dataset.quality.max() <= 1
    assert (dataset.cost_micro_usd > 0).all()
    assert len(dataset.domains) == 9
    assert dataset.price == 5.0


def test_csv_rows_with_gaps_are_left_out(table: Path) -> None:
    dataset = load(str(table))
    assert (dataset.name, dataset.arms, dataset.embedding_dim) == ("table", ("small", "big"), 2)
    assert dataset.quality.tolist() == [[0.5, 1.0], [0.0, 1.0], [1.0, 0.5]]
    assert dataset.cost_micro_usd.tolist() == [[10, 10_000], [10, 20_000], [20, 10_000]]
    assert dataset.domains == ("math", "text")  # rare ones merge into their family
    assert dataset.contexts[2]["chars"] == len("four")
    np.testing.assert_allclose(dataset.utility[0], [0.5 - 5e-5, 1 - 0.05])


def test_compressed_csv_and_calls_priced_in_units(tmp_path: Path) -> None:
    path = tmp_path / "units.csv.gz"
    with gzip.open(path, "wt") as out:
        out.write("query_id,domain,q:weak,q:strong\n1,x,0,1\n2,x,1,1\n")
    dataset = load(str(path))
    assert dataset.name == "units"
    assert dataset.cost_micro_usd.tolist() == [[0, UNIT_MICRO_USD]] * 2
    np.testing.assert_allclose(dataset.utility, [[0, 0.9], [1, 0.9]])


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "q:one\n1\n", "q:one,q:two\nx,1\n"])
def test_unusable_files_are_refused_with_their_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.csv"):
        load(str(path))
    with pytest.raises(ConfigError, match=r"none\.csv"):
        load(str(tmp_path / "none.csv"))


def test_order_is_seeded(table: Path) -> None:
    dataset = load()
    one, other = dataset.shuffled(1), dataset.shuffled(2)
    assert (one.quality == dataset.shuffled(1).quality).all()
    assert (one.quality != other.quality).any()
    assert sorted(one.quality[:, 0]) == sorted(dataset.quality[:, 0])
    assert len(dataset.shuffled(1, 10).contexts) == 10


def test_policies_file_holds_the_policy_of_the_default_data() -> None:
    dataset = load()
    (made,) = parse_policies(policy_toml(dataset))
    assert made == load_policies(ROOT / "policies.toml").get("default", policy_name(dataset))


def test_policy_of_a_table_is_valid_and_reads_its_context(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(table), "--print-policy"]) == 0
    (spec,) = parse_policies(capsys.readouterr().out)
    assert spec.name == "replay/table"
    assert spec.baseline == "model=big"
    x = spec.features.encode(context_of(load(str(table)), 0))
    assert np.count_nonzero(x) == len(x) - 1  # every feature is read, one of the two domains holds
    assert main(["--data", "nowhere.csv"]) == 1
    assert "nowhere.csv" in capsys.readouterr().err


def test_score_beside_random_best_fixed_and_oracle(table: Path) -> None:
    dataset = Dataset(
        name="t",
        arms=("a", "b"),
        contexts=({"domain": "x"},) * 4,
        quality=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]),
        cost_micro_usd=np.tile([0, 100_000], (4, 1)),
        price=1.0,
    )
    result = score(dataset, np.array([0, 0, 0, 1]))
    assert result["best_fixed_model"] == "b"
    assert result["mean_reward"] == pytest.approx((1 + 0 + 1 + 0.9) / 4)
    assert result["best_fixed"] == pytest.approx((-0.1 + 0.9 + 0.9 + 0.9) / 4)
    assert result["oracle"] == pytest.approx((1 + 0.9 + 1 + 0.9) / 4)
    assert result["random"] == pytest.approx(((0.5 + 0.5 + 1 + 0.5) - 0.2) / 4)
    assert result["last_quarter"] == result["best_fixed_last_quarter"] == pytest.approx(0.9)
    assert result["shares"] == {"a": 0.75, "b": 0.25}
    json.dumps(result)
    with pytest.raises(ValueError, match="nothing"):
        score(dataset, np.array([], dtype=np.int64))


def test_only_the_chosen_outcome_is_revealed(table: Path) -> None:
    dataset = load(str(table))
    (spec,) = parse_policies(policy_toml(dataset))
    sink = MemorySink()
    tracer = Tracer("replay", sink=sink)
    router = Router(StaticPolicies([PolicyLearner(spec).snapshot(1)]), tracer, seed=5)
    chosen, modes = play(dataset, router, tracer, 0.0, threading.Event(), quiet=True)
    assert modes == {"LIVE": 3}
    kinds = [record["kind"] for record in sink.records]
    assert kinds == ["DECISION", "MODEL_CALL", "AGENT", "END", "FEEDBACK"] * 3
    for i, k in enumerate(chosen):
        decision, call, *_, feedback = sink.records[5 * i : 5 * i + 5]
        assert decision["arm"] == f"model={dataset.arms[k]}"
        assert call["cost_micro_usd"] == dataset.cost_micro_usd[i, k]
        assert feedback["value"] == dataset.quality[i, k]
        assert feedback["target_decision_id"] == decision["decision_id"]
