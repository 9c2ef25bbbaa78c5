from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steersman.arms import ArmSpace
from steersman.codec import Codec
from steersman.errors import SnapshotError
from steersman.features import Categorical, FeatureSpec, Text
from steersman.layout import make_layout
from steersman.scoring import Scorer
from steersman.snapshot import COVARIANCE, HEADS, SECOND_LOOK, Multiplier, PolicySnapshot, Source, Term


def snapshot() -> PolicySnapshot:
    arms = ArmSpace({"model": ["s", "l"], "k": [1, 2.5], "on": [True, False]}, [{"model": "s", "k": 2.5}])
    features = FeatureSpec(features=(Categorical(name="c", values=("x", "y")), Text(name="t", dim=4)))
    layout = make_layout(arms, features)
    rng = np.random.default_rng(0)
    tensors = {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    tensors[COVARIANCE] = np.eye(layout.arm_size, dtype=np.float32)[np.tril_indices(layout.arm_size)]
    return PolicySnapshot(
        tenant="acme",
        policy="research/retrieval",
        epoch=2,
        version=41,
        arms=arms,
        features=features,
        baseline=arms.labels[1],
        tensors=tensors,
        objective=(Term("quality", 1.0, 1.0), Term("cost", -0.5, 1e4)),
        reward_spec="00ff00ff00ff00ff",
        created_at=1_700_000_000_000_000,
        multipliers=(Multiplier("cost", 0.1),),
        applied_n=41,
        applied_hash=-(2**63),
        applied_sources=(Source(0, 12, 1), Source(3, 99, 0)),
        not_after=1_800_000_000_000_000,
        signature=b"\x01\x02",
    )


def test_round_trip_through_avro_scores_the_same_bits() -> None:
    codec = Codec("policy_snapshot")
    before = snapshot()
    after = PolicySnapshot.from_record(codec.decode(codec.encode(before.to_record())))
    assert after.to_record() == before.to_record()
    assert after.key == "acme/research/retrieval"
    x = before.features.encode({"c": "y", "t": "hello there"})
    for one, two in zip(Scorer(before).score(x), Scorer(after).score(x), strict=True):
        np.testing.assert_array_equal(one, two)


def test_tensors_cannot_be_changed() -> None:
    made = snapshot()
    with pytest.raises(ValueError, match="read-only"):
        made.tensors["weights.cost"][0] = 1
    with pytest.raises(TypeError):
        made.tensors["x"] = made.tensors["weights.cost"]  # type: ignore[index]


def tensor(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(t for t in record["tensors"] if t["name"] == name)


def set_nan(record: dict[str, Any]) -> None:
    t = tensor(record, "weights.quality")
    t["data"] = b"\x00\x00\xc0\x7f" + t["data"][4:]


BREAK: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not finite": set_nan,
    "bytes are not": lambda r: tensor(r, "weights.cost").update(data=b"123"),
    "of shape": lambda r: tensor(r, "weights.cost").update(shape=[1], data=b"1234"),
    "missing": lambda r: r["tensors"].pop(),
    "occurs twice": lambda r: r["tensors"].append(r["tensors"][0]),
    "baseline": lambda r: r.update(baseline="model=x"),
    "stage": lambda r: r.update(stage="WHAT"),
    "exploration": lambda r: r.update(exploration="luck"),
    "exploration_scale": lambda r: r.update(exploration_scale=float("inf")),
    "floor": lambda r: r.update(floor=1.5),
    "hex": lambda r: r.update(reward_spec="xyz"),
    "scales": lambda r: r["objective"][0].update(scale=0.0),
    "components": lambda r: r["objective"][0].update(component="joy"),
    "ceil|limits": lambda r: r["multipliers"][0].update(component="latency"),
    "negative": lambda r: r.update(version=-1),
    "multipliers": lambda r: r["multipliers"][0].update(value=-1.0),
    "cannot be read": lambda r: r.update(feature_spec="{"),
    "JSONDecodeError": lambda r: r["knobs"][0].update(levels=["{"]),
    "KeyError": lambda r: r.pop("knobs"),
    "lists a partition": lambda r: r["applied_sources"].append(r["applied_sources"][0]),
}


@pytest.mark.parametrize("word", BREAK)
def test_broken_records_are_refused(word: str) -> None:
    record = snapshot().to_record()
    BREAK[word](record)
    with pytest.raises(SnapshotError, match=word):
        PolicySnapshot.from_record(record)


def test_weights_of_the_second_look_are_one_for_each_arm_and_not_negative() -> None:
    fine = snapshot()
    looks = np.full(len(fine.arms), 0.01, np.float32)
    made = replace(fine, tensors={**fine.tensors, SECOND_LOOK: looks})
    assert PolicySnapshot.from_record(made.to_record()).tensors[SECOND_LOOK].tolist() == looks.tolist()
    for wrong in (looks[1:], -looks):
        with pytest.raises(SnapshotError, match=SECOND_LOOK):
            replace(fine, tensors={**fine.tensors, SECOND_LOOK: wrong})


def test_replace_checks_again() -> None:
    with pytest.raises(SnapshotError, match="acme/research/retrieval v-3"):
        replace(snapshot(), version=-3)
