"""A plain Python agent: ``python -m examples.agents.plain``. One line around the openai client, one call to decide, one to say how it went."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from openai import OpenAI

from examples.agents.task import PRICES, Settings, Tally, settings, sums, wait_for
from steersman import Kind, PolicySubscriber, PriceTable, Router, Tracer
from steersman.openai import traced

POLICY = "sums/plain"


def run(given: Settings) -> int:
    """Answer the requests; returns the exit code."""
    tracer = Tracer("plain", prices=PriceTable.load(PRICES))
    client = traced(OpenAI(base_url=given.models, api_key="none"), tracer)
    tally = Tally(given.requests, given.as_json)
    with PolicySubscriber(policies=[POLICY]).start() as policies:
        router = Router(policies, tracer, baselines={POLICY: {"model": "large"}})
        wait_for(policies, POLICY)
        for task in sums(given.requests, given.seed):
            with tracer.span(Kind.AGENT, operation="answer"):
                decision = router.choose(POLICY, task.context)
                answer = client.chat.completions.create(
                    model=str(decision.arm["model"]), messages=[{"role": "user", "content": task.question}]
                )
            right = task.right(answer.choices[0].message.content)
            tracer.feedback(decision, value=right)
            tally.add(task, decision, right)
    return tally.finish(tracer.close())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    return run(settings("examples.agents.plain", __doc__, arguments))


if __name__ == "__main__":
    sys.exit(main())
