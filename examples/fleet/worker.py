"""A worker agent: retrieval, synthesis or citation. Decides, does its simulated work in spans, answers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import numpy as np

from examples.fleet.query import Query
from examples.fleet.runtime import (
    Agent,
    Settings,
    agent,
    policy_of,
    stop_on_signal,
    stop_with_parent,
    tell,
    wait_for_policy,
)
from examples.fleet.spans import record_work
from examples.fleet.wire import Message, port_of, serve
from examples.fleet.world import ROLES, Upstream, perform
from steersman import Kind


async def handle(role: str, me: Agent, settings: Settings, request: Message) -> Message:
    """Answer one request: the arm taken, the true outcome, and the ids that a judge needs."""
    query = Query.from_message(request["query"])
    upstream = Upstream(**request["upstream"])
    with me.tracer.span(Kind.AGENT, operation=role, parent=request["traceparent"]) as span:
        context = {**query.context(), **asdict(upstream)}
        decision = me.router.choose(policy_of(role), context)
        rng = np.random.default_rng((settings.seed, query.index, 1 + ROLES.index(role)))
        outcome = perform(role, query, decision.arm, upstream, rng)
        record_work(me.tracer, role, decision.arm, outcome)
        await asyncio.sleep(outcome.latency_us / 1e6 * settings.time_scale)
        span.set(duration_us=outcome.latency_us)
    return {
        "arm": dict(decision.arm),
        "decision_id": decision.decision_id,
        "mode": str(decision.mode),
        "version": decision.policy_version,
        "quality": outcome.quality,
        "cost_micro_usd": outcome.cost_micro_usd,
        "latency_us": outcome.latency_us,
    }


async def run(role: str, settings: Settings) -> None:
    """Serve until told to stop."""
    stop = stop_on_signal()
    watch = asyncio.create_task(stop_with_parent(stop))
    with agent(role, settings) as me:
        server = await serve(lambda request: handle(role, me, settings, request))
        await wait_for_policy(me.subscriber, policy_of(role), settings.wait_s, stop)
        tell(ready=role, port=port_of(server))
        await stop.wait()
        server.close()
    watch.cancel()
