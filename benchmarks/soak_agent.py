"""`python -m benchmarks.soak_agent`: an agent service that answers requests at a rate until SIGTERM: decides, reports, gets feedback."""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections.abc import Sequence

from benchmarks.payload import ANSWER, TENANTS
from steersman import Kind, PolicySubscriber, Router, Tracer

EVENTS = 6
"""Of a request: decision, model call, tool call, agent span, end, feedback."""
_BASELINE: dict[str, str | int] = {"model": "large", "effort": "low", "top_k": 8}


def main(argv: Sequence[str] | None = None) -> int:
    """Answer; prints what has become of the events as one JSON object, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak_agent", description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    options = parser.parse_args(argv)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    rng = random.Random(1)  # noqa: S311  (load, no secret)
    tracer = Tracer("soak", tenant=TENANTS[0], brokers=options.brokers)
    with PolicySubscriber(options.brokers, policies=[ANSWER], tenant=TENANTS[0]) as subscriber:
        subscriber.start()
        router = Router(subscriber, tracer, baselines={ANSWER: _BASELINE})
        print(json.dumps({"ready": True}), flush=True)
        started, done = time.monotonic(), 0
        while not stopping:
            ahead = done / options.rate - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(min(ahead, 0.1))
                continue
            _answer(tracer, router, rng)
            done += 1
        left = tracer.close(10.0)
        print(json.dumps({"requests": done, "left": left, "router": router.stats()}), flush=True)
    return 1 if left else 0


def _answer(tracer: Tracer, router: Router, rng: random.Random) -> None:
    context = {
        "complexity": rng.random(), "words": rng.randint(1, 400), "domain": rng.choice(["law", "news", "code"]),
        "load": rng.random(),
    }  # fmt: skip
    with tracer.span(Kind.AGENT, operation="answer") as root:
        decision = router.choose(ANSWER, context)
        with tracer.span(Kind.MODEL_CALL, operation=f"model-{decision.arm['model']}") as call:
            call.set(provider="bench", input_tokens=rng.randint(10, 4000), output_tokens=rng.randint(1, 900))
            call.set(cost_micro_usd=rng.randint(1, 20_000), duration_us=rng.randint(1000, 4_000_000))
        with tracer.span(Kind.TOOL_CALL, operation="search") as tool:
            tool.set(duration_us=rng.randint(1000, 900_000))
        root.set(duration_us=rng.randint(100_000, 9_000_000))
    tracer.feedback(decision, metric="quality", value=rng.random())


if __name__ == "__main__":
    raise SystemExit(main())
