"""A cold start of the four policies in the world model, without any transport: what the demo promises is learnable."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from examples.fleet.query import Query, draw_query
from examples.fleet.tally import Interaction, Tally
from examples.fleet.world import DOCUMENT_TOKENS, METRIC, ROLES, SHARE, Upstream, arm_index, judged, perform
from learners.policy_learner import PolicyLearner
from learners.spec import load_policies
from steersman.scoring import Scorer, draw

POLICIES = Path(__file__).resolve().parents[2] / "policies.toml"


class Loop:
    """One policy in a pure loop: decisions under the newest snapshot, rewards that come back after a delay."""

    def __init__(self, role: str) -> None:
        spec = load_policies(POLICIES).get("default", f"research/{role}")
        assert spec is not None
        self.spec, self.learner, self.offset = spec, PolicyLearner(spec), 0
        self.scorer = Scorer(self.learner.snapshot(0))
        self.waiting: list[dict[str, Any]] = []

    def decide(self, context: dict[str, object], rng: np.random.Generator, control: bool) -> dict[str, Any]:
        x = self.spec.features.encode(context)
        if control:
            index, chance, greedy = self.spec.arms.index(self.spec.baseline), 1.0, True
        else:
            scores = self.scorer.score(x)
            index = draw(scores.propensity, rng.random())
            chance, greedy = float(scores.propensity[index]), index == scores.greedy
        return {
            "tenant": "default", "policy": self.spec.name, "arm": self.spec.arms.labels[index],
            "level": self.spec.arms.arms[index], "propensity": chance, "explored": not greedy,
            "mode": "HOLDOUT" if control else "LIVE", "features": x.tolist(), "eligible": [],
            "policy_epoch": 1, "policy_version": self.learner.version, "reward_spec": self.spec.reward_hash,
        }  # fmt: skip

    def reward(
        self, decision: dict[str, Any], name: str, quality: float, cost: int, latency: int, failures: int
    ) -> None:
        self.offset += 1
        decision = {key: value for key, value in decision.items() if key != "level"}
        utility = self.spec.reward.utility(quality, cost, latency, failures)
        self.waiting.append({
            **decision, "decision_id": name, "trace_id": name, "agent": "", "ts": 0, "decided_at": 0,
            "quality": quality, "quality_defaulted": False, "cost_micro_usd": cost, "latency_us": latency,
            "failures": failures, "utility": utility, "closed_by": "COMPLETE", "source_partition": 0,
            "source_offset": self.offset, "seq": 0,
        })  # fmt: skip

    def learn(self) -> None:
        self.learner.learn_many(self.waiting)
        self.waiting.clear()
        self.scorer = Scorer(self.learner.snapshot(0))


def simulate(seed: int, n: int = 3000, delay: int = 50, every: int = 50) -> Tally:
    """Run `n` interactions; rewards arrive `delay` interactions later, snapshots every `every` interactions."""
    loops = {role: Loop(role) for role in ROLES}
    rng, tally = np.random.default_rng(seed), Tally()
    late: deque[list[tuple[Any, ...]]] = deque()
    for i in range(n):
        query, control = draw_query(seed, i), rng.random() < 0.1
        late.append(interact(query, loops, rng, control, tally))
        if len(late) > delay:
            for role, *reward in late.popleft():
                loops[role].reward(*reward)
        if i % every == 0:
            for loop in loops.values():
                loop.learn()
    return tally


def interact(
    query: Query, loops: dict[str, Loop], rng: np.random.Generator, control: bool, tally: Tally
) -> list[tuple[Any, ...]]:
    upstream, quality, answer = Upstream(), 0.0, 0.0
    outcomes, decisions, rewards = {}, {}, []
    for role in ROLES:
        context = {**query.context(), "subagents": upstream.subagents, "document_tokens": upstream.document_tokens}
        decisions[role] = loops[role].decide(context, rng, control)
        arm = decisions[role]["level"]
        outcomes[role] = perform(role, query, arm, upstream, rng)
        if role == "orchestrator":
            upstream = Upstream(int(arm["subagents"]))
        if role == "retrieval":
            upstream = Upstream(upstream.subagents, int(DOCUMENT_TOKENS[arm_index(role, arm)]))
        score = judged(outcomes[role].quality, rng)
        quality += SHARE[role] * outcomes[role].quality
        answer += SHARE[role] * score
        if METRIC[role] != "quality":
            done = outcomes[role]
            rewards.append(
                (
                    role,
                    decisions[role],
                    f"{query.index}-{role}",
                    score,
                    done.cost_micro_usd,
                    done.latency_us,
                    int(done.failed),
                )
            )
    cost, latency = sum(o.cost_micro_usd for o in outcomes.values()), sum(o.latency_us for o in outcomes.values())
    failures = sum(o.failed for o in outcomes.values())
    rewards.append(
        ("orchestrator", decisions["orchestrator"], f"{query.index}-orchestrator", answer, cost, latency, failures)
    )
    setting = {role: decision["level"] for role, decision in decisions.items()}
    modes = tuple(decision["mode"] for decision in decisions.values())
    tally.add(Interaction(query, setting, modes, loops["orchestrator"].learner.version, latency, cost, quality))
    return rewards


def test_cold_start_reaches_the_bars_in_the_last_quarter() -> None:
    last = simulate(seed=1).summary()["last_quarter"]
    assert last["latency_change"] <= -0.50
    assert last["cost_change"] <= -0.35
    assert last["quality"] >= last["baseline"]["quality"]
    assert last["quality_complex"] >= last["quality_complex_baseline"] - 0.02
    assert last["regret"] <= 0.35 * last["regret_baseline"]
