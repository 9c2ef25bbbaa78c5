"""A LangGraph agent: ``python -m examples.agents.with_langgraph``. Its spans are OpenTelemetry's, its feedback is JSON, both by the doors.

Only the decision is made with our package: under the traceparent of the OpenTelemetry span, so that it belongs to the same trace.
The workers price the calls: start ``steersman up`` with ``STEERSMAN_PRICES=examples/agents/prices.toml``.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from openai import OpenAI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from examples.agents.task import Settings, Sum, Tally, settings, sums, wait_for
from steersman import Decision, Kind, PolicySubscriber, Router, Tracer

POLICY = "sums/langgraph"


class State(TypedDict, total=False):
    """What the nodes of the graph hand on."""

    task: Sum
    decision: Decision
    answer: str


def build(router: Router, tracer: Tracer, client: OpenAI) -> Any:
    """Return the graph: route, and then the node of the model that was chosen."""

    def route(state: State) -> State:
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        with tracer.span(Kind.AGENT, operation="route", parent=headers["traceparent"]):
            return {"decision": router.choose(POLICY, state["task"].context)}

    def answer_with(model: str) -> Any:
        def node(state: State) -> State:
            question = state["task"].question
            reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
            return {"answer": reply.choices[0].message.content or ""}

        return node

    graph = StateGraph(State)
    graph.add_node("route", route)
    for model in ("small", "large"):
        graph.add_node(model, answer_with(model))
        graph.add_edge(model, END)
    graph.add_edge(START, "route")
    graph.add_conditional_edges("route", lambda state: state["decision"].arm["model"], ["small", "large"])
    return graph.compile()


def feed_back(doors: str, decision: Decision, right: bool) -> None:
    """Say how it turned out, as anything that speaks HTTP can."""
    body = json.dumps({"decision_id": decision.decision_id, "value": right, "id": decision.decision_id}).encode()
    request = urllib.request.Request(f"{doors}/v1/feedback", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        reply.read()


def run(given: Settings) -> int:
    """Answer the requests; returns the exit code."""
    provider = TracerProvider(resource=Resource.create({"service.name": "langgraph"}))
    exporter = OTLPSpanExporter(endpoint=f"{given.doors}/v1/traces")
    # By default spans wait up to 5 s for company: the loop would be that much slower.
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    spans = provider.get_tracer("examples.agents")
    tracer = Tracer("langgraph")
    tally = Tally(given.requests, given.as_json)
    with PolicySubscriber(policies=[POLICY]).start() as policies:
        router = Router(policies, tracer, baselines={POLICY: {"model": "large"}})
        graph = build(router, tracer, OpenAI(base_url=given.models, api_key="none"))
        wait_for(policies, POLICY)
        for task in sums(given.requests, given.seed):
            with spans.start_as_current_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
                state = graph.invoke({"task": task})
            right = task.right(state["answer"])
            feed_back(given.doors, state["decision"], right)
            tally.add(task, state["decision"], right)
    provider.shutdown()
    return tally.finish(tracer.close())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    return run(settings("examples.agents.with_langgraph", __doc__, arguments))


if __name__ == "__main__":
    sys.exit(main())
