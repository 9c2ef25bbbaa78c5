"""What differs between two versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from learners.difference import difference
from steersman.arms import ArmSpace
from steersman.held import Held
from steersman.scoring import Scorer
from steersman.snapshot import PolicySnapshot, Term
from tests.page.policies import held


def ready(snapshot: PolicySnapshot) -> Held:
    return Held(snapshot, Scorer(snapshot), 0)


def test_settings_weights_and_arms() -> None:
    old = held()
    weights = old.snapshot.tensors["weights.quality"].copy()
    at = old.snapshot.layout.dim + 1  # of the first level, its second column
    weights[at] += 2.0
    tensors = {**old.snapshot.tensors, "weights.quality": weights}
    objective = (Term("quality", 2.0, 1.0), old.snapshot.objective[1])
    new = ready(replace(old.snapshot, version=191, tensors=tensors, floor=0.5, objective=objective))
    found = difference(old, new)
    assert {c.what: (c.old, c.new) for c in found.settings} == {
        "version": (190, 191), "floor": (0.02, 0.5), "weight.quality": (1.0, 2.0),
    }  # fmt: skip
    [weight] = found.weights
    assert (weight.component, weight.knob, weight.level, weight.feature) == ("quality", "model", "small", "kind = a")
    assert np.isclose(weight.new - weight.old, 2.0)
    assert [a.arm for a in found.arms] != []
    for arm in found.arms:
        assert arm.probability[0] is not None
    assert sum(a.probability[1] or 0.0 for a in found.arms) == 1.0 or np.isclose(
        sum(a.probability[1] or 0.0 for a in found.arms), 1.0
    )
    assert [c.what for c in found.levels] == ["model = small", "model = large", "k = 1", "k = 2"]


def test_the_same_version_has_no_differences() -> None:
    found = difference(held(), held())
    assert (found.settings, found.weights, found.note) == ([], [], "")


def test_arms_that_come_and_go() -> None:
    old = held(small=True)
    arms = ArmSpace({"model": ["small", "huge"]})
    new = ready(replace(old.snapshot, arms=arms, baseline=arms.labels[0]))
    found = difference(old, new)
    assert found.weights == []
    assert "do not compare" in found.note
    by_arm = {a.arm: a for a in found.arms}
    assert by_arm["model=large"].probability[1] is None
    assert by_arm["model=huge"].probability[0] is None
