"""What a decision costs, ours and other libraries'. Runs in the learners' environment: see `benchmarks.environments`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from benchmarks.decisions import SHAPES, context_of, rewards_of, snapshot_of, spec_of
from benchmarks.measure import Figure, percentiles_us
from benchmarks.memory_producer import memory_sender
from benchmarks.peers.bandits import BANDITS
from steersman import Router, StaticPolicies, Tracer

_TRAINED_ON = 2000


def figures() -> Iterator[Figure]:
    """`Router.choose` with all that it does on the caller's thread, and what the others need for the arm alone."""
    for shape in SHAPES:
        yield from _ours(shape)
        yield from _theirs(shape)


def _ours(shape: str) -> Iterator[Figure]:
    spec, context = spec_of(shape), context_of(shape)
    with Tracer("bench", sink=memory_sender()) as tracer:
        router = Router(StaticPolicies([snapshot_of(spec, _TRAINED_ON)]), tracer, seed=0, max_age_s=1e9)
        if router.choose(spec.name, context).mode != "LIVE":
            raise RuntimeError("the router does not decide by the policy: the figures would be of its fallback")
        choose = partial(router.choose, spec.name, context)
        yield from percentiles_us(f"Router.choose, {shape}", "call", choose, between=tracer.flush)


def _theirs(shape: str) -> Iterator[Figure]:
    spec = spec_of(shape)
    names = [*context_of(shape), "constant"]
    rows = [
        (dict(zip(names, reward["features"], strict=True)), spec.arms.index(reward["arm"]), reward["quality"])
        for reward in rewards_of(spec, _TRAINED_ON)
    ]
    context = {**context_of(shape), "constant": 1.0}
    for make in BANDITS:
        peer = make(len(spec.arms))
        peer.learn(rows)
        yield from percentiles_us(f"{peer.name}, {shape}", "call", partial(peer.choose, context), calls=1000, repeats=3)


if __name__ == "__main__":
    for figure in figures():
        print(json.dumps(asdict(figure)), flush=True)
