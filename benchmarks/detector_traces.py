"""Labelled traces for the detectors: some show a failure, benign ones look much like it.

Every case is drawn at random within the bounds of its description, so that a threshold can be right for one seed and wrong for
another. Thresholds were set on seeds below 100; `benchmarks.detectors` measures on others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from learners.spec import PolicySpec

S = 1_000_000
Event = dict[str, Any]
_MODELS = ("model-small", "model-large")
_TOOLS = ("search", "read_file", "run_tests", "fetch", "sql")


@dataclass
class TraceCase:
    """One trace.

    Attributes
    ----------
    label
        Detector that is to hit, empty for a benign one.
    looks_like
        Detector that it is made for.
    what
        Description.
    events
        Fields of its events; `after_us` says how long after the one before each comes.
    """

    label: str
    looks_like: str
    what: str
    events: list[Event] = field(default_factory=list)


class Script:
    """Writes the events of one trace.

    Parameters
    ----------
    rng
        Draws ids, names and amounts.
    policy
        Policy of its decision.
    """

    def __init__(self, rng: random.Random, policy: PolicySpec) -> None:
        self.rng = rng
        self._policy = policy
        self.trace = f"{rng.getrandbits(128) | 1:032x}"
        self.root = self.span_id()
        self.events: list[Event] = []
        self.agent = rng.choice(("planner", "researcher", "coder"))

    def span_id(self) -> str:
        """A fresh span id."""
        return f"{self.rng.getrandbits(64) | 1:016x}"

    def args(self) -> str:
        """A hash of arguments that no other call has."""
        return f"{self.rng.getrandbits(64):016x}"

    def add(self, kind: str, after_us: int | None = None, **fields: Any) -> Event:
        """Write an event."""
        event: Event = {
            "event_id": f"{self.rng.getrandbits(128):032x}", "tenant": "default", "trace_id": self.trace,
            "span_id": self.span_id(), "parent_span_id": self.root, "agent": self.agent, "kind": kind, "status": "OK",
            "after_us": self.rng.randrange(2_000, 40_000) if after_us is None else after_us, **fields,
        }  # fmt: skip
        self.events.append(event)
        return event

    def decide(self) -> str:
        """Write a decision of the policy; returns its id."""
        span = self.span_id()
        decision_id = f"{self.trace}-{span}"
        self.add(
            "DECISION", span_id=span, decision_id=decision_id, policy=self._policy.name,
            arm=self.rng.choice(self._policy.arms.labels), propensity=1.0 / len(self._policy.arms), explored=False, mode="LIVE",
            features=[1.0] * self._policy.features.dim,
        )  # fmt: skip
        return decision_id

    def model(self, **fields: Any) -> Event:
        """Write a model call that says something."""
        rng = self.rng
        usual = {
            "operation": rng.choice(_MODELS), "duration_us": rng.randrange(10_000, 900_000), "cost_micro_usd": rng.randrange(50, 20_000),
            "input_tokens": rng.randrange(200, 9_000), "output_tokens": rng.randrange(1, 900), "context_limit": 128_000,
        }  # fmt: skip
        usual["context_tokens"] = usual["input_tokens"]
        return self.add("MODEL_CALL", **{**usual, **fields})

    def tool(self, **fields: Any) -> Event:
        """Write a tool call of its own arguments."""
        usual = {
            "operation": self.rng.choice(_TOOLS), "args_hash": self.args(), "duration_us": self.rng.randrange(1_000, 300_000),
        }  # fmt: skip
        return self.add("TOOL_CALL", **{**usual, **fields})

    def chatter(self, most: int = 3) -> None:
        """Write some ordinary calls."""
        for _ in range(self.rng.randrange(most + 1)):
            self.rng.choice((self.model, self.tool))()

    def close(self, quality: float | None = None) -> None:
        """Write the root span, the end and an evaluation."""
        self.add("AGENT", span_id=self.root, parent_span_id=None, duration_us=S)
        self.add("END", span_id=self.root, parent_span_id=None)
        if quality is None:
            quality = self.rng.uniform(0.5, 1.0)
        self.add(
            "FEEDBACK", metric=self._policy.reward.metric, value=quality, span_id=self.span_id(), parent_span_id=None
        )


Play = Callable[[Script], float | None]
"""Writes what is special about a case; returns the quality of its evaluation, None for a good one."""


def _loop(s: Script) -> None:
    call = {"operation": s.rng.choice(_TOOLS), "args_hash": s.args()}
    for _ in range(s.rng.randrange(4, 11)):
        s.tool(**call)
        if s.rng.random() < 0.6:
            s.model()


def _loop_of_two(s: Script) -> None:
    calls = [{"operation": name, "args_hash": s.args()} for name in s.rng.sample(_TOOLS, 2)]
    for _ in range(s.rng.randrange(4, 8)):
        for call in calls:
            s.tool(**call)


def _loop_beside_work(s: Script) -> None:
    call = {"operation": s.rng.choice(_TOOLS), "args_hash": s.args()}
    for _ in range(s.rng.randrange(12, 18)):
        s.tool(**call)
        s.tool()


def _pages(s: Script) -> None:
    name = s.rng.choice(_TOOLS)
    for _ in range(s.rng.randrange(5, 15)):
        s.tool(operation=name)


def _read_after_edits(s: Script) -> None:
    read = s.args()
    for _ in range(s.rng.randrange(4, 9)):
        s.tool(operation="read_file", args_hash=read)
        s.tool(operation="edit_file")


def _asked_twice(s: Script) -> None:
    call = {"operation": s.rng.choice(_TOOLS), "args_hash": s.args()}
    for _ in range(s.rng.choice((2, 3))):
        s.tool(**call)
        s.chatter(1)


def _ping_pong(s: Script) -> None:
    agents = s.rng.sample(("writer", "critic", "router", "billing", "support"), 2)
    for turn in range(s.rng.randrange(7, 15)):
        s.agent = agents[turn % 2]
        if s.rng.random() < 0.7:
            s.model()
        s.add("AGENT", duration_us=S)


def _plan_and_execute(s: Script) -> None:
    for turn in range(s.rng.randrange(8, 16)):
        s.agent = ("planner", "executor")[turn % 2]
        s.model()
        if s.agent == "executor":
            s.tool()
        s.add("AGENT", duration_us=S)


def _round_of_three(s: Script) -> None:
    for turn in range(s.rng.randrange(6, 16)):
        s.agent = ("retrieval", "synthesis", "citation")[turn % 3]
        s.model()
        s.add("AGENT", duration_us=S)


def _short_exchange(s: Script) -> None:
    for turn in range(s.rng.randrange(2, 6)):
        s.agent = ("writer", "critic")[turn % 2]
        s.model()
        s.add("AGENT", duration_us=S)


def _storm(s: Script) -> None:
    name = s.rng.choice(_TOOLS)
    same = s.args() if s.rng.random() < 0.5 else None
    for _ in range(s.rng.randrange(4, 10)):
        s.tool(operation=name, args_hash=same or s.args(), status=s.rng.choice(("ERROR", "TIMEOUT")), error="HTTPError")
        if s.rng.random() < 0.4:
            s.model()
    if s.rng.random() < 0.4:
        s.tool(operation=name)


def _model_storm(s: Script) -> None:
    name = s.rng.choice(_MODELS)
    for _ in range(s.rng.randrange(4, 8)):
        s.model(operation=name, status="ERROR", error="RateLimitError", output_tokens=None, context_tokens=None)


def _retry_that_succeeds(s: Script) -> None:
    for _ in range(s.rng.randrange(1, 4)):
        call = {"operation": s.rng.choice(_TOOLS), "args_hash": s.args()}
        for _ in range(s.rng.randrange(1, 4)):
            s.tool(**call, status="ERROR", error="HTTPError")
        s.tool(**call)


def _flaky(s: Script) -> None:
    name = s.rng.choice(_TOOLS)
    for _ in range(s.rng.randrange(4, 9)):
        s.tool(operation=name, status="ERROR", error="HTTPError")
        s.tool(operation=name)


def _failures_of_many(s: Script) -> None:
    for name in _TOOLS:
        for _ in range(s.rng.randrange(1, 3)):
            s.tool(operation=name, status="TIMEOUT", error="TimeoutError")


def _cancelled(s: Script) -> None:
    for _ in range(s.rng.randrange(4, 8)):
        s.tool(operation="fetch", status="CANCELLED", error="CancelledError")


def _costly(s: Script) -> None:
    left = s.rng.randrange(5_200_000, 15_000_000)
    while left > 0:
        cost = min(left, s.rng.randrange(200_000, 900_000))
        s.model(cost_micro_usd=cost)
        left -= cost


def _deep(s: Script) -> None:
    parents = [s.root]
    for _ in range(s.rng.randrange(20, 40)):
        parents.append(s.span_id())
    # Spans end inside out.
    for parent, own in zip(reversed(parents[:-1]), reversed(parents[1:]), strict=True):
        s.add("REASONING", span_id=own, parent_span_id=parent, duration_us=S)


def _dear(s: Script) -> None:
    left = s.rng.randrange(2_000_000, 4_900_000)
    while left > 60_000:
        cost = min(left, s.rng.randrange(50_000, 400_000))
        s.model(cost_micro_usd=cost)
        left -= cost


def _broad(s: Script) -> None:
    for _ in range(s.rng.randrange(4, 10)):
        parent = s.span_id()
        for _ in range(s.rng.randrange(3, 9)):
            s.tool(parent_span_id=parent)
        s.add("REASONING", span_id=parent, duration_us=S)


def _nested(s: Script) -> None:
    parents = [s.root] + [s.span_id() for _ in range(s.rng.randrange(5, 14))]
    for parent, own in zip(reversed(parents[:-1]), reversed(parents[1:]), strict=True):
        s.add("REASONING", span_id=own, parent_span_id=parent, duration_us=S)


def _full(s: Script) -> None:
    s.chatter()
    s.model(context_tokens=s.rng.randrange(128_000, 140_000))


def _too_long(s: Script) -> None:
    error = s.rng.choice(("ContextWindowExceededError", "context_length_exceeded", "ContextOverflowError"))
    s.model(status="ERROR", error=error, output_tokens=None, context_tokens=None)


def _cut(s: Script) -> None:
    name, limit = s.rng.choice(_MODELS), 128_000
    for share in sorted(s.rng.uniform(0.5, 0.9) for _ in range(3)):
        s.model(operation=name, context_tokens=int(share * limit))
    s.model(operation=name, context_tokens=int(s.rng.uniform(0.92, 0.99) * limit))
    for _ in range(s.rng.randrange(2, 5)):
        s.model(operation=name, context_tokens=int(s.rng.uniform(0.1, 0.5) * limit))


def _long_but_fine(s: Script) -> None:
    name, share = s.rng.choice(_MODELS), s.rng.uniform(0.4, 0.7)
    while share < 0.97:
        s.model(operation=name, context_tokens=int(share * 128_000))
        share += s.rng.uniform(0.02, 0.12)


def _helper_between(s: Script) -> None:
    name = s.rng.choice(_MODELS)
    for _ in range(s.rng.randrange(2, 5)):
        s.model(operation=name, context_tokens=int(s.rng.uniform(0.91, 0.98) * 128_000))
        # A title, a summary of one document: small, and then back to the long one.
        s.model(operation=name if s.rng.random() < 0.5 else "model-helper", context_tokens=s.rng.randrange(500, 9_000))
    s.model(operation=name, context_tokens=int(s.rng.uniform(0.91, 0.98) * 128_000))


def _other_context_error(s: Script) -> None:
    s.tool(status="ERROR", error=s.rng.choice(("RequestContextError", "MissingContext", "LengthRequired")))


def _says_nothing(s: Script) -> None:
    s.chatter()
    s.model(output_tokens=0)


def _only_thinks(s: Script) -> None:
    thought = s.rng.randrange(200, 8_000)
    s.model(output_tokens=thought, reasoning_tokens=thought)


def _terse(s: Script) -> None:
    s.model(output_tokens=s.rng.randrange(1, 4))
    thought = s.rng.randrange(200, 8_000)
    s.model(output_tokens=thought + s.rng.randrange(1, 50), reasoning_tokens=thought)


def _embeds(s: Script) -> None:
    for _ in range(s.rng.randrange(1, 5)):
        s.model(operation="text-embedding-3-small", output_tokens=0, context_tokens=None)


def _failed_empty(s: Script) -> None:
    s.model(status="ERROR", error="APIError", output_tokens=0, context_tokens=None)
    s.model(output_tokens=None)


def _wrong(s: Script) -> float:
    s.chatter()
    return s.rng.uniform(0.0, 0.29)


def _middling(s: Script) -> float:
    s.chatter()
    return s.rng.uniform(0.31, 0.6)


def _wrong_and_failed(s: Script) -> float:
    s.tool(status="ERROR", error="HTTPError")
    return s.rng.uniform(0.0, 0.29)


TRACE_CASES: dict[str, tuple[Sequence[Play], Sequence[Play]]] = {
    "tool_loop": ((_loop, _loop_of_two, _loop_beside_work), (_pages, _read_after_edits, _asked_twice)),
    "ping_pong": ((_ping_pong,), (_plan_and_execute, _round_of_three, _short_exchange)),
    "retry_storm": ((_storm, _model_storm), (_retry_that_succeeds, _flaky, _failures_of_many, _cancelled)),
    "runaway": ((_costly, _deep), (_dear, _broad, _nested)),
    "context_overflow": ((_full, _too_long, _cut), (_long_but_fine, _helper_between, _other_context_error)),
    "empty_output": ((_says_nothing, _only_thinks), (_terse, _embeds, _failed_empty)),
    "plausible_but_wrong": ((_wrong,), (_middling, _wrong_and_failed)),
}
"""By detector: what shows the failure, and what only looks like it."""


def trace_case(rng: random.Random, policy: PolicySpec, detector: str, *, positive: bool) -> TraceCase:
    """Draw a trace for a detector."""
    play = rng.choice(TRACE_CASES[detector][0 if positive else 1])
    script = Script(rng, policy)
    script.decide()
    script.chatter()
    quality = play(script)
    script.chatter()
    script.close(quality)
    return TraceCase(detector if positive else "", detector, play.__name__.strip("_"), script.events)


def trace_cases(seed: int, policy: PolicySpec, count: int) -> Iterator[TraceCase]:
    """Draw so many traces for each detector, about half of them benign."""
    rng = random.Random(seed)  # noqa: S311 - cases, not secrets
    for _ in range(count):
        for detector in TRACE_CASES:
            yield trace_case(rng, policy, detector, positive=rng.random() < 0.5)
