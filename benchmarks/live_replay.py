"""`python -m benchmarks.live_replay`: a data set through Kafka, Faust and the router, against the same replay offline.

Each order of the prompts is a policy of its own, all of them play at once on a running worker (both stages, Apache Kafka). Offline
are the game of `benchmarks.evaluation` and its learner: the same orders, the same draws, outcomes as late as they were live.
Two questions: is what was earned the same within noise, and does a learner that is taught the rewards in the order of the topic
come to every decision's propensity, to the bit.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import broker
from benchmarks.evaluation.ours import Ours
from benchmarks.evaluation.play import play
from benchmarks.evaluation.scenario import Scenario
from benchmarks.live_orders import PARTITIONS, Lived, live, orders_of, policies_of, worker_on
from benchmarks.measure import Figure, add_out, alone, report, say, spread
from console.brokers import start_kafka
from examples.replay.dataset import DEFAULT, Dataset, load
from examples.replay.policy import context_of, policy_name
from learners.policies import Policies
from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec
from steersman import Topics
from steersman.codec import Codec
from steersman.scoring import Scorer
from streams.learning_stage import partition_of
from streams.partition_log import PartitionLog

ORDERS, RATE = 12, 20.0
VERSIONS = broker.VERSIONS
_PAYLOAD = (
    "{source}, {prompts} prompts in each of {orders} orders, one policy an order, all at once, {rate:g} decisions a second each; "
    "Apache Kafka, worker (both stages) and service on one machine; offline: the same orders and draws, outcomes as many decisions "
    "late as the median was live, a new snapshot for every 2 % more rewards"
)


def payload(source: str = DEFAULT, orders: int = ORDERS, limit: int | None = None, rate: float = RATE) -> str:
    """What `figures` plays."""
    prompts = f"{limit:,}" if limit else "all"
    return _PAYLOAD.format(source=source, prompts=prompts, orders=orders, rate=rate)


def encoded(spec: PolicySpec, dataset: Dataset) -> NDArray[np.float32]:
    """The contexts as the router encodes them, (n, d)."""
    return np.stack([spec.features.encode(context_of(dataset, i)) for i in range(len(dataset.contexts))])


def offline(spec: PolicySpec, one: Lived) -> float:
    """Mean utility of the same order without the platform: same draws, outcomes as late as they were live."""
    cost = one.dataset.cost_micro_usd.astype(np.float64)
    scenario = Scenario(spec.name, spec, encoded(spec, one.dataset), one.dataset.quality, cost, np.zeros_like(cost))
    return play(Ours(spec, spec.learner, one.seed), scenario, one.late).mean_utility


def repeated(spec: PolicySpec, one: Lived, brokers: str, topics: Topics) -> float:
    """Share of the decisions whose propensity a learner taught by the reward topic comes to, bit by bit."""
    codec = Codec("reward")
    log = PartitionLog(brokers, topics.reward, partition_of(spec.key, PARTITIONS))
    rewards = (codec.decode(record.value or b"", record.headers) for record in log)
    mine = [reward for reward in rewards if reward["policy"] == spec.name]
    learner, x = PolicyLearner(spec), encoded(spec, one.dataset)
    scorers: dict[int, Scorer] = {}
    wanted = sorted(set(one.versions))
    for version in wanted:
        learner.learn_many(mine[learner.version : version])
        scorers[version] = Scorer(learner.snapshot(0))
    same = sum(
        float(scorers[version].score(x[i]).propensity[arm]) == propensity
        for i, (arm, version, propensity) in enumerate(zip(one.arms, one.versions, one.propensities, strict=True))
    )
    return same / len(one.arms)


def compared(policies: Policies, lives: Sequence[Lived], brokers: str, topics: Topics) -> Iterator[Figure]:
    """Figures of live beside offline."""
    specs = [spec for one in lives if (spec := policies.get("default", policy_name(one.dataset))) is not None]
    mine = np.array([one.utility for one in lives])
    theirs = np.array([offline(spec, one) for spec, one in zip(specs, lives, strict=True)])
    best = np.array([one.dataset.utility.mean(axis=0).max() for one in lives])
    oracle = np.array([one.dataset.utility.max(axis=1).mean() for one in lives])
    same = [repeated(spec, one, brokers, topics) for spec, one in zip(specs, lives, strict=True)]
    live_modes = [one.modes["LIVE"] / len(one.arms) for one in lives]
    for system, got in (("live", mine), ("offline", theirs)):
        yield _figure(system, "mean utility", "utility", got)
        yield _figure(system, "gain", "share", (got - best) / (oracle - best))
    off = mine - theirs
    mean, error = float(off.mean()), float(off.std(ddof=1) / np.sqrt(len(off)))
    low, mid, high = (round(value, 5) for value in (mean - 2 * error, mean, mean + 2 * error))
    yield Figure("live - offline", "mean utility, mean and two standard errors", "utility", mid, low, high, len(off))
    yield _figure(
        "live", "decisions made but not yet learned from, median", "decisions", np.array([o.late for o in lives])
    )
    yield _figure("live", "decided by the policy", "share", np.array(live_modes))
    yield _figure("live", "propensities that the topic's rewards give again to the bit", "share", np.array(same))


def _figure(system: str, metric: str, unit: str, values: NDArray[np.float64]) -> Figure:
    return Figure(system, metric, unit, *spread([float(v) for v in values]), len(values))


def figures(
    source: str = DEFAULT, orders: int = ORDERS, limit: int | None = None, rate: float = RATE
) -> Iterator[Figure]:
    """Run Kafka and a worker, play, and compare."""
    seeds = range(100, 100 + orders)
    played = orders_of(load(source), seeds, limit)
    topics = Topics("live-replay")
    with tempfile.TemporaryDirectory(prefix="steersman-bench-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "policies.toml"
        path.write_text(policies_of(played))
        say("live: starting Apache Kafka and a worker")
        kafka = start_kafka(Path(folder) / "kafka")
        try:
            with worker_on(kafka.bootstrap, topics, path, Path(folder)) as check:
                lives = live(kafka.bootstrap, topics, played, list(seeds), rate, check)
                yield from compared(parse_policies(path.read_text()), lives, kafka.bootstrap, topics)
        finally:
            kafka.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `live.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live_replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.live_replay --orders 4 --limit 300 --rate 40 --out results",
    )
    parser.add_argument("--data", default=DEFAULT, metavar="paretobandit|FILE.csv[.gz]")
    parser.add_argument("--orders", type=int, default=ORDERS, metavar="N", help=f"played at once (default {ORDERS})")
    parser.add_argument("--limit", type=int, metavar="N", help="prompts at most (default all)")
    parser.add_argument("--rate", type=float, default=RATE, help=f"decisions per second and order (default {RATE:g})")
    add_out(parser)
    given = parser.parse_args(argv)
    if given.orders < 2 or given.rate <= 0 or (given.limit is not None and given.limit < 50):
        parser.error("at least two orders of 50 prompts, and a rate above 0")
    what = given.data, given.orders, given.limit, given.rate
    report("live", payload(*what), figures(*what), versions=VERSIONS, folder=given.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
