"""What the benchmarks feed: traces of ten events as agents report them, the same from the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from learners.policies import Policies
from learners.policies_file import load_policies
from learners.spec import PolicySpec
from steersman import contracts

POLICIES = Path(__file__).with_name("policies.toml")
"""Policies of the traces."""
TENANTS = ("acme", "brook", "cedar", "delta")
AGENTS = tuple(f"agent-{number}" for number in range(10))
EVENTS_PER_TRACE = 10
ANSWER = "bench/answer"
"""Policy that every trace decides by."""
PAYLOAD = (
    f"records of trace_event.avsc, about 193 bytes; traces of {EVENTS_PER_TRACE} events (decision, retrieval, 2 model calls, 2 tool "
    f"calls, reasoning, agent span, feedback, end), {len(TENANTS)} tenants, {len(AGENTS)} agents"
)

_MODELS = ("model-large", "model-small", "model-tiny")
_TOOLS = ("search", "calculator", "browser")
_INTERLEAVED = 16  # traces that run at the same time
_NULLABLE = tuple(f["name"] for f in contracts.schema("trace_event")["fields"] if isinstance(f["type"], list))

Record = dict[str, Any]


@dataclass
class TraceMaker:
    """An endless source of traces.

    Parameters
    ----------
    seed
        Of everything.
    policies
        Must hold `ANSWER` for every one of `TENANTS`.
    """

    seed: int
    policies: Policies = field(default_factory=lambda: load_policies(POLICIES))

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)  # noqa: S311  (reproducible data, no secret)
        self._answers: dict[str, PolicySpec] = {}
        for tenant in TENANTS:
            spec = self.policies.get(tenant, ANSWER)
            if spec is None:
                raise ValueError(f"no policy {tenant}/{ANSWER}")
            self._answers[tenant] = spec
        self._blank: Record = {
            **dict.fromkeys(_NULLABLE), "status": "OK", "features": [], "eligible": [], "truncated": False,
        }  # fmt: skip

    def trace(self) -> list[Record]:
        """Return the events of one trace in order, with `ts` 0."""
        rng = self._rng
        tenant, agent, trace = rng.choice(TENANTS), rng.choice(AGENTS), self._id(128)
        policy = self._answers[tenant]
        root, step = self._id(64), self._id(64)
        base = self._blank | {"tenant": tenant, "agent": agent, "trace_id": trace, "ts": 0}

        def event(kind: str, span: str, parent: str | None = None, **fields: Any) -> Record:
            return base | {"event_id": self._id(128), "kind": kind, "span_id": span, "parent_span_id": parent} | fields

        def call(kind: str, operation: str, cost: int) -> Record:
            return event(
                kind, self._id(64), step, operation=operation, cost_micro_usd=rng.randint(1, cost),
                duration_us=rng.randint(1_000, 5_000_000), input_tokens=rng.randint(10, 8_000),
                output_tokens=rng.randint(1, 900),
            )  # fmt: skip

        decided = self._id(64)
        return [
            event(
                "DECISION", decided, step, decision_id=f"{trace}-{decided}", policy=ANSWER, policy_epoch=1,
                policy_version=0, arm=rng.choice(policy.arms.labels), propensity=1 / len(policy.arms), explored=False,
                mode="LIVE", features=[*(rng.uniform(-1, 1) for _ in range(policy.features.dim - 1)), 1.0],
            ),
            call("RETRIEVAL", "vector-store", 40),
            call("MODEL_CALL", rng.choice(_MODELS), 20_000),
            call("TOOL_CALL", rng.choice(_TOOLS), 300),
            call("TOOL_CALL", rng.choice(_TOOLS), 300),
            call("MODEL_CALL", rng.choice(_MODELS), 20_000),
            event("REASONING", self._id(64), step, duration_us=rng.randint(1_000, 900_000)),
            event("AGENT", step, root, operation="answer", duration_us=rng.randint(100_000, 9_000_000)),
            event("FEEDBACK", self._id(64), metric="quality", value=rng.random()),
            event("END", root),
        ]  # fmt: skip

    def interleaved(self) -> Iterator[Record]:
        """Yield the events of many traces that run at the same time."""
        while True:
            traces = [self.trace() for _ in range(_INTERLEAVED)]
            yield from (record for record in chain.from_iterable(zip_longest(*traces)) if record is not None)

    def _id(self, bits: int) -> str:
        return f"{self._rng.getrandbits(bits) | 1:0{bits // 4}x}"


def spaced(records: Iterator[Record], count: int, first_us: int, spacing_us: int) -> Iterator[Record]:
    """Yield so many of the records, with event times at even distances; unit: microseconds since 1970-01-01 UTC."""
    for number, record in enumerate(islice(records, count)):
        record["ts"] = first_us + number * spacing_us
        yield record
