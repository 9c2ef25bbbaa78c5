"""Seeded traffic of many agents: interleaved traces with decisions, spans, feedback and what goes wrong with them.

Whatever a trace reports comes before its END, so that every decision of it is due exactly one reward, whose cost is the
sum of the spans below the decision and whose quality is the feedback of the earliest event time, however the records
are delayed, repeated or shuffled.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from learners.policies import Policies
from learners.spec import PolicySpec
from steersman.codec import Codec
from tests.faults.poison import OUT_OF_RANGE, Poison
from tests.streams.trace_events import NULLABLE

_JITTER_US = 300_000
_OPEN_TRACES = 40
_REPEAT_WITHIN = 2000  # records between an event and its repetition, at most


@dataclass(frozen=True)
class Mix:
    """Shares of what goes wrong, of all records (0 to 1).

    Attributes
    ----------
    duplicates
        Events sent again, as they were.
    poison
        Records that are no events.
    bombs
        Avro made to exhaust a decoder.
    garbage
        Feedback whose value is NaN, infinite or out of range.
    disorder
        Share of *traces* whose feedback comes before its decision, twice, contradicts itself, or is for a decision
        that nobody made.
    """

    duplicates: float = 0.0
    poison: float = 0.0
    bombs: float = 0.0
    garbage: float = 0.0
    disorder: float = 0.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to send, and the fields of its line in the producer's ledger as JSON without the closing brace."""

    key: bytes
    value: bytes
    line: str


class Traffic:
    """An endless stream of records.

    Parameters
    ----------
    seed
        Of everything but the times.
    policies
        Whose decisions the agents make.
    mix
        What goes wrong.
    """

    def __init__(self, seed: int, policies: Policies, mix: Mix):
        self._rng = random.Random(seed)
        self._policies = list(policies)
        self._mix = mix
        self._codec = Codec("trace_event")
        self._poison = Poison(self._rng, self._codec)
        self._blank: dict[str, Any] = {
            **dict.fromkeys(NULLABLE), "status": "OK", "features": [], "eligible": [], "truncated": False, "agent": "agent",
        }  # fmt: skip
        self._again: list[tuple[int, int, Sent]] = []  # heap of (when it is due, tie-breaker, record)
        self._made = 0

    def records(self, count: int) -> Iterator[Sent]:
        """Yield about so many records: traces are not cut off in the middle."""
        rng, mix = self._rng, self._mix
        wrong = mix.poison + mix.bombs + mix.garbage
        original = max(1e-9, 1 - mix.duplicates - wrong)
        open_traces: list[Iterator[Sent]] = []
        while open_traces or self._again or self._made < count:
            enough = self._made + 10 * len(open_traces) + len(self._again) >= count
            while not enough and len(open_traces) < _OPEN_TRACES:
                open_traces.append(self._trace())
                enough = self._made + 10 * len(open_traces) + len(self._again) >= count
            if self._again and (self._again[0][0] <= self._made or not open_traces):
                self._made += 1
                yield heappop(self._again)[2]
                continue
            if not open_traces:
                return
            at = rng.randrange(len(open_traces))
            record = next(open_traces[at], None)
            if record is None:
                open_traces[at] = open_traces[-1]
                open_traces.pop()
                continue
            self._made += 1
            yield record
            if rng.random() < mix.duplicates / original:
                heappush(self._again, (self._made + rng.randrange(_REPEAT_WITHIN), self._made, record))
            if rng.random() < wrong / original:
                self._made += 1
                yield self._wrong()

    def closing(self, ahead_s: float) -> Sent:
        """Return a tick so far ahead that everything before it in its partition becomes due, and that counts nowhere."""
        ts = time.time_ns() // 1000 + int(ahead_s * 1e6)
        return self._event(self._policies[0].tenant, self._id(128), "TICK", ts, span_id=self._id(64))

    # -- one trace

    def _trace(self) -> Iterator[Sent]:
        """Yield the records of one trace, each with the time at which it is asked for."""
        rng = self._rng
        first = rng.choice(self._policies)
        tenant, trace, root = first.tenant, self._id(128), self._id(64)
        mine = [p for p in self._policies if p.tenant == tenant]
        decided = [first, rng.choice(mine)] if rng.random() < 0.4 else [first]
        steps = [(policy, self._id(64), self._id(64)) for policy in decided]  # policy, step's span, decision's span
        times = _Times(rng)
        plan: list[Iterator[Sent]] = [self._step(tenant, trace, root, times, *step) for step in steps]
        if rng.random() < 0.85:
            target = None if rng.random() < 0.7 else f"{trace}-{steps[0][2]}"
            plan.insert(
                0 if rng.random() < self._mix.disorder else len(plan), self._feedback(tenant, trace, times, target)
            )
        for part in plan:
            yield from part
        yield self._event(tenant, trace, "AGENT", times.next(), span_id=root, duration_us=rng.randint(1000, 900_000))
        yield self._event(tenant, trace, "END", times.next(), span_id=root)

    def _step(
        self, tenant: str, trace: str, root: str, times: _Times, policy: PolicySpec, step: str, span: str
    ) -> Iterator[Sent]:
        """Yield a decision and the work below it, in an order of chance."""
        rng = self._rng
        decision = f"{trace}-{span}"

        def decide() -> Sent:
            dim = policy.features.dim
            return self._event(
                tenant, trace, "DECISION", times.next(), f',"decision_id":"{decision}","policy":"{policy.key}"',
                span_id=span, parent_span_id=step, decision_id=decision, policy=policy.name, policy_epoch=1,
                policy_version=0, arm=rng.choice(policy.arms.labels), propensity=0.5, explored=False, mode="LIVE",
                features=[*(rng.uniform(-1, 1) for _ in range(dim - 1)), 1.0],
            )  # fmt: skip

        def work(kind: str, name: str, parent: str, cost: int | None) -> Sent:
            return self._event(
                tenant, trace, kind, times.next(), f',"charged_to":"{decision}"', span_id=self._id(64),
                parent_span_id=parent, operation=name, cost_micro_usd=cost, duration_us=rng.randint(100, 500_000),
                input_tokens=rng.randint(10, 4000), output_tokens=rng.randint(1, 900),
            )  # fmt: skip

        parts: list[Callable[[], Sent]] = [
            decide,
            lambda: work("MODEL_CALL", "model-large", step, rng.randint(1, 5000)),
            lambda: work("TOOL_CALL", "search", step, rng.randint(1, 300)),
            lambda: work("AGENT", "step", root, None),
        ]
        if rng.random() < 0.5:
            parts.append(lambda: work("MODEL_CALL", "model-small", step, rng.randint(1, 500)))
        rng.shuffle(parts)
        for make in parts:
            yield make()

    def _feedback(self, tenant: str, trace: str, times: _Times, target: str | None) -> Iterator[Sent]:
        rng = self._rng
        value = rng.random()
        yield self._judge(tenant, trace, times.next(), value, target)
        if rng.random() < self._mix.disorder:
            yield self._judge(tenant, trace, times.next(), value, target)
        if rng.random() < self._mix.disorder:
            yield self._judge(tenant, trace, times.next(), 1 - value, target)
        if rng.random() < self._mix.disorder:
            yield self._judge(tenant, trace, times.next(), value, f"{trace}-{self._id(64)}")

    def _judge(self, tenant: str, trace: str, ts: int, value: float, target: str | None) -> Sent:
        note = f',"value":{json.dumps(value)},"target":{json.dumps(target)},"ts":{ts}'
        return self._event(
            tenant, trace, "FEEDBACK", ts, note,
            span_id=self._id(64), metric="quality", value=value, target_decision_id=target,
        )  # fmt: skip

    # -- what goes wrong

    def _wrong(self) -> Sent:
        rng, mix = self._rng, self._mix
        chance = rng.random() * (mix.poison + mix.bombs + mix.garbage)
        event_id, trace, tenant = self._id(128), self._id(128), rng.choice(self._policies).tenant
        event = {
            **self._blank, "event_id": event_id, "tenant": tenant, "trace_id": trace, "span_id": self._id(64),
            "kind": "FEEDBACK", "ts": time.time_ns() // 1000, "metric": "quality", "value": 0.5,
        }  # fmt: skip
        what, kind = "undecodable", "FEEDBACK"
        if chance < mix.poison:
            kind, value = "POISON", self._poison.rubbish(self._codec.encode(event))
        elif chance < mix.poison + mix.bombs:
            kind, value = "BOMB", self._poison.bomb(event)
        elif rng.random() < 0.5:
            value = self._poison.not_finite(event)
        else:
            what, value = "invalid", self._codec.encode({**event, "value": rng.choice(OUT_OF_RANGE)})
        return Sent(trace.encode(), value, _line(event_id, kind, tenant, trace, 0, what, ""))

    # -- records

    def _event(self, tenant: str, trace: str, kind: str, ts: int, note: str = "", **fields: Any) -> Sent:
        event_id = self._id(128)
        record = self._blank | fields
        record["event_id"] = event_id
        record["tenant"] = tenant
        record["trace_id"] = trace
        record["kind"] = kind
        record["ts"] = ts
        amount = fields.get("cost_micro_usd") or 0
        return Sent(
            trace.encode(), self._codec.encode(record), _line(event_id, kind, tenant, trace, amount, "event", note)
        )

    def _id(self, bits: int) -> str:
        return f"{self._rng.getrandbits(bits) | 1:0{bits // 4}x}"


class _Times:
    """Event times of one trace: the machine's, a little behind, and growing."""

    def __init__(self, rng: random.Random):
        self._behind = rng.randrange(_JITTER_US)
        self._last = 0

    def next(self) -> int:
        self._last = max(self._last + 1, time.time_ns() // 1000 - self._behind)
        return self._last


def _line(event_id: str, kind: str, tenant: str, trace: str, amount: int, what: str, note: str) -> str:
    poison = "true" if what == "undecodable" else "false"
    return (
        f'{{"event_id":"{event_id}","kind":"{kind}","tenant":"{tenant}","trace_id":"{trace}","amount":{amount},'
        f'"poison":{poison},"what":"{what}"{note}'
    )
