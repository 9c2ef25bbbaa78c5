"""A cold start of the four policies in the world model, without any transport: what the demo promises is learnable."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fleet_offline import play
from examples.fleet.tally import Tally
from learners.policies_file import load_policies

POLICIES = Path(__file__).resolve().parents[2] / "policies.toml"


def test_cold_start_reaches_the_bars_in_the_last_quarter() -> None:
    tally = Tally()
    tally.interactions = play(load_policies(POLICIES), 1, 2500)
    last = tally.summary()["last_quarter"]
    assert last["latency_change"] <= -0.55
    assert last["cost_change"] <= -0.40
    assert last["quality"] >= last["baseline"]["quality"]
    assert last["quality_complex"] >= last["quality_complex_baseline"] - 0.02
    assert last["regret"] <= 0.25 * last["regret_baseline"]
