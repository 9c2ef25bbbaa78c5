"""The judge: another process, which scores each finished interaction a little later and sends the scores as feedback.

The whole answer's quality goes to the trace; what retrieval, synthesis and citation are each worth goes to their own
decisions, as evaluators of single steps do.
"""

from __future__ import annotations

import asyncio

import numpy as np

from examples.fleet.runtime import Settings, stop_on_signal, stop_with_parent, tell
from examples.fleet.wire import Message, port_of, serve
from examples.fleet.world import METRIC, SHARE, judged
from steersman import Topics, Tracer

MEAN_DELAY_S = 0.3
MAX_DELAY_S = 2.0


class Judge:
    """Scores interactions after an exponential delay."""

    def __init__(self, tracer: Tracer, settings: Settings) -> None:
        self._tracer = tracer
        self._rng = np.random.default_rng((settings.seed, 99))
        self._pending: set[asyncio.Task[None]] = set()

    async def handle(self, request: Message) -> Message:
        """Take an interaction to score; the answer comes at once, the feedback later."""
        delay = min(MAX_DELAY_S, float(self._rng.exponential(MEAN_DELAY_S)))
        task = asyncio.create_task(self._score(delay, request["trace_id"], request["steps"]))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return {}

    async def _score(self, delay: float, trace_id: str, steps: dict[str, Message]) -> None:
        await asyncio.sleep(delay)
        answer = 0.0
        for role, step in steps.items():
            score = judged(step["quality"], self._rng)
            answer += SHARE[role] * score
            if METRIC[role] != "quality":
                self._tracer.feedback(
                    step["decision_id"], metric=METRIC[role], value=score, source="judge", target_decision=True
                )
        self._tracer.feedback(trace_id, metric="quality", value=answer, source="judge", target_decision=False)

    async def drain(self) -> None:
        """Score what is still waiting."""
        await asyncio.gather(*self._pending)


async def run(settings: Settings) -> None:
    """Serve until told to stop, then score what is left."""
    stop = stop_on_signal()
    watch = asyncio.create_task(stop_with_parent(stop))
    topics = Topics(settings.topic_prefix)
    tracer = Tracer("judge", tenant=settings.tenant, brokers=settings.brokers, topics=topics)
    try:
        judge = Judge(tracer, settings)
        server = await serve(judge.handle)
        tell(ready="judge", port=port_of(server))
        await stop.wait()
        server.close()
        await judge.drain()
    finally:
        left = tracer.close(5.0)
        if left:
            tell(undelivered=left, warning=f"judge: {left} scores did not reach {settings.brokers}")
        watch.cancel()
