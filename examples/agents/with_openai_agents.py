"""An agent of OpenAI's Agents SDK: ``python -m examples.agents.with_openai_agents``. The policy chooses the model and whether it may use a tool.

The SDK's spans become ours by its own extension point, a tracing processor; model calls by the traced client, with their tokens.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_trace_processors
from agents.tracing import Span as SdkSpan
from agents.tracing import Trace, TracingProcessor
from agents.tracing.span_data import AgentSpanData, FunctionSpanData
from openai import AsyncOpenAI

from examples.agents.task import PRICES, Settings, Sum, Tally, settings, sums, wait_for
from steersman import Decision, Kind, PolicySubscriber, PriceTable, Router, Span, Status, Tracer
from steersman.openai import traced

POLICY = "sums/openai-agents"


class SteersmanProcessor(TracingProcessor):
    """Records the SDK's agent and tool spans with a tracer, below the span that the run was started in."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[str, Span] = {}

    def on_span_start(self, span: SdkSpan[Any]) -> None:
        """Begin a span of ours."""
        data = span.span_data
        if isinstance(data, FunctionSpanData):
            kind = Kind.TOOL_CALL
        elif isinstance(data, AgentSpanData):
            kind = Kind.AGENT
        else:
            return
        ours = self._tracer.span(kind, data.name, parent=self._open.get(span.parent_id or ""))
        ours.start()
        self._open[span.span_id] = ours

    def on_span_end(self, span: SdkSpan[Any]) -> None:
        """End it."""
        ours = self._open.pop(span.span_id, None)
        if ours is not None:
            if span.error:
                ours.set(status=Status.ERROR, error=span.error["message"])
            ours.finish()

    def on_trace_start(self, trace: Trace) -> None:
        """The trace is that of the span around the run."""

    def on_trace_end(self, trace: Trace) -> None:
        """The span around the run ends it."""

    def shutdown(self) -> None:
        """The tracer is closed by whoever made it."""

    def force_flush(self) -> None:
        """The tracer sends by itself."""


@function_tool
def calculator(question: str) -> str:
    """Add up the numbers of a question."""
    return str(sum(int(word) for word in question.replace("?", "").split() if word.isdigit()))


async def answer(client: AsyncOpenAI, task: Sum, decision: Decision) -> str:
    """Run the agent as the decision says."""
    tools: list[Any] = [calculator] if decision.arm["tool_budget"] else []
    model = OpenAIChatCompletionsModel(model=str(decision.arm["model"]), openai_client=client)
    agent = Agent(name="adder", instructions="Answer with the number alone.", model=model, tools=tools)
    result = await Runner.run(agent, task.question, max_turns=3)
    return str(result.final_output)


async def run(given: Settings) -> int:
    """Answer the requests; returns the exit code."""
    tracer = Tracer("openai-agents", prices=PriceTable.load(PRICES))
    set_trace_processors([SteersmanProcessor(tracer)])  # instead of the SDK's own, which sends traces to OpenAI
    tally = Tally(given.requests, given.as_json)
    baseline: dict[str, str | int] = {"model": "large", "tool_budget": 0}
    async with traced(AsyncOpenAI(base_url=given.models, api_key="none"), tracer) as client:
        with PolicySubscriber(policies=[POLICY]).start() as policies:
            router = Router(policies, tracer, baselines={POLICY: baseline})
            wait_for(policies, POLICY)
            for task in sums(given.requests, given.seed):
                async with tracer.span(Kind.AGENT, operation="answer"):
                    decision = router.choose(POLICY, task.context)
                    said = await answer(client, task, decision)
                right = task.right(said)
                tracer.feedback(decision, value=right)
                tally.add(task, decision, right)
    return tally.finish(tracer.close())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    return asyncio.run(run(settings("examples.agents.with_openai_agents", __doc__, arguments)))


if __name__ == "__main__":
    sys.exit(main())
