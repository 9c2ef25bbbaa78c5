"""Replay a routing data set through the live loop, or print the policy that it needs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from examples.replay.dataset import DEFAULT, Dataset, load
from examples.replay.policy import baseline_arm, context_of, policy_name, policy_toml
from examples.replay.score import score
from steersman import ConfigError, Kind, PolicySubscriber, Router, Topics, Tracer

AGENT = "replay"
PROGRESS_S = 5.0
# Nobody waits for these events: fuller batches leave the machine to the rest.
BATCHED = {"linger.ms": 250}


def play(
    dataset: Dataset, router: Router, tracer: Tracer, rate: float, stop: threading.Event, quiet: bool
) -> tuple[list[int], Counter[str]]:
    """Decide every prompt in turn, reveal only the chosen model's outcome; return the arms chosen and the modes.

    `rate` is prompts per second, 0 for as fast as it goes.
    """
    policy = policy_name(dataset)
    position = {arm: k for k, arm in enumerate(dataset.arms)}
    chosen: list[int] = []
    modes: Counter[str] = Counter()
    started = told = time.monotonic()
    for i in range(len(dataset.contexts)):
        if rate and stop.wait(max(0.0, started + i / rate - time.monotonic())):
            break
        if stop.is_set():
            break
        with tracer.span(Kind.AGENT, operation=AGENT):
            decision = router.choose(policy, context_of(dataset, i))
            model = str(decision.arm["model"])
            k = position[model]
            with tracer.span(Kind.MODEL_CALL, operation=model) as call:
                call.set(cost_micro_usd=int(dataset.cost_micro_usd[i, k]))
        tracer.feedback(
            decision.decision_id,
            metric="quality",
            value=float(dataset.quality[i, k]),
            source="recorded",
            target_decision=True,
        )
        chosen.append(k)
        modes[str(decision.mode)] += 1
        if not quiet and time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            got = dataset.utility[np.arange(len(chosen)), chosen]
            print(f"{told - started:6.1f} s  {len(chosen)} prompts  policy v{decision.policy_version}"
                  f"  mean reward {got.mean():.4f}", file=sys.stderr, flush=True)  # fmt: skip
    return chosen, modes


def replay(dataset: Dataset, given: argparse.Namespace) -> int:
    """Connect, wait for the policy, replay, print the result; return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    topics, policy = Topics(given.topic_prefix), policy_name(dataset)
    tracer = Tracer(AGENT, tenant=given.tenant, brokers=given.brokers, topics=topics, kafka=BATCHED)
    subscriber = PolicySubscriber(given.brokers, policies=[policy], topics=topics, tenant=given.tenant)
    subscriber.start()
    try:
        deadline = time.monotonic() + given.wait
        while subscriber.get(policy) is None and not stop.wait(0.05):
            if time.monotonic() > deadline:
                print(
                    f"no policy {policy} came from {given.brokers} within {given.wait:g} s: are the workers running, and does"
                    " their policies file hold it (--print-policy writes it)? Going on with the baseline.",
                    file=sys.stderr,
                )
                break
        router = Router(subscriber, tracer, baselines={policy: {"model": baseline_arm(dataset)}}, seed=given.seed)
        chosen, modes = play(dataset, router, tracer, given.rate, stop, given.json)
        left = tracer.flush(10.0)
    finally:
        subscriber.close()
        tracer.close()
    if left:
        print(f"{left} events were not delivered to {given.brokers}: is Kafka running there?", file=sys.stderr)
    if not chosen:
        return 0 if stop.is_set() else 1
    result: dict[str, Any] = {**score(dataset, np.array(chosen)), "modes": dict(modes), "undelivered": left}
    if given.json:
        print(json.dumps(result))
    else:
        show(result)
    return 3 if left else 0


def show(result: dict[str, Any]) -> None:
    """Print the result for people."""
    print(
        f"{result['dataset']}: {result['prompts']} prompts, utility = quality - {result['price_per_usd']:g} * dollars"
    )
    print(f"{'':<14}{'random':>10}{'replayed':>10}{'best fixed':>12}{'oracle':>10}")
    for title, suffix, mine in (("all", "", "mean_reward"), ("last quarter", "_last_quarter", "last_quarter")):
        print(
            f"{title:<14}{result['random' + suffix]:>10.4f}{result[mine]:>10.4f}"
            f"{result['best_fixed' + suffix]:>12.4f}{result['oracle' + suffix]:>10.4f}"
        )
    print(f"quality {result['quality']:.4f} at ${result['cost_usd']:.6f} a prompt; "
          f"best fixed ({result['best_fixed_model']}) {result['best_fixed_quality']:.4f}"
          f" at ${result['best_fixed_cost_usd']:.6f}")  # fmt: skip
    print("shares: " + ", ".join(f"{arm} {share:.1%}" for arm, share in result["shares"].items()))
    print("decisions: " + ", ".join(f"{mode} {count}" for mode, count in result["modes"].items()))


def _number(low: float, text: str) -> float:
    value = float(text)
    if not low <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least {low:g}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    env = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m examples.replay",
        description="Real routing data through the live loop: only the chosen model's outcome is revealed.",
    )
    parser.add_argument("--data", default=DEFAULT, metavar="paretobandit|FILE.csv[.gz]")
    parser.add_argument(
        "--print-policy", action="store_true", help="print the policy that the data needs, as TOML, and end"
    )
    parser.add_argument(
        "--price", type=lambda t: _number(0, t), help="utility lost per US dollar (must match the policy)"
    )
    parser.add_argument("--brokers", default=env("STEERSMAN_BROKERS", "127.0.0.1:9092"), help="Kafka, host:port list")
    parser.add_argument("--topic-prefix", default=env("STEERSMAN_TOPIC_PREFIX", "steersman"))
    parser.add_argument("--tenant", default=env("STEERSMAN_TENANT", "default"))
    parser.add_argument("--rate", type=lambda t: _number(0, t), default=80.0, help="prompts per second, 0: no pause")
    parser.add_argument("--limit", type=int, help="prompts at most")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the decisions")
    parser.add_argument("--wait", type=lambda t: _number(0, t), default=15.0, help="seconds to wait for the policy")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    given = parser.parse_args(argv)
    if given.seed < 0 or (given.limit is not None and given.limit < 1):
        parser.error("--seed must be at least 0 and --limit at least 1")
    try:
        dataset = load(given.data, given.price)
        if given.print_policy:
            print(policy_toml(dataset), end="")
            return 0
        return replay(dataset.shuffled(given.seed, given.limit), given)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
