"""`steersman verify`: read the logs, wait for those who work on them, compare, and look again at what may be on its way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from console.brokers import require_broker
from console.target import Target
from console.verify.catch_up import Group, Lag, end_of
from console.verify.check import Look, equations
from console.verify.equations import Equation, minute_text
from console.verify.kafka_side import PolicyLog, RewardLog, TraceLog
from console.verify.log_reader import LogReader
from console.verify.policies import NONE, Replay, Version, compare_replay, heads
from console.verify.producer_ledger import ProducerLedger, read_ledgers
from console.verify.span import OPEN, Span
from console.verify.store_side import Store
from sinks.clickhouse import connect
from sinks.settings import load_settings as sink_settings
from steersman.registry import Registry
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from streams.settings import StreamSettings
from streams.trace_stage import StageSettings

Progress = Callable[[str], None]

SETTLE_S = 5.0
"""How long what differs is looked at again: windows are published at the next second of their partition's clock, which a
tick brings, and a tick may also close a reward; unit: seconds."""
_HOLD_S = 5.0  # for a subscriber to hold what is on the topic


@dataclass(frozen=True)
class Request:
    """What the command line asked for.

    Attributes
    ----------
    start, end
        Minutes since 1970-01-01 UTC; None for the beginning of the log and for its end.
    ledgers
        Producer ledgers.
    wait_s
        Longest wait for those who are behind, and for what is on its way; unit: seconds.
    """

    start: int | None = None
    end: int | None = None
    ledgers: Sequence[Path] = ()
    wait_s: float = 60.0


def verify(
    target: Target, request: Request, progress: Progress, replay: Replay | None = None
) -> tuple[Span, list[Equation]]:
    """Compare log, store and ledgers.

    Parameters
    ----------
    target
        Broker and store.
    request
        Range and waits.
    progress
        Takes a line for every step.
    replay
        Replays the reward topic; None to leave that out.

    Returns
    -------
    tuple of Span and list of Equation
        The range compared, which live traffic cuts to whole minutes of the past, and the equations in order.

    Raises
    ------
    SteersmanError
        When a file, the broker or the store cannot be read.
    """
    producers = read_ledgers(request.ledgers) if request.ledgers else None
    require_broker(target.brokers)
    with contextlib.ExitStack() as held:
        check = _Check(target, request, producers, progress, held)
        span, found = check.run()
        place = next(i for i, one in enumerate(found) if one.id.startswith("E6"))
        found.insert(place, compare_replay(None if replay is None else replay()))
        return span, found


class _Check:
    """Everything that is open during a check."""

    def __init__(
        self,
        target: Target,
        request: Request,
        producers: ProducerLedger | None,
        progress: Progress,
        held: contextlib.ExitStack,
    ) -> None:
        self._brokers = target.brokers
        self._request = request
        self._producers = producers
        self._progress = progress
        self._resources = held
        self._topics = topics = Topics(target.prefix)
        settings = StreamSettings()
        self._priced = settings.prices is not None or target.priced
        self._registry = Registry(settings.registry_url, topics=topics) if settings.registry_url else None
        self._store = Store(held.enter_context(contextlib.closing(connect(target.reading))), topics)
        self._workers = held.enter_context(contextlib.closing(Group(target.brokers, settings.group)))
        self._sink = held.enter_context(contextlib.closing(Group(target.brokers, sink_settings().group)))
        self._trace = TraceLog(self._reader(topics.trace), self._registry)
        self._rewards = RewardLog(self._reader(topics.reward), self._registry)
        self._policies = PolicyLog(self._reader(topics.policy), self._registry)
        self._subscribers: dict[str, PolicySubscriber] = {}
        self._due: dict[str, Version] = {}
        self._held: dict[str, Version] = {}
        self._live_from: int | None = None

    def run(self) -> tuple[Span, list[Equation]]:
        """Look until all is equal, or as long as looking again may help."""
        self._progress("reading the log")
        self._trace.extend()
        deadline = time.monotonic() + self._request.wait_s
        settled: float | None = None
        while True:
            lags = self._catch_up(deadline)
            span = self._span()
            found = equations(self._look(span, lags))
            now = time.monotonic()
            settled = now + min(SETTLE_S, self._request.wait_s) if settled is None else settled
            # Who did not catch up in the time given will not do so in the time to settle.
            if all(one.ok for one in found) or now >= settled or any(lag.records for lag in lags):
                return span, found
            self._progress(f"not equal yet: {', '.join(one.id for one in found if not one.ok)}; looking again")
            time.sleep(0.5)
            self._note_traffic()

    def _catch_up(self, deadline: float) -> list[Lag]:
        """Wait for the workers, then for the sink, which stores what they make."""
        topics = self._topics
        self._progress("waiting for the workers")
        lags = [self._wait(self._workers, self._trace.reader, deadline)]
        if self._note_traffic():
            lags = [self._wait(self._workers, self._trace.reader, deadline)]
        self._rewards.extend()
        lags.append(self._wait(self._workers, self._rewards.reader, deadline))
        self._policies.extend()
        self._hold()
        self._progress("waiting for the sink")
        for reader in (self._trace.reader, self._rewards.reader, self._policies.reader):
            lags.append(self._wait(self._sink, reader, deadline))
        # Dead letters last: the sink itself writes some while it works on the others.
        for topic in (topics.rollup, topics.alert, topics.audit, topics.dead_letter):
            end, first = end_of(self._brokers, topic)
            lags.append(self._sink.wait(topic, end, first, deadline, self._progress))
        return lags

    def _wait(self, group: Group, reader: LogReader, deadline: float) -> Lag:
        return group.wait(reader.topic, reader.next, reader.first, deadline, self._progress)

    def _note_traffic(self) -> bool:
        """Read on; whether events keep coming, so that only the minutes before this one are complete."""
        came = self._trace.extend()
        if came and self._request.end is None:
            minute = int(time.time()) // 60
            if self._live_from is None:
                self._progress(f"{came} events came meanwhile: comparing up to {minute_text(minute)}")
                self._live_from = minute
        return bool(came)

    def _span(self) -> Span:
        """The range: what was asked for, less minutes of which the log has lost a part, or that are not over."""
        earliest = self._trace.earliest()
        start, whole = max(earliest, self._request.start or 0), True
        for log in (self._trace, self._rewards):
            for partition, minute in log.first_minutes().items():
                if log.reader.first[partition] > 0 and start <= minute:
                    start, whole = minute + 1, False
        end = self._request.end if self._request.end is not None else self._live_from
        end = OPEN if end is None or end > int(time.time()) // 60 else end
        return Span(start, end, whole=whole and start == earliest and end == OPEN)

    def _hold(self) -> None:
        """Give the subscribers time to hold the head of the topic, and read on to what they may have got meanwhile."""
        deadline = time.monotonic() + _HOLD_S
        self._due = heads(self._policies.records)
        while True:
            self._held = self._subscribed()
            behind = any(self._held.get(policy, NONE)[:2] < due[:2] for policy, due in self._due.items())
            if not behind or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self._policies.extend()

    def _subscribed(self) -> dict[str, Version]:
        found: dict[str, Version] = {}
        for tenant in sorted({policy.partition("/")[0] for policy in heads(self._policies.records)}):
            subscriber = self._subscribers.get(tenant)
            if subscriber is None:
                subscriber = PolicySubscriber(
                    self._brokers, topics=self._topics, tenant=tenant, registry=self._registry
                )
                self._subscribers[tenant] = self._resources.enter_context(subscriber)
            for name in subscriber.policies():
                if (one := subscriber.get(name)) is not None:
                    found[f"{tenant}/{name}"] = Version(one.snapshot.epoch, one.snapshot.version)
        return found

    def _look(self, span: Span, lags: Sequence[Lag]) -> Look:
        return Look(
            self._topics,
            span,
            self._trace,
            self._rewards,
            self._policies,
            self._store,
            self._producers,
            self._due,
            self._held,
            lags,
            StageSettings(),
            self._priced,
            self._store.forgotten(span.start),
        )

    def _reader(self, topic: str) -> LogReader:
        return self._resources.enter_context(LogReader(self._brokers, topic))
