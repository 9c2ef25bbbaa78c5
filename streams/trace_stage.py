"""The trace stage: one partition of trace events in, rewards and rollups out.

A pure function of the partition's log. Its outputs depend on the sequence of (offset, record timestamp, event)
alone: not on a clock, not on how the sequence is cut into batches, not on restarts.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from learners.detector_settings import DetectorSettings
from steersman.codec import Codec
from steersman.errors import InvalidRecord
from steersman.prices import PRICED, PriceTable
from streams.detect.alert_book import STATE_KEY as ALERTS_KEY
from streams.detect.alert_book import AlertBook
from streams.detect.trace_watch import TraceWatch
from streams.events import validate
from streams.join import TraceJoin
from streams.ledger import STATE_KEY as LEDGER_KEY
from streams.ledger import LedgerBook
from streams.ports import PolicyBook
from streams.record_batch import RecordBatch
from streams.rollup import EMIT_EVERY_US, Rollups
from streams.rollup import KEY_PREFIX as WINDOW_PREFIX
from streams.trace_book import KEY_PREFIX as TRACE_PREFIX
from streams.trace_pass import TracePass
from streams.trace_rows import TraceRows
from streams.trace_state import to_json
from streams.watermark import MAX_AHEAD_US, MAX_BEHIND_US, PartitionClock

META: Final = "meta"
_FORM: Final = 1


@dataclass(frozen=True)
class StageSettings:
    """Times and bounds of the trace stage; times in microseconds.

    A partition's log gives the same outputs again only under the same settings.
    """

    window_us: int = 10_000_000
    """Length of the rollup windows."""
    lateness_us: int = 30_000_000
    """How far the watermark is behind the clock, how long a window stays open behind the watermark, and how long an
    ended trace waits for stragglers."""
    horizon_us: int = 3_600_000_000
    """How long a trace is remembered after its last event or reward."""
    max_ahead_us: int = MAX_AHEAD_US
    """How far an event time may be ahead of its record's Kafka timestamp."""
    max_behind_us: int = MAX_BEHIND_US
    """How far an event time may lie behind its record's Kafka timestamp."""
    max_events_per_trace: int = 4096
    """Events joined per trace."""
    max_keys_per_window: int = 10_000
    """Rollup keys per window."""
    emit_us: int = EMIT_EVERY_US
    """How often a window that changes is emitted."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work; ValueError."""
        if self.window_us <= 0 or self.lateness_us < 0 or self.horizon_us <= 0 or self.emit_us <= 0:
            raise ValueError("window, horizon and interval of rollups must be above 0, lateness at least 0")
        if self.horizon_us < self.lateness_us:
            raise ValueError("the horizon must not be shorter than the lateness")
        if self.max_events_per_trace < 1 or self.max_keys_per_window < 1:
            raise ValueError("the caps must be at least 1")


@dataclass
class StageOutput:
    """What one call of `TraceStage.process` caused.

    Attributes
    ----------
    rewards, rollups, alerts : list of dict
        Records of the schemas of these names, provenance included, in order of (source_offset, seq).
    rejected : list of (int, InvalidRecord)
        Offsets of the events that went no further, and why.
    counters : Counter of str
        What was seen: ``events``, ``ticks``, ``rejected``, ``skewed``, ``replayed``, ``rewards_complete``,
        ``rewards_window``, ``quality_defaulted``, ``quality_missing``, ``priced``, ``unpriced_<reason>``, and what the join, the rollups and the alert book count.
    """

    rewards: list[dict[str, Any]] = field(default_factory=list)
    rollups: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[int, InvalidRecord]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)


class TraceStage:
    """Join and rollups of one partition of the trace topic.

    Parameters
    ----------
    policies : PolicyBook
        The policies (`learners.policies.Policies`).
    partition : int
        Number of the partition; stamped on every output.
    settings : StageSettings, optional
        Times and bounds.
    prices : PriceTable, optional
        Prices the model and tool calls that report no cost, for rewards and rollups. The same log gives the same
        outputs again only under the same prices: add dated entries to the table, never change old ones.
    detectors : DetectorSettings, optional
        Thresholds of the detectors of traces and decisions; without it none runs.
    """

    def __init__(
        self,
        policies: PolicyBook,
        partition: int,
        settings: StageSettings | None = None,
        prices: PriceTable | None = None,
        detectors: DetectorSettings | None = None,
    ) -> None:
        self.settings = settings = settings or StageSettings()
        self.partition = partition
        self._policies = policies
        self._prices = prices
        self._counters: Counter[str] = Counter()
        self._clock = PartitionClock(settings.lateness_us, settings.max_ahead_us, settings.max_behind_us)
        self._ledger = LedgerBook("trace", partition)
        self._watch = None if detectors is None else TraceWatch(detectors)
        self._alerts = AlertBook(detectors or DetectorSettings(), self._counters)
        self._join = TraceJoin(
            policies,
            lateness_us=settings.lateness_us,
            horizon_us=settings.horizon_us,
            max_events=settings.max_events_per_trace,
            counters=self._counters,
            watch=self._watch,
        )
        self._rollups = Rollups(
            window_us=settings.window_us,
            lateness_us=settings.lateness_us,
            max_keys=settings.max_keys_per_window,
            counters=self._counters,
            emit_us=settings.emit_us,
        )
        self._next_offset = 0
        self._meta_dirty = False

    @property
    def next_offset(self) -> int:
        """Offset of the first event not applied yet; unit: Kafka offset."""
        return self._next_offset

    @property
    def clock_us(self) -> int:
        """Event clock of the partition, 0 before the first event; unit: microseconds since 1970-01-01 UTC."""
        return self._clock.now_us

    @property
    def open_traces(self) -> int:
        """Traces held in memory, closed ones that are still remembered included."""
        return len(self._join)

    @property
    def open_windows(self) -> int:
        """Rollup windows held in memory."""
        return len(self._rollups)

    @property
    def state_items(self) -> int:
        """Items that a checkpoint of everything would hold."""
        return len(self._join) + len(self._rollups)

    def process(self, events: Sequence[tuple[int, int, Mapping[str, Any] | None]]) -> StageOutput:
        """Apply a run of events of this partition.

        Parameters
        ----------
        events : sequence of (offset, record_ts_us, event)
            Kafka offset; **Kafka timestamp of the record** (microseconds since 1970-01-01 UTC, i.e. the
            broker's milliseconds times 1000; zero or less when there is none); decoded trace event, None for a
            record that could not be decoded. Offsets grow; those below `next_offset` were applied before and are counted ``replayed``.

        Returns
        -------
        StageOutput
            Outputs of exactly these events.
        """
        out = StageOutput()
        for offset, record_ts_us, event in events:
            self._take(offset, record_ts_us, event, out)
        return self._finish(out, len(events))

    def rows(self, batch: RecordBatch, start: int, codec: Codec) -> TraceRows:
        """Prepare the records of a batch, from an index on, for `process_rows`; `codec` is that of trace events."""
        return TraceRows(batch, start, codec, self._clock, self.settings.window_us, self._prices)

    def process_rows(self, rows: TraceRows) -> StageOutput:
        """Do what `process` does with the decoded records of the rows, by columns where they are plain."""
        out = StageOutput()

        def take(row: int) -> None:
            self._take(rows.offsets[row], rows.record_ts_us[row], rows.record(row), out)

        # After a restart: what has been seen before, by the stage or by its ledger.
        first = bisect_right(rows.offsets, max(self._next_offset - 1, self._ledger.at))
        for row in range(first):
            take(row)
        if first < len(rows):
            TracePass(
                rows,
                policies=self._policies,
                clock=self._clock,
                join=self._join,
                rollups=self._rollups,
                ledger=self._ledger,
                counters=self._counters,
                take=take,
                pass_time=lambda offset: self._pass_time(offset, out),
                found=self._watch.found if self._watch is not None else [],
            ).run(first)
            self._next_offset = rows.offsets[-1] + 1
        return self._finish(out, len(rows))

    def _take(self, offset: int, record_ts_us: int, event: Mapping[str, Any] | None, out: StageOutput) -> None:
        """Take one record in."""
        counters, ledger = self._counters, self._ledger
        if offset < self._next_offset:
            counters["replayed"] += 1
            return
        self._next_offset = offset + 1
        ledger.begin(offset, record_ts_us)
        if event is None:
            ledger.unreadable()
            return
        try:
            policy = validate(event, self._policies)
        except InvalidRecord as error:
            out.rejected.append((offset, error))
            counters["rejected"] += 1
            ledger.count("rejected", f"{self.partition}:{offset}", reason=error.reason)
            return
        ts = self._clock.event_time(event["ts"], record_ts_us)
        if ts != event["ts"]:
            counters["skewed"] += 1
        outcome, amount = "duplicate", event["cost_micro_usd"] or 0
        if self._prices is not None and event["cost_micro_usd"] is None and event["kind"] in PRICED:
            cost, reason = self._prices.cost(event, ts)
            counters["priced" if cost is not None else f"unpriced_{reason}"] += 1
            event = {**event, "cost_micro_usd": cost}
        if event["kind"] == "TICK":
            counters["ticks"] += 1
            outcome = "tick"
        elif self._join.apply(event, ts, offset, policy):
            counted = self._rollups.add_event(event, ts, offset, self._clock.watermark_us)
            outcome = "accepted" if counted else "too_late"
        ledger.count(outcome, event["event_id"], amount, tenant=event["tenant"])
        self._clock.advance(ts)
        # Also when the clock stood still: a late event may be due at once.
        self._pass_time(offset, out)

    def _finish(self, out: StageOutput, events: int) -> StageOutput:
        self._counters["events"] += events
        self._meta_dirty = self._meta_dirty or events > 0
        out.counters.update(self._counters)
        self._counters.clear()
        return out

    def audit(self) -> list[dict[str, Any]]:
        """Ledger entries changed since the last call, as records of ``ledger.avsc``; deliver them before the state."""
        return self._ledger.entries()

    def needs_tick(self, now_us: int) -> bool:
        """Whether a TICK of this time would cause something: a reward, a rollup, a trace forgotten.

        Parameters
        ----------
        now_us : int
            Time of the machine; unit: microseconds since 1970-01-01 UTC.
        """
        if now_us <= self._clock.now_us:
            return False
        timers = (self._join.next_timer(), self._rollups.next_timer())
        return any(timer is not None and timer <= now_us for timer in timers)

    def dump_dirty(self) -> dict[str, bytes | None]:
        """State changed since the last call: key -> JSON, None for what is gone, and ``meta``.

        Write the items **in this order** to one partition. Then a checkpoint that was cut off anywhere does no harm:
        the ledger, the counts of alerts and the windows come first, traces after them, ``meta`` last, and each knows the offset of the last event
        applied to it, so that a replay from the older ``meta`` skips what a newer key has seen.
        """
        dump: dict[str, bytes | None] = {LEDGER_KEY: self._ledger.dump()} if self._meta_dirty else {}
        if (alerts := self._alerts.dump()) is not None:
            dump[ALERTS_KEY] = alerts
        dump.update(self._rollups.dump_dirty())
        dump.update(self._join.dump_dirty())
        if self._meta_dirty:
            self._meta_dirty = False
            dump[META] = to_json(
                {
                    "form": _FORM,
                    "next_offset": self._next_offset,
                    "clock_us": self._clock.now_us,
                    "emitted_us": self._rollups.emitted_us,
                    "closed_before_us": self._rollups.closed_before_us,
                    "window_us": self.settings.window_us,
                }
            )
        return dump

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take back what `dump_dirty` gave, into a stage that has processed nothing.

        Parameters
        ----------
        items : iterable of (key, bytes)
            The latest value of each key, in any order; without the keys that are gone.

        Raises
        ------
        ValueError
            For an unknown key or form, data that does not parse, or windows of another length than the
            settings': reset the state topic, or go back to the settings it was written under.
        """
        held = dict(items)
        meta = held.pop(META, None)
        if meta is not None:
            self._restore_meta(json.loads(meta))
        for name, data in held.items():
            if name == LEDGER_KEY:
                self._ledger.restore(data)
            elif name == ALERTS_KEY:
                self._alerts.restore(data)
            elif name.startswith(TRACE_PREFIX):
                self._join.restore(name, data, self._clock.now_us)
            elif name.startswith(WINDOW_PREFIX):
                self._rollups.restore(data)
            else:
                raise ValueError(f"unknown key {name!r} in the state of partition {self.partition}")

    def _restore_meta(self, meta: Mapping[str, int]) -> None:
        if meta["form"] != _FORM:
            raise ValueError(f"state of form {meta['form']}, this version reads {_FORM}: reset the state topic")
        if meta["window_us"] != self.settings.window_us:
            raise ValueError(
                f"state has windows of {meta['window_us']} us, the settings say {self.settings.window_us}: "
                "go back to that length, or reset the state topic"
            )
        self._next_offset = meta["next_offset"]
        self._clock.now_us = meta["clock_us"]
        self._rollups.emitted_us = meta["emitted_us"]
        self._rollups.closed_before_us = meta["closed_before_us"]

    def _pass_time(self, offset: int, out: StageOutput) -> None:
        now_us = self._clock.now_us
        seq = 0
        for reward, operation in self._join.advance(now_us):
            self._rollups.add_reward(reward, operation, offset)
            self._counters["rewards_complete" if reward["closed_by"] == "COMPLETE" else "rewards_window"] += 1
            if reward["quality_defaulted"]:
                self._counters["quality_defaulted"] += 1
            elif reward["quality"] is None:
                self._counters["quality_missing"] += 1
            seq = self._stamp(reward, offset, seq)
            self._ledger.count(
                "rewarded",
                reward["decision_id"],
                reward["cost_micro_usd"],
                tenant=reward["tenant"],
                policy=reward["policy"],
            )
            out.rewards.append(reward)
        for rollup in self._rollups.advance(now_us, offset):
            seq = self._stamp(rollup, offset, seq)
            out.rollups.append(rollup)
        if self._watch is not None and self._watch.found:
            for found in self._watch.found if self._alerts.begin(offset) else ():
                alert = self._alerts.of_trace(found)
                if alert is not None:
                    seq = self._stamp(alert, offset, seq)
                    out.alerts.append(alert)
            self._watch.found.clear()

    def _stamp(self, record: dict[str, Any], offset: int, seq: int) -> int:
        record["source_partition"] = self.partition
        record["source_offset"] = offset
        record["seq"] = seq
        return seq + 1
