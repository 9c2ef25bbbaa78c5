"""The orchestrator: takes the queries as they come, plans, asks the other agents in turn, and ends the trace."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from examples.fleet.query import Query, draw_query
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
from examples.fleet.tally import Interaction, Tally
from examples.fleet.wire import Message, Peer
from examples.fleet.world import DOCUMENT_TOKENS, SHARE, Upstream, arm_index, perform
from steersman import Kind

ROLE = "orchestrator"
PROGRESS_S = 5.0


class Orchestrator:
    """Runs interactions over connections to the three workers and the judge."""

    def __init__(self, me: Agent, settings: Settings, peers: dict[str, Peer]) -> None:
        self._me = me
        self._settings = settings
        self._peers = peers
        self.tally = Tally()

    async def interact(self, index: int) -> None:
        """Handle one query from its arrival to the end of its trace."""
        query = draw_query(self._settings.seed, index)
        steps: dict[str, Message] = {}
        with self._me.tracer.span(Kind.AGENT, operation="research", session_id=f"session-{index // 5}") as root:
            plan = await self._plan(query)
            steps[ROLE] = plan
            upstream = Upstream(subagents=int(plan["arm"]["subagents"]))
            for role in ("retrieval", "synthesis", "citation"):
                steps[role] = await self._ask(role, query, upstream, root.traceparent)
                if role == "retrieval":
                    found = int(DOCUMENT_TOKENS[arm_index(role, steps[role]["arm"])])
                    upstream = Upstream(upstream.subagents, found)
            latency_us = sum(step["latency_us"] for step in steps.values())
            root.set(duration_us=latency_us)
            trace_id = root.trace_id
        await self._peers["judge"].call({"trace_id": trace_id, "steps": steps})
        self.tally.add(
            Interaction(
                query=query,
                setting={role: step["arm"] for role, step in steps.items()},
                modes=tuple(step["mode"] for step in steps.values()),
                version=plan["version"],
                latency_us=latency_us,
                cost_micro_usd=sum(step["cost_micro_usd"] for step in steps.values()),
                quality=sum(SHARE[role] * step["quality"] for role, step in steps.items()),
            )
        )

    async def _plan(self, query: Query) -> Message:
        decision = self._me.router.choose(policy_of(ROLE), query.context())
        rng = np.random.default_rng((self._settings.seed, query.index, 1))
        outcome = perform(ROLE, query, decision.arm, Upstream(), rng)
        record_work(self._me.tracer, ROLE, decision.arm, outcome)
        await asyncio.sleep(outcome.latency_us / 1e6 * self._settings.time_scale)
        return {
            "arm": dict(decision.arm),
            "decision_id": decision.decision_id,
            "mode": str(decision.mode),
            "version": decision.policy_version,
            "quality": outcome.quality,
            "cost_micro_usd": outcome.cost_micro_usd,
            "latency_us": outcome.latency_us,
        }

    async def _ask(self, role: str, query: Query, upstream: Upstream, traceparent: str) -> Message:
        answer = await self._peers[role].call(
            {
                "traceparent": traceparent,
                "query": query.to_message(),
                "upstream": {"subagents": upstream.subagents, "document_tokens": upstream.document_tokens},
            }
        )
        if "error" in answer:
            raise RuntimeError(f"{role} failed: {answer['error']}")
        return answer

    async def drive(self, stop: asyncio.Event) -> None:
        """Start interactions at the set rate until the time is over or `stop` is set; wait for those under way."""
        settings, running = self._settings, set[asyncio.Task[None]]()
        started = time.monotonic()
        told, index = started, 0
        while not stop.is_set() and (not settings.seconds or time.monotonic() - started < settings.seconds):
            due = started + index / settings.rate
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self._counted(index))
            running.add(task)
            task.add_done_callback(running.discard)
            index += 1
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                tell(progress=self.tally.recent(), seconds=round(told - started, 1))
            elif pause <= 0:
                await asyncio.sleep(0)
        await asyncio.gather(*running)

    async def _counted(self, index: int) -> None:
        try:
            await self.interact(index)
        except (ConnectionError, RuntimeError) as error:
            self.tally.failed(str(error))


async def run(settings: Settings, ports: dict[str, int]) -> None:
    """Drive the fleet, then tell the summary."""
    stop = stop_on_signal()
    watch = asyncio.create_task(stop_with_parent(stop))
    with agent(ROLE, settings) as me:
        peers = {role: await Peer.connect(port) for role, port in ports.items()}
        known = await wait_for_policy(me.subscriber, policy_of(ROLE), settings.wait_s, stop)
        tell(ready=ROLE, policy=known)
        fleet = Orchestrator(me, settings, peers)
        await fleet.drive(stop)
        for peer in peers.values():
            await peer.close()
        tell(summary=fleet.tally.summary())
    watch.cancel()
