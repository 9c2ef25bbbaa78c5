"""What every process of the fleet needs: settings from the launcher, a tracer, a router, a signal to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from examples.fleet.world import BASELINE, ROLES
from steersman import PolicySubscriber, Router, Topics, Tracer

PREFIX = "research"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a fleet runs.

    Attributes
    ----------
    brokers, topic_prefix, tenant
        Where events go and policies come from.
    rate
        Interactions per second.
    seconds
        How long; 0 for until stopped.
    seed
        Of queries, noise, decisions and judge.
    time_scale
        Real seconds slept per simulated second; 0 for none.
    holdout
        Share of the interactions that stay with the static baseline, as a control group.
    wait_s
        Seconds to wait for the first policies before starting without.
    """

    brokers: str
    topic_prefix: str = "steersman"
    tenant: str = "default"
    rate: float = 40.0
    seconds: float = 90.0
    seed: int = 1
    time_scale: float = 0.0
    holdout: float = 0.1
    wait_s: float = 15.0


# Nobody waits for these events: fuller batches leave the machine to the rest.
BATCHED = {"linger.ms": 250}


def policy_of(role: str) -> str:
    """Return the name of the policy that `role` asks."""
    return f"{PREFIX}/{role}"


@dataclass(frozen=True, slots=True)
class Agent:
    """The Steersman side of one agent process."""

    tracer: Tracer
    subscriber: PolicySubscriber
    router: Router


@contextlib.contextmanager
def agent(role: str, settings: Settings) -> Iterator[Agent]:
    """Start the tracer, the policy subscriber and the router of one agent; stop them, flushed, at the end."""
    topics = Topics(settings.topic_prefix)
    tracer = Tracer(role, tenant=settings.tenant, brokers=settings.brokers, topics=topics, kafka=BATCHED)
    subscriber = PolicySubscriber(settings.brokers, policies=[policy_of(role)], topics=topics, tenant=settings.tenant)
    subscriber.start()
    baselines = {policy_of(role): BASELINE[role]}
    seed = settings.seed * len(ROLES) + ROLES.index(role)
    try:
        router = Router(subscriber, tracer, baselines=baselines, seed=seed, holdout=settings.holdout)
        yield Agent(tracer, subscriber, router)
    finally:
        subscriber.close()
        left = tracer.close(5.0)
        if left:
            tell(undelivered=left, warning=f"{role}: {left} events did not reach {settings.brokers}")


async def wait_for_policy(subscriber: PolicySubscriber, policy: str, wait_s: float, stop: asyncio.Event) -> bool:
    """Wait until `policy` is known, at most `wait_s` seconds; decisions before that are baselines."""
    deadline = time.monotonic() + wait_s
    while subscriber.get(policy) is None:
        if stop.is_set() or time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


def stop_on_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def stop_with_parent(stop: asyncio.Event) -> None:
    """Set `stop` once the launcher is gone, so that no agent outlives it."""
    parent = os.getppid()
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        if os.getppid() != parent:
            stop.set()


def tell(**message: object) -> None:
    """Write one JSON line for the launcher to read."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
