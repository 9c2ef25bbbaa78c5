"""The rollup job: its records, and the windows that must come out of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from benchmarks.broker import Message
from benchmarks.payload import AGENTS, TENANTS, TraceMaker, spaced
from steersman.codec import Codec
from steersman.errors import SteersmanError

PARTITIONS = 4
WINDOW_US = 10_000_000
SPACING_US = 100
_CLOSE_US = 600_000_000
_AHEAD_US = 1_800_000_000  # longer than all runs take, and within the hour that a broker allows
_NEEDED = ("tenant", "agent", "operation", "ts", "cost_micro_usd", "input_tokens", "output_tokens")

Windows = Mapping[tuple[str, int], Sequence[int]]
"""(tenant|agent|operation, start in microseconds since 1970-01-01 UTC) -> events, micro dollars, tokens."""


class WrongResult(SteersmanError):
    """A system did another job than the one asked for."""


@dataclass(frozen=True)
class Job:
    """Records of which every beginning is a job.

    Attributes
    ----------
    records
        Decoded, in order, with the fields that the job needs.
    messages
        The same, encoded. Event times are 100 us apart and equal to Kafka's timestamps.
    closing
        One record for each partition, so much later that every window before it is over.
    """

    records: Sequence[Mapping[str, Any]]
    messages: Sequence[Message]
    closing: Sequence[Message]

    def first(self, count: int) -> list[Message]:
        """Return so many messages and those that close."""
        return [*islice(self.messages, count), *self.closing]

    def expected(self, count: int) -> dict[tuple[str, int], list[int]]:
        """Return the windows of so many records."""
        windows: dict[tuple[str, int], list[int]] = {}
        for record in islice(self.records, count):
            add(windows, record["tenant"], record["agent"], record["operation"], record["ts"], 1, record)
        return windows

    @property
    def closed_from_us(self) -> int:
        """Windows that start here or later hold the closing records; unit: microseconds since 1970-01-01 UTC."""
        return self.records[-1]["ts"] + WINDOW_US  # type: ignore[no-any-return]


def make_job(seed: int, count: int, now_us: int, partitions: int = PARTITIONS) -> Job:
    """Return a job of so many records.

    Parameters
    ----------
    seed, count
        Which records.
    now_us
        Time of the machine. Event times begin half an hour later, so that no worker needs to tell an idle partition the time;
        unit: microseconds since 1970-01-01 UTC.
    partitions
        Of the topic.
    """
    maker, encode = TraceMaker(seed), Codec("trace_event").encode
    first_us = now_us - now_us % WINDOW_US + _AHEAD_US
    records: list[dict[str, Any]] = []
    messages: list[Message] = []
    for record in spaced(maker.interleaved(), count, first_us, SPACING_US):
        messages.append(_message(home(record["tenant"], record["agent"], partitions), record, encode(record)))
        records.append({name: record[name] for name in _NEEDED})  # whole ones would take a gigabyte
    closing = []
    for partition in range(partitions):
        tenant, agent = divmod(partition, len(AGENTS))
        record = maker.trace()[-1] | {"tenant": TENANTS[tenant], "agent": AGENTS[agent]}
        record["ts"] = records[-1]["ts"] + _CLOSE_US
        closing.append(_message(home(record["tenant"], record["agent"], partitions), record, encode(record)))
    return Job(records, messages, closing)


def home(tenant: str, agent: str, partitions: int = PARTITIONS) -> int:
    """Return the partition of an agent: all records of a window, and all of a trace, are in one."""
    return (TENANTS.index(tenant) * len(AGENTS) + AGENTS.index(agent)) % partitions


def add(
    windows: dict[tuple[str, int], list[int]],
    tenant: str,
    agent: str,
    operation: str | None,
    ts: int,
    events: int,
    sums: Mapping[str, Any],
) -> None:
    """Add cost and tokens of so many events to their window."""
    total = windows.setdefault((f"{tenant}|{agent}|{operation or ''}", ts - ts % WINDOW_US), [0, 0, 0])
    total[0] += events
    total[1] += sums["cost_micro_usd"] or 0
    total[2] += (sums["input_tokens"] or 0) + (sums["output_tokens"] or 0)


def from_rollups(values: Iterable[bytes]) -> dict[tuple[str, int], list[int]]:
    """Return the windows with events that a rollup topic says: the newest upsert of each of its finer keys, added up."""
    decode = Codec("rollup").decode
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for value in values:
        record = decode(value)
        names = ("window_start", "tenant", "agent", "policy", "arm", "operation", "kind", "source_partition")
        key = tuple(record[name] for name in names)
        if key not in newest or record["version"] >= newest[key]["version"]:
            newest[key] = record
    windows: dict[tuple[str, int], list[int]] = {}
    for r in newest.values():
        if r["events"]:  # others only count rewards
            add(windows, r["tenant"], r["agent"], r["operation"], r["window_start"], r["events"], r)
    return windows


def check(system: str, expected: Windows, found: Windows, before_us: int) -> None:
    """Compare the windows that start before a time.

    Raises
    ------
    WrongResult
        Names the first window that differs.
    """
    kept = {key: list(total) for key, total in found.items() if key[1] < before_us}
    for key in sorted(expected.keys() | kept.keys()):
        if list(expected.get(key, ())) != kept.get(key, []):
            raise WrongResult(
                f"{system}: window {key} is {kept.get(key)}, not {list(expected.get(key, ()))} "
                f"(of {len(kept)} windows, {len(expected)} expected)"
            )


def _message(partition: int, record: Mapping[str, Any], value: bytes) -> Message:
    key = f"{record['tenant']}|{record['agent']}|{record['operation'] or ''}"
    return Message(partition, key.encode(), value, record["ts"] // 1000)
