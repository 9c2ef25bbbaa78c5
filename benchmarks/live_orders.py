"""A data set played live: every order of its prompts is a policy of its own, all at once through a running worker and routers."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.measure import say
from console.children import ChildFailed, Children, python
from examples.replay.dataset import Dataset
from examples.replay.policy import baseline_arm, context_of, policy_name, policy_toml
from steersman import Kind, PolicySubscriber, Router, Topics, Tracer
from steersman.errors import SteersmanError
from streams.topics import create_topics

PARTITIONS = 2
_READY_S, _LEARNED_S = 60.0, 60.0


class Differs(SteersmanError):
    """The platform does not do what the learner does offline."""


@dataclass
class Lived:
    """What one order came to live.

    Attributes
    ----------
    dataset : Dataset
        In its order; the name is the policy's.
    seed : int
        Of the router's draws.
    arms, versions : list of int
        Of every decision: the arm, and the version of the policy that took it.
    propensities : list of float
    modes : Counter of str
    """

    dataset: Dataset
    seed: int
    arms: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    propensities: list[float] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)

    @property
    def utility(self) -> float:
        """Mean utility."""
        return float(self.dataset.utility[np.arange(len(self.arms)), self.arms].mean())

    @property
    def late(self) -> int:
        """Median number of decisions made but not yet known to the policy that decided."""
        return round(float(np.median(np.arange(len(self.versions)) - self.versions)))


def orders_of(dataset: Dataset, seeds: Sequence[int], limit: int | None) -> list[Dataset]:
    """The data in one order a seed, each under a name, and so with a policy, of its own."""
    return [replace(dataset.shuffled(seed, limit), name=f"{dataset.name}-{seed}") for seed in seeds]


def policies_of(orders: Sequence[Dataset]) -> str:
    """The policies file of all orders."""
    return "\n".join(policy_toml(one) for one in orders)


def live(
    brokers: str,
    topics: Topics,
    orders: Sequence[Dataset],
    seeds: Sequence[int],
    rate: float,
    check: Callable[[], None],
) -> list[Lived]:
    """Decide all prompts of all orders through a running platform, and wait until all of it has been learned.

    Parameters
    ----------
    brokers, topics
        Where the platform is, with the policies of `policies_of`.
    orders
        Of the same length.
    seeds
        Of the routers' draws.
    rate
        Decisions per second and order.
    check
        Called now and then; raises when the platform has died.

    Raises
    ------
    Differs
        When policies do not come, or do not come to hold every decision's reward.
    """
    lives = [Lived(dataset, seed) for dataset, seed in zip(orders, seeds, strict=True)]
    names = [policy_name(one) for one in orders]
    with Tracer("replay", brokers=brokers, topics=topics) as tracer, PolicySubscriber(brokers, topics=topics) as source:

        def versions() -> list[int]:
            check()
            held = [source.get(name) for name in names]
            return [-1 if one is None else one.snapshot.version for one in held]

        _until(lambda: min(versions()) >= 0, _READY_S, "no snapshot of some policy")
        baselines = [{name: {"model": baseline_arm(one)}} for name, one in zip(names, orders, strict=True)]
        routers = [Router(source, tracer, baselines=b, seed=s) for b, s in zip(baselines, seeds, strict=True)]
        count, began = len(orders[0].contexts), time.monotonic()
        for i in range(count):
            time.sleep(max(0.0, began + i / rate - time.monotonic()))
            for one, router, name in zip(lives, routers, names, strict=True):
                _decide(one, i, router, tracer, name)
            if i % 500 == 499:
                check()
                say(f"live: {i + 1} of {count} prompts in every order, {time.monotonic() - began:.0f} s")
        if left := tracer.flush(30.0):
            raise Differs(f"{left} events were not delivered")
        try:
            _until(lambda: min(versions()) >= count, _LEARNED_S, f"some policy has not learned all {count} rewards")
        except Differs as error:
            raise Differs(f"{error}, they have learned {', '.join(map(str, sorted(versions())))}") from error
        if max(versions()) > count:
            raise Differs(f"some policy has learned more than {count} rewards")
    return lives


def _decide(one: Lived, i: int, router: Router, tracer: Tracer, name: str) -> None:
    dataset = one.dataset
    with tracer.span(Kind.AGENT, operation="replay"):
        decision = router.choose(name, context_of(dataset, i))
        k = dataset.arms.index(str(decision.arm["model"]))
        with tracer.span(Kind.MODEL_CALL, operation=dataset.arms[k]) as call:
            call.set(cost_micro_usd=int(dataset.cost_micro_usd[i, k]))
    tracer.feedback(decision, "quality", float(dataset.quality[i, k]))
    one.arms.append(k)
    one.versions.append(decision.policy_version or 0)
    one.propensities.append(decision.propensity)
    one.modes[str(decision.mode)] += 1


def _until(ready: Callable[[], bool], timeout_s: float, problem: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise Differs(f"after {timeout_s:g} s {problem}")
        time.sleep(0.05)


@contextlib.contextmanager
def worker_on(brokers: str, topics: Topics, policies: Path, folder: Path) -> Iterator[Callable[[], None]]:
    """A worker of both stages on topics of its own while the block runs; yields what raises ChildFailed when it has died."""
    create_topics(brokers, topics, PARTITIONS)
    env = {
        "STEERSMAN_BROKERS": brokers,
        "STEERSMAN_TOPIC_PREFIX": topics.prefix,
        "STEERSMAN_POLICIES": str(policies.absolute()),
    }
    with Children(folder / "logs") as children:
        worker = children.start("worker", python("streams", "worker"), env)

        def check() -> None:
            if worker.exit_code is not None:
                raise ChildFailed(f"the worker ended with exit code {worker.exit_code}:\n{worker.tail()}")

        yield check
