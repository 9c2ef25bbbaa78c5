"""Real routing data through Kafka, Faust and the router: what the same replay earns offline, decided by the same propensities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.live_orders import live, orders_of, policies_of, worker_on
from benchmarks.live_replay import offline, repeated
from console.brokers import Broker
from examples.replay.dataset import load
from examples.replay.policy import policy_name
from learners.policies_file import parse_policies
from steersman import Topics

SEEDS = (1, 2, 3)
PROMPTS = 200


def test_the_live_loop_earns_what_the_offline_replay_earns(kafka: Broker, tmp_path: Path) -> None:
    orders = orders_of(load(), SEEDS, PROMPTS)
    path = tmp_path / "policies.toml"
    path.write_text(policies_of(orders))
    topics = Topics("live-replay-test")
    with worker_on(kafka.bootstrap, topics, path, tmp_path) as check:
        lives = live(kafka.bootstrap, topics, orders, SEEDS, 50.0, check)
    policies = parse_policies(path.read_text())
    off, noise = [], []
    for one in lives:
        spec = policies.get("default", policy_name(one.dataset))
        assert spec is not None
        assert one.modes == {"LIVE": PROMPTS}
        assert max(one.versions) > PROMPTS / 2, "learns while it decides"
        assert repeated(spec, one, kafka.bootstrap, topics) == 1.0
        earlier = replace(one, versions=[max(version - 1, 0) for version in one.versions])
        assert repeated(spec, earlier, kafka.bootstrap, topics) < 0.9, "another version decides otherwise"
        off.append(one.utility - offline(spec, one))
        noise.append(one.dataset.utility.var(axis=1).mean() + one.dataset.utility.mean(axis=1).var())
    # The same orders and draws: what is left is when a snapshot came. Four standard errors, as if nothing were paired.
    assert abs(np.mean(off)) < 4 * np.sqrt(2 * np.mean(noise) / (PROMPTS * len(SEEDS))), off
