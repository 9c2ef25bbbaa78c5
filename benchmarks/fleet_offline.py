"""The research assistant fleet without a broker: simulated time, and otherwise the platform's own code.

Agents decide with the router's scoring under the snapshots published so far (`steersman.scoring`); what they did and how it was
judged become trace events in event time; `streams.trace_stage` joins and credits them, `streams.learning_stage` learns and
publishes at its intervals. Left out are Kafka, Faust, the encoding and the processes of the agents. The same policies file
and seed give the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np

from examples.fleet.judge import MAX_DELAY_S, MEAN_DELAY_S
from examples.fleet.query import Query, draw_query
from examples.fleet.spans import call_of
from examples.fleet.tally import Interaction
from examples.fleet.world import (
    DOCUMENT_TOKENS,
    METRIC,
    RETRY_US,
    ROLES,
    SHARE,
    Level,
    Outcome,
    Upstream,
    arm_index,
    judged,
    perform,
)
from learners.policies import Policies
from learners.spec import PolicySpec
from steersman import contracts
from steersman.scoring import Scorer, draw
from steersman.snapshot import PolicySnapshot
from streams.learning_stage import LearningStage
from streams.trace_stage import TraceStage

Rewrite = Callable[[dict[str, Any], Interaction], None]

T0: Final = 1_790_000_000_000_000
"""When a run begins; unit: microseconds since 1970-01-01 UTC."""
STEP_US: Final = 50_000
"""How often the workers look for events and rewards; unit: microseconds of simulated time."""
_PUBLISHED_US: Final = 5_000  # from the learner to an agent's next decision
_NULLABLE: Final = tuple(f["name"] for f in contracts.schema("trace_event")["fields"] if isinstance(f["type"], list))


class OfflineFleet:
    """A cold start of the fleet.

    Parameters
    ----------
    policies : Policies
        With the four policies ``research/<role>``.
    seed : int
        Of queries, noise, decisions and judge.
    steps_judged : bool
        Whether the judge scores single steps too, or only the whole answer.
    rate : float
        Interactions per second of simulated time.
    holdout : float
        Share of the interactions that keep the baselines.
    publish_interval_us : int
        Shortest time between two snapshots, see `streams.learning_stage.LearningStage`; unit: microseconds.
    rewrite : callable, optional
        Gets each reward record and its interaction, and changes the record, before it is learned: for credit that only a
        simulation can give.
    """

    def __init__(
        self,
        policies: Policies,
        seed: int,
        *,
        steps_judged: bool = True,
        rate: float = 40.0,
        holdout: float = 0.1,
        publish_interval_us: int = 100_000,
        rewrite: Rewrite | None = None,
    ) -> None:
        self._seed, self._steps_judged, self._holdout = seed, steps_judged, holdout
        self._gap_us = round(1e6 / rate)
        self._rewrite = rewrite
        self._by_trace: dict[str, Interaction] = {}
        self._rng, self._judge = np.random.default_rng((seed, 7)), np.random.default_rng((seed, 99))
        self._specs: dict[str, PolicySpec] = {role: _spec(policies, role) for role in ROLES}
        self._trace, self._learn = (
            TraceStage(policies, 0),
            LearningStage(policies, 0, 1, publish_interval_us=publish_interval_us),
        )
        self._events: list[tuple[int, int, dict[str, Any]]] = []  # of the future: a heap by time
        self._count = self._offset = self._reward_offset = 0
        self._scorers: dict[str, Scorer] = {}
        self._coming: list[tuple[int, PolicySnapshot]] = []
        self._now_us = T0
        self._work(T0)
        self._take_snapshots(T0 + _PUBLISHED_US)

    def run(self, interactions: int) -> Iterator[Interaction]:
        """Handle so many queries, one after the other, and let the platform work in between."""
        for index in range(interactions):
            now_us = T0 + index * self._gap_us
            while self._now_us + STEP_US <= now_us:
                self._now_us += STEP_US
                self._work(self._now_us)
            self._take_snapshots(now_us)
            yield self._interact(draw_query(self._seed, index), now_us)

    def _take_snapshots(self, now_us: int) -> None:
        ready = [snapshot for at, snapshot in self._coming if at + _PUBLISHED_US <= now_us]
        self._coming = [one for one in self._coming if one[0] + _PUBLISHED_US > now_us]
        newest = {snapshot.policy: snapshot for snapshot in ready}
        self._scorers.update({policy: Scorer(snapshot) for policy, snapshot in newest.items()})

    def _work(self, now_us: int) -> None:
        """What the stream workers do once the log has reached this time."""
        batch = []
        while self._events and self._events[0][0] <= now_us:
            ts, _, event = heappop(self._events)
            batch.append((self._offset, ts, event))
            self._offset += 1
        rewards = []
        for reward in self._trace.process(batch).rewards:
            if self._rewrite is not None:
                self._rewrite(reward, self._by_trace[reward["trace_id"]])
            rewards.append((self._reward_offset, now_us, reward))
            self._reward_offset += 1
        output = self._learn.process(rewards, now_us=now_us, monotonic_us=now_us)
        self._coming += [(now_us, PolicySnapshot.from_record(record)) for record in output.snapshots]

    def _interact(self, query: Query, now_us: int) -> Interaction:
        control = bool(self._rng.random() < self._holdout)
        trace = _Trace(f"{self._seed}/{query.index}", now_us)
        upstream = Upstream()
        setting: dict[str, Mapping[str, Level]] = {}
        outcomes: dict[str, Outcome] = {}
        versions: dict[str, int] = {}
        for role in ROLES:
            context = {**query.context(), "subagents": upstream.subagents, "document_tokens": upstream.document_tokens}
            # The orchestrator decides in the root span, the others in spans of their own below it.
            span = trace.root if role == "orchestrator" else trace.span_id(role)
            arm = setting[role] = self._decide(role, context, control, trace, span)
            versions[role] = self._scorers[f"research/{role}"].snapshot.version
            rng = np.random.default_rng((self._seed, query.index, 1 + ROLES.index(role)))
            outcomes[role] = perform(role, query, arm, upstream, rng)
            trace.work(role, arm, outcomes[role], span)
            if role != "orchestrator":
                trace.add("AGENT", role, span, trace.root, duration_us=outcomes[role].latency_us)
            if role == "orchestrator":
                upstream = Upstream(int(arm["subagents"]))
            if role == "retrieval":
                upstream = Upstream(upstream.subagents, int(DOCUMENT_TOKENS[arm_index(role, arm)]))
        latency_us = sum(done.latency_us for done in outcomes.values())
        trace.add("AGENT", "research", trace.root, None, duration_us=latency_us)
        trace.add("END", "end", trace.span_id("end"), None)
        self._score(trace, outcomes)
        for event in trace.events:
            heappush(self._events, (event["ts"], self._count, event))
            self._count += 1
        done = Interaction(
            query=query,
            setting=setting,
            modes=("HOLDOUT" if control else "LIVE",) * len(ROLES),
            version=versions["orchestrator"],
            latency_us=latency_us,
            cost_micro_usd=sum(done.cost_micro_usd for done in outcomes.values()),
            quality=sum(SHARE[role] * step.quality for role, step in outcomes.items()),
        )
        if self._rewrite is not None:
            self._by_trace[trace.id] = done
        return done

    def _decide(
        self, role: str, context: Mapping[str, object], control: bool, trace: _Trace, parent: str
    ) -> Mapping[str, Level]:
        spec, scorer = self._specs[role], self._scorers[f"research/{role}"]
        x = spec.features.encode(context)
        index, chance, explored = spec.arms.index(spec.baseline), 1.0, False
        if not control:
            scores = scorer.score(x)
            index = draw(scores.propensity, self._rng.random())
            chance, explored = min(1.0, float(scores.propensity[index])), index != scores.greedy
        span = trace.span_id(f"{role} decision")
        trace.add(
            "DECISION", f"{role} decision", span, parent, agent=role, decision_id=f"{trace.id}-{span}", policy=spec.name,
            policy_epoch=scorer.snapshot.epoch, policy_version=scorer.snapshot.version, arm=spec.arms.labels[index],
            propensity=chance, explored=explored, mode="HOLDOUT" if control else "LIVE", features=x.tolist(),
        )  # fmt: skip
        return spec.arms.arms[index]

    def _score(self, trace: _Trace, outcomes: Mapping[str, Outcome]) -> None:
        """What `examples.fleet.judge` does, a little later."""
        delay_us = round(1e6 * min(MAX_DELAY_S, float(self._judge.exponential(MEAN_DELAY_S))))
        answer = 0.0
        for role, done in outcomes.items():
            score = judged(done.quality, self._judge)
            answer += SHARE[role] * score
            if self._steps_judged and METRIC[role] != "quality":
                target = f"{trace.id}-{trace.span_id(f'{role} decision')}"
                trace.feedback(METRIC[role], score, delay_us, target)
        trace.feedback("quality", answer, delay_us, None)


class _Trace:
    """Builds the events of one interaction, a millisecond apart, as if simulated seconds took no time."""

    def __init__(self, name: str, now_us: int) -> None:
        self._name, self._now_us = name, now_us
        self.id = _hex("trace", name, digits=32)
        self.root = self.span_id("root")
        self.events: list[dict[str, Any]] = []

    def span_id(self, name: str) -> str:
        return _hex("span", self._name, name, digits=16)

    def add(self, kind: str, name: str, span: str, parent: str | None, **fields: Any) -> None:
        self._now_us += 1_000
        event: dict[str, Any] = dict.fromkeys(_NULLABLE)
        event.update(
            event_id=_hex("event", self._name, kind, name, digits=32), tenant="default", trace_id=self.id, span_id=span,
            parent_span_id=parent, agent="fleet", kind=kind, ts=self._now_us, status="OK", operation=name, features=[],
            eligible=[], truncated=False,
        )  # fmt: skip
        event.update(fields)
        self.events.append(event)

    def work(self, role: str, arm: Mapping[str, Level], done: Outcome, parent: str) -> None:
        """The spans that `examples.fleet.spans.record_work` records."""
        call = call_of(role, arm)
        if call is None and not done.cost_micro_usd:
            return
        kind = "REASONING" if call is None else str(call[0].value)
        if call is not None and done.failed:
            span = self.span_id(f"{role} attempt")
            self.add(kind, f"{role} attempt", span, parent, duration_us=RETRY_US, status="TIMEOUT", cost_micro_usd=0)
        self.add(
            kind, f"{role} work", self.span_id(f"{role} work"), parent,
            duration_us=done.latency_us - done.failed * RETRY_US, cost_micro_usd=done.cost_micro_usd,
            input_tokens=done.input_tokens, output_tokens=done.output_tokens,
        )  # fmt: skip

    def feedback(self, metric: str, value: float, delay_us: int, target: str | None) -> None:
        self.add(
            "FEEDBACK", f"feedback {metric}", self.span_id(f"feedback {metric}"), None, metric=metric, value=value,
            target_decision_id=target,
        )  # fmt: skip
        self.events[-1]["ts"] += delay_us


def play(
    policies: Policies,
    seed: int,
    interactions: int,
    *,
    tell: Callable[[int], None] = lambda n: None,
    **options: Any,
) -> list[Interaction]:
    """Run an `OfflineFleet` to its end; `tell` hears every 1,000 interactions how many there have been."""
    done = []
    for one in OfflineFleet(policies, seed, **options).run(interactions):
        done.append(one)
        if len(done) % 1000 == 0:
            tell(len(done))
    return done


def _spec(policies: Policies, role: str) -> PolicySpec:
    spec = policies.get("default", f"research/{role}")
    if spec is None:
        raise ValueError(f"the policies lack research/{role}")
    return spec


def _hex(*parts: str, digits: int) -> str:
    return hashlib.blake2b("/".join(parts).encode(), digest_size=digits // 2).hexdigest()
