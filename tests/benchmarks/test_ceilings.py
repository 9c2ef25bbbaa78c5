"""What the benchmark of ceilings measures at length is measured right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ceilings import Case, Kept, costs, kept, missed, ours, tenants
from benchmarks.pacing_bound import HORIZONS, MARGINS, Known, Setting, controlled
from benchmarks.worlds import World
from learners import pacing
from learners.spec import PolicySpec
from steersman.arms import ArmSpace
from steersman.features import Categorical, FeatureSpec


def test_a_window_over_the_ceiling_is_told_from_one_below() -> None:
    arms, priced = np.zeros(2000, dtype=np.int64), np.ones(2000, dtype=np.bool_)
    quality = np.ones((2000, 3))
    use = np.ones((2000, 3))
    use[:1300] = 1.5
    found = kept(quality, use, 1.0, arms, priced)
    assert found.worst == found.over == pytest.approx(0.35)
    assert found.mean == pytest.approx((700 * 1.5 + 700) / 1400)
    assert found.inside == found.below == 0.0
    below = kept(quality, use / 1.5, 1.0, arms, priced)
    assert (below.over, below.below) == (0.0, 1.0)
    assert below.worst > 0.2
    exact = kept(quality, np.ones_like(use), 1.0, arms, priced)
    free = kept(quality, use / 1.5, 1.0, arms, ~priced)
    assert (free.worst, free.inside, free.binds) == (0.0, 1.0, 0.0), (
        "a ceiling that does not bind is not missed from below"
    )
    assert kept(quality, use, 1.0, arms, ~priced).worst == found.worst
    assert (exact.mean, exact.worst, exact.inside, exact.scatter) == (1.0, 0.0, 1.0, 0.0)


def test_whose_a_request_is() -> None:
    run, whose = tenants(1, 40, {"standard": 5000.0})
    at = run.world.spec.features.column("tier")
    assert (run.world.x[whose == "standard", at] == 1.0).all()
    assert (run.world.x[whose == "enterprise", at + 1] == 1.0).all()


@pytest.mark.parametrize(("noise", "least"), [(0.05, 1.0), (1.0, 0.0)])
def test_the_best_controller_keeps_every_window_where_uses_hardly_scatter(noise: float, least: float) -> None:
    rng = np.random.default_rng(4)
    n = 3000
    quality = np.array([0.2, 0.5, 0.6]) + 0.1 * rng.standard_normal((n, 3))
    use = np.tile([0.2, 0.8, 1.6], (n, 1))
    used = use * np.exp(noise * rng.standard_normal((n, 3)) - noise**2 / 2)
    priced = np.ones(n, dtype=np.bool_)
    made = [kept(quality, used, 1.0, one, priced) for one in controlled(Known(quality, use, used), 10, 10, 1)]
    assert len(made) == len(HORIZONS) * len(MARGINS)
    inside = max(one.inside for one in made[: len(HORIZONS)])
    means = np.array([one.mean for one in made]).reshape(len(MARGINS), len(HORIZONS))
    np.testing.assert_allclose(means[:, 1], 1.0 - np.array(MARGINS), atol=0.01)
    assert max(one.below for one in made) == 1.0, "who stays below far enough keeps every window"
    assert least <= inside
    assert inside < 0.9 or least == 1.0, "noise is what it cannot know"
    assert max(one.gain for one in made) > 0.02


def steep(seed: int, n: int) -> World:
    """Two arms just below the ceiling of 100, the cheaper of which fails, and one far above it that is hardly better."""
    arms = ArmSpace({"model": ("bad", "good", "dear")})
    features = FeatureSpec(features=(Categorical(name="kind", values=("a", "b")),))
    spec = PolicySpec("default", "bench/steep", arms, "model=good", features)
    rng = np.random.default_rng(seed)
    quality = (rng.random((n, 3)) < (0.2, 0.9, 0.97)).astype(np.float64)
    cost = np.array([5.0, 80.0, 600.0]) * np.exp(0.3 * rng.standard_normal((n, 3)) - 0.045)
    x = np.stack([features.encode({"kind": "ab"[one]}) for one in rng.integers(2, size=n)])
    return World("steep", spec, x, quality, cost, np.zeros((n, 3)))


def test_what_was_overspent_is_not_paid_back_at_any_price(monkeypatch: pytest.MonkeyPatch) -> None:
    def played(haste: float) -> tuple[Kept, float]:
        monkeypatch.setattr(pacing, "HASTE", haste)
        run = costs(steep(1, 2000), 100.0, 10, 10, 1)
        case = Case("steep", run, run.world.cost, 100.0, np.arange(2000), 1)
        return ours(case), float(np.mean(np.array(run.arms[600:]) == 0))

    haste = pacing.HASTE
    swung, bad = played(np.inf)
    found, less = played(haste)
    assert less < 0.5 * bad, (less, bad)
    assert found.gain > swung.gain
    assert found.over <= max(swung.over, 0.01)


def test_who_shuns_scatter_stays_nearer_and_who_is_told_of_decisions_too() -> None:
    rng = np.random.default_rng(4)
    n = 3000
    quality = np.array([0.2, 0.5, 0.75]) + 0.1 * rng.standard_normal((n, 3))
    use = np.tile([0.1, 1.0, 4.0], (n, 1))
    used = use * np.exp(0.05 * rng.standard_normal((n, 3)))
    settings = [Setting(0.0, 10.0), Setting(0.0, 10.0, 0.0, True), Setting(0.0, 10.0, 100.0)]
    made = controlled(Known(quality, use, used), 10, 40, 1, settings)
    priced, hears, shuns = (kept(quality, used, 1.0, one, np.ones(n, dtype=np.bool_)) for one in made)
    assert priced.inside < hears.inside <= 1.0
    assert (shuns.inside, shuns.worst < 0.01) == (1.0, True)
    assert shuns.scatter < 0.3 * priced.scatter
    assert shuns.gain < priced.gain, "nearness is paid for with quality"


def test_what_is_not_as_the_manual_says_is_named() -> None:
    good = Kept(0.99, 0.02, 0.02, 0.75, 1.0, 0.02, 1.0, 1.0)
    assert not list(missed("fleet", [good]))
    bad = good._replace(mean=1.05, gain=-0.1, below=0.3)
    assert len(list(missed("fleet", [bad, good]))) == 3
    assert not list(missed("paretobandit", [bad])), "where single calls use many ceilings nobody keeps windows"
