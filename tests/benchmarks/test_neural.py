from __future__ import annotations

import pytest

from benchmarks.neural import SCENARIOS, _scenario, play


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_play_repeats_and_learns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, steps = _scenario(name, SCENARIOS[name])
    monkeypatch.setattr("benchmarks.neural.DECISIONS", 200)
    short = play(spec, steps(5), 5, best_fixed=False)
    assert play(spec, steps(5), 5, best_fixed=False) == short
    monkeypatch.setattr("benchmarks.neural.DECISIONS", 800)
    regret, encoded, n = play(spec, steps(5), 5, best_fixed=False)
    assert (encoded, n) == (0.0, 800)
    assert 0 < regret < 4 * short[0]
