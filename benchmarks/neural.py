"""The neural-linear learner beside the linear one: where there is something to find beyond lines, and where there is not.

``STEERSMAN_DATA`` names a folder with routing data as CSV (`examples.replay.dataset`), of which ``paretobandit_k4_val.csv.gz``
and ``routellm_2model.csv.gz`` are replayed; without it only the scenarios run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.decisions import SHAPES, context_of, rewards_of, spec_of
from benchmarks.measure import Figure, per_call_us, percentiles_us, say, spread
from benchmarks.memory_producer import memory_sender
from examples.fleet.scenarios import SCENARIOS, policy_toml
from examples.fleet.world import COST_SD, FAILURE, JUDGE_SD, LATENCY_SD, RETRY_US
from examples.replay.dataset import load
from examples.replay.policy import context_of as replay_context
from examples.replay.policy import policy_toml as replay_toml
from learners.neural.learner import NeuralLearner
from learners.neural.trainer import InlineTrainer
from learners.policies_file import parse_policies
from learners.registry import make_learner
from learners.spec import PolicySpec
from steersman import Router, StaticPolicies, Tracer
from steersman.scoring import Scorer, draw

PAYLOAD = (
    "one decision point, 5 decisions a second by the rewards' times, partial feedback, rewards 50 decisions late, a snapshot every 50 rewards; both learners on the same requests "
    "and seeds. Regret is against the arm of the highest expected utility (scenarios) or the best fixed arm (real data, shuffled by seed; "
    "below 0 is better than that arm). A change is the mean over seeds of neural minus linear, in % of the linear learner's mean regret "
    "(scenarios) or in thousandths of utility a decision (real data, where more is better), from one standard error below it to one above"
)
VERSIONS = {name: version(name) for name in ("torch", "safetensors")}

SEEDS = range(100, 108)
DECISIONS, DELAY, EVERY, PER_SECOND = 5000, 50, 50, 5
FILES = ("paretobandit_k4_val.csv.gz", "routellm_2model.csv.gz")

Floats = NDArray[np.float64]
Outcome = tuple[float, int, int, int]
"""Quality, cost in millionths of a US dollar, latency in microseconds, failures."""
Step = tuple[dict[str, object], Floats, Callable[[int, np.random.Generator], Outcome]]
"""Context, the utility of every arm, and what draws the outcome of one."""


def figures() -> Iterator[Figure]:
    """Regrets, differences, and what deciding and learning cost."""
    NeuralLearner.trainer = InlineTrainer()
    for name, draw_request in SCENARIOS.items():
        yield from _compared(f"fleet, {name}", *_scenario(name, draw_request), relative=True)
    folder = os.environ.get("STEERSMAN_DATA")
    for file in FILES if folder else ():
        yield from _compared(file.split(".")[0], *_recorded(Path(str(folder)) / file), relative=False)
    yield from _costs()


def _compared(
    title: str, spec: PolicySpec, steps: Callable[[int], Iterator[Step]], *, relative: bool
) -> Iterator[Figure]:
    regret: dict[str, Floats] = {}
    shares = []
    for learner in ("linear", "neural"):
        runs = []
        for seed in SEEDS:
            total, share, n = play(replace(spec, learner=learner), steps(seed), seed, best_fixed=not relative)
            runs.append(total)
            shares += [100.0 * share] if learner == "neural" else []
            say(f"{title}, {learner}, seed {seed}: regret {total:.2f} of {n} decisions, neural for {share:.0%}")
        regret[learner] = np.array(runs)
        yield Figure(f"{learner}, {title}", f"regret of {n} decisions", "utility", *spread(runs), len(runs))
    yield Figure(f"neural, {title}", "decisions with the encoder", "%", *spread(shares), len(shares))
    gap = regret["neural"] - regret["linear"]
    factor, unit = (100.0 / regret["linear"].mean(), "% of regret") if relative else (-1000.0 / n, "utility / 1000")
    mean, error = factor * gap.mean(), abs(factor) * gap.std(ddof=1) / np.sqrt(len(gap))
    low, high = (round(float(value), 3) + 0.0 for value in (mean - error, mean + error))
    yield Figure(f"neural against linear, {title}", "change", unit, round(float(mean), 3) + 0.0, low, high, len(gap))


def play(spec: PolicySpec, steps: Iterator[Step], seed: int, *, best_fixed: bool) -> tuple[float, float, int]:
    """Learn one policy from a cold start; returns its regret, the share of decisions by an encoder, and their number."""
    rng = np.random.default_rng((seed, 1))
    learner = make_learner(spec)
    scorer = Scorer(learner.snapshot(0))
    waiting: list[dict[str, Any]] = []
    got, utilities, encoded = 0.0, [], 0
    for i, (context, utility, outcome) in enumerate(steps):
        x = spec.features.encode(context)
        arm = draw(scorer.score(x).propensity, rng.random())
        encoded += "encoder.shift" in scorer.snapshot.tensors
        got += utility[arm]
        utilities.append(utility)
        waiting.append(_reward(spec, i, arm, x, outcome(arm, rng)))
        if (i + 1) % EVERY == 0 and len(waiting) > DELAY:
            learner.learn_many(waiting[:-DELAY])
            del waiting[:-DELAY]
            scorer = Scorer(learner.snapshot(0))
    table = np.array(utilities)
    best = table.sum(axis=0).max() if best_fixed else table.max(axis=1).sum()
    return float(best - got), encoded / len(table), len(table)


def _reward(spec: PolicySpec, i: int, arm: int, x: NDArray[np.float32], outcome: Outcome) -> dict[str, Any]:
    quality, cost, latency, failures = outcome
    return {
        "decision_id": f"{i:032x}-{i:016x}",
        "tenant": spec.tenant,
        "policy": spec.name,
        "policy_epoch": 1,
        "ts": i * 1_000_000 // PER_SECOND,
        "arm": spec.arms.labels[arm],
        "mode": "LIVE",
        "features": x.tolist(),
        "quality": quality,
        "cost_micro_usd": cost,
        "latency_us": latency,
        "failures": failures,
        "reward_spec": spec.reward_hash,
        "source_partition": 0,
        "source_offset": i,
        "seq": 0,
    }


def _scenario(name: str, draw_request: Any) -> tuple[PolicySpec, Callable[[int], Iterator[Step]]]:
    spec = next(iter(parse_policies(policy_toml(name))))

    def steps(seed: int) -> Iterator[Step]:
        requests = np.random.default_rng((seed, 0))
        for _ in range(DECISIONS):
            request = draw_request(requests)
            yield dict(request.context), request.utility, partial(_perform, request.means)

    return spec, steps


def _perform(means: Any, arm: int, rng: np.random.Generator) -> Outcome:
    """The world's noise on expected outcomes (`examples.fleet.world.perform`)."""
    slow, dear = np.exp(rng.normal(-0.5 * np.square((LATENCY_SD, COST_SD)), (LATENCY_SD, COST_SD)))
    failed = int(rng.random() < FAILURE)
    quality = float(means.quality[arm]) + JUDGE_SD * float(rng.standard_normal())
    latency = round(float(means.latency[arm]) * slow) + failed * RETRY_US
    return min(1.0, max(0.0, quality)), round(float(means.cost[arm]) * dear), latency, failed


def _recorded(path: Path) -> tuple[PolicySpec, Callable[[int], Iterator[Step]]]:
    whole = load(str(path))
    spec = next(iter(parse_policies(replay_toml(whole))))

    def steps(seed: int) -> Iterator[Step]:
        data = whole.shuffled(seed)
        utility = data.utility
        for i in range(len(data.contexts)):
            quality, cost = data.quality[i], data.cost_micro_usd[i]

            def outcome(arm: int, _: Any, quality: Any = quality, cost: Any = cost) -> Outcome:
                return float(quality[arm]), int(cost[arm]), 0, 0

            yield replay_context(data, i), utility[i], outcome

    return spec, steps


def _costs() -> Iterator[Figure]:
    for shape in SHAPES:
        context = context_of(shape)
        for name in ("linear", "neural"):
            spec = replace(spec_of(shape), learner=name)
            rewards = [{**r, "ts": i * 1_000_000 // PER_SECOND} for i, r in enumerate(rewards_of(spec, 2000))]
            learner = make_learner(spec)
            learner.learn_many(rewards)
            snapshot = learner.snapshot(0)
            if isinstance(learner, NeuralLearner) and learner._head is not None:
                # Of noise there is nothing to learn, so the encoder is never better: what it costs is measured all the same.
                tensors = {**learner._head.linear.snapshot(0).tensors, **learner._head.tensors}
                snapshot = replace(snapshot, tensors=tensors)
            with Tracer("bench", sink=memory_sender()) as tracer:
                router = Router(StaticPolicies([snapshot]), tracer, seed=0, max_age_s=1e9)
                choose = partial(router.choose, spec.name, context)
                yield from percentiles_us(f"{name}, {shape}: Router.choose", "call", choose, between=tracer.flush)
            yield _per_reward(name, shape, learner, rewards)


def _per_reward(name: str, shape: str, learner: Any, rewards: list[dict[str, Any]]) -> Figure:
    """Rewards in batches of 50 on top of 2,000; a training that falls due is not counted: it has a process of its own."""
    offset = len(rewards)

    def learn() -> int:
        nonlocal offset
        for start in range(0, 500, 50):
            batch = [{**reward, "source_offset": offset + k} for k, reward in enumerate(rewards[start : start + 50])]
            offset += 50
            learner.learn_many(batch)
        return 500

    if isinstance(learner, NeuralLearner):
        learner._began = (10**9, 0)
    return per_call_us(f"{name}, {shape}: learn_many(50)", "per reward", learn)
