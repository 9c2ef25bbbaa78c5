"""The store's account: what the tables say, counted in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from console.verify.equations import Key, Member, Side
from console.verify.forgotten import Forgotten
from console.verify.policies import Version
from console.verify.records import Letter, Place, StoredReward
from console.verify.span import OPEN, Span
from console.verify.windows import Count, WindowKey
from steersman.errors import SteersmanError
from steersman.fingerprint import Fingerprint
from steersman.topics import Topics

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# Rows from before the start of the range are never looked at: of a log that was made anew (the embedded broker keeps
# nothing), the store may still have those of the one before, with the same offsets. All constants; what varies goes as server-side parameters.
_MINUTE: Final = "intDiv(toUnixTimestamp64Milli(kafka_timestamp), 60000)"
_HASH: Final = "reinterpretAsUInt64(substring(SHA256(event_id), 1, 8))"
_IN_RANGE: Final = f"kafka_topic = {{topic:String}} AND {_MINUTE} >= {{start:Int64}} AND {_MINUTE} < {{end:Int64}}"
# Copies of one record are one; a row that differs from its copies in anything is another.
_EVENTS: Final = f"""
SELECT DISTINCT tenant, event_id, ifNull(cost_micro_usd, 0) AS amount, {_MINUTE} AS minute, kafka_partition, kafka_offset
FROM trace_events WHERE {_IN_RANGE}"""
# The event clock of a partition believes an event time only near the record's own (streams.watermark).
_WINDOWED: Final = """
SELECT
    tenant, argMin(kind, at) AS kind, argMin(micro_usd, at) AS amount, argMin(kafka_partition, at) AS part,
    argMin(if(record_us > 0 AND (event_us < record_us - {behind:Int64} OR event_us > record_us + {ahead:Int64}), record_us, event_us), at) AS us,
    us - positiveModulo(us, {window:Int64}) AS window_us
FROM
(
    SELECT
        tenant, trace_id, event_id, kind, kafka_partition, ifNull(cost_micro_usd, 0) AS micro_usd, kafka_offset AS at,
        toUnixTimestamp64Micro(ts) AS event_us, toUnixTimestamp64Milli(kafka_timestamp) * 1000 AS record_us
    FROM trace_events
    WHERE kafka_topic = {topic:String} AND intDiv(toUnixTimestamp64Milli(kafka_timestamp), 60000) >= {start:Int64}
      AND (kafka_partition, kafka_offset) NOT IN
    (
        SELECT error_partition, error_offset FROM dead_letters
        WHERE error_topic = {topic:String} AND stage = 'VALIDATE' AND intDiv(toUnixTimestamp64Milli(ts), 60000) >= {start:Int64}
    )
)
GROUP BY tenant, trace_id, event_id"""
_WITHIN: Final = """({whole:UInt8} = 1 OR (window_us >= {low:Int64} AND window_us + {window:Int64} <= {high:Int64}
    AND window_us < arrayElement({closed:Array(Int64)}, part + 1)))"""
_LEDGER: Final = """
SELECT
    tenant, policy, minute_of, sum(n_of), sum(reinterpretAsUInt64(sum_of)), groupBitXor(reinterpretAsUInt64(xor_of)),
    sum(toInt128(amount_of))
FROM
(
    SELECT
        tenant, policy, intDiv(toUnixTimestamp64Micro(minute), 60000000) AS minute_of, argMax(n, version) AS n_of,
        argMax(id_sum, version) AS sum_of, argMax(id_xor, version) AS xor_of, argMax(amount, version) AS amount_of
    FROM ledger
    WHERE kafka_topic = {topic:String} AND stage = {stage:String} AND has({outcomes:Array(String)}, outcome)
      AND ({reason:String} = '' OR reason = {reason:String})
      AND minute_of >= {start:Int64} AND minute_of < {end:Int64}
    GROUP BY outcome, reason, tenant, policy, minute, source_partition, first_offset
)
GROUP BY tenant, policy, minute_of"""


class Store:
    """The tables of one deployment.

    Parameters
    ----------
    client
        Client of ClickHouse.
    topics
        Names of the topics the rows came from.
    """

    def __init__(self, client: Client, topics: Topics) -> None:
        self._client = client
        self._topics = topics

    def events(self, span: Span) -> Side:
        """Rows of trace_events by tenant and minute."""
        rows = self._rows(
            f"SELECT tenant, minute, count(), sum({_HASH}), groupBitXor({_HASH}), sum(toInt128(amount)) "
            f"FROM ({_EVENTS}) GROUP BY tenant, minute",
            self._range(span),
        )
        return Side("trace_events", _groups(((t, int(m)), *sums) for t, m, *sums in rows), self._event_members)

    def event_ids(self, span: Span) -> Side:
        """Event ids of trace_events, each once, by tenant."""
        rows = self._rows(
            f"SELECT tenant, count(), sum({_HASH}), groupBitXor({_HASH}), 0 "
            f"FROM (SELECT DISTINCT tenant, event_id FROM trace_events WHERE {_IN_RANGE}) GROUP BY tenant",
            self._range(span),
        )

        def members(keys: Collection[Key]) -> dict[Key, list[Member]]:
            found: dict[Key, list[Member]] = {}
            for (tenant,) in keys:
                ids = self._rows(
                    f"SELECT DISTINCT event_id FROM trace_events WHERE {_IN_RANGE} AND tenant = {{tenant:String}}",
                    self._range(span) | {"tenant": tenant},
                )
                found[(tenant,)] = [Member(i) for (i,) in ids]
            return found

        return Side("trace_events", _groups(((t,), *sums) for t, *sums in rows), members)

    def letters(self, topic: str, start: int) -> list[Letter]:
        """Dead letters of the records of a topic, from a minute on."""
        rows = self._rows(
            "SELECT DISTINCT error_partition, error_offset, stage, intDiv(toUnixTimestamp64Milli(ts), 60000) AS minute "
            "FROM dead_letters WHERE error_topic = {topic:String} AND minute >= {start:Int64}",
            {"topic": topic, "start": start},
        )
        return [Letter((int(p), int(o)), stage, int(minute)) for p, o, stage, minute in rows]

    def forgotten(self, start: int) -> Forgotten:
        """What was deleted on request, of records from a minute on."""
        rows = self._rows(
            "SELECT DISTINCT kafka_topic, stage, kafka_partition, kafka_offset, intDiv(toUnixTimestamp64Milli(kafka_timestamp), 60000) AS minute "
            "FROM forgotten_places WHERE kafka_topic IN {topics:Array(String)} AND minute >= {start:Int64}",
            {"topics": [self._topics.trace, self._topics.reward], "start": start},
        )
        places: dict[str, set[Place]] = {self._topics.trace: set(), self._topics.reward: set()}
        letters: dict[str, list[Letter]] = {topic: [] for topic in places}
        for topic, stage, partition, offset, minute in rows:
            place = (int(partition), int(offset))
            if stage:
                letters[topic].append(Letter(place, stage, int(minute)))
            else:
                places[topic].add(place)
        tenants = self._rows(
            "SELECT DISTINCT tenant FROM forgotten WHERE scope = 'tenant' "
            "AND intDiv(toUnixTimestamp64Micro(forgotten_at), 60000000) >= {start:Int64}",
            {"start": start},
        )
        trace, reward = self._topics.trace, self._topics.reward
        return Forgotten(
            frozenset(places[trace]),
            frozenset(places[reward]),
            letters[trace],
            letters[reward],
            frozenset(tenant for (tenant,) in tenants),
        )

    def ledger(
        self, stage: str, outcomes: Sequence[str], span: Span, reason: str = ""
    ) -> dict[tuple[str, str, int], Fingerprint]:
        """Entries of a stage's ledger by tenant, policy and minute; of one reason, or of all."""
        parameters = {
            "topic": self._topics.audit,
            "stage": stage,
            "outcomes": list(outcomes),
            "reason": reason,
            "start": span.start,
            "end": span.end,
        }
        return {
            (tenant, policy, int(minute)): Fingerprint(int(n), int(total), int(xor), int(amount))
            for tenant, policy, minute, n, total, xor, amount in self._rows(_LEDGER, parameters)
        }

    def rewards(self, start: int) -> list[StoredReward]:
        """Rows of the rewards table, from a minute on."""
        rows = self._rows(
            "SELECT decision_id, tenant, policy, cost_micro_usd, source_partition, source_offset, kafka_partition, kafka_offset "
            f"FROM rewards FINAL WHERE kafka_topic = {{topic:String}} AND {_MINUTE} >= {{start:Int64}}",
            {"topic": self._topics.reward, "start": start},
        )
        return [StoredReward(i, t, p, int(c), int(sp), int(so), f"{kp}:{ko}") for i, t, p, c, sp, so, kp, ko in rows]

    def window_us(self, default: int) -> list[int]:
        """Lengths of the windows there are; `default` alone when there are none."""
        rows = self._rows("SELECT DISTINCT window_us FROM rollups WHERE kafka_topic = {topic:String}", self._rollups())
        return sorted(int(w) for (w,) in rows) or [default]

    def closed_before(self, window_us: int, partitions: int) -> list[int]:
        """By source partition, the time before which all windows have closed."""
        rows = self._rows(
            "SELECT source_partition, max(toUnixTimestamp64Micro(window_start)) FROM rollups FINAL "
            "WHERE kafka_topic = {topic:String} AND closed AND source_partition >= 0 GROUP BY source_partition",
            self._rollups(),
        )
        found = {int(p): int(start) + window_us for p, start in rows}
        return [found.get(p, 0) for p in range(partitions)]

    def windows(
        self, span: Span, window_us: int, closed: Sequence[int], ahead_us: int, behind_us: int
    ) -> tuple[dict[WindowKey, Count], dict[WindowKey, Count]]:
        """Distinct valid events by the window of their event time, and what the windows counted.

        Of a part of the log only windows within it, and before `closed` (by partition).
        """
        parameters = {
            "topic": self._topics.trace,
            # An event counts in the window of its own time, which may be ahead of its record's.
            "start": span.start if span.whole else max(0, span.start - ahead_us // 60_000_000 - 1),
            "whole": int(span.whole),
            "low": span.start * 60_000_000,
            "high": min(span.end, OPEN) * 60_000_000,
            "window": window_us,
            "closed": list(closed),
            "ahead": ahead_us,
            "behind": behind_us,
        }
        raw = self._rows(
            f"SELECT tenant, kind, window_us, count(), sum(toInt128(amount)) FROM ({_WINDOWED}) WHERE {_WITHIN} "
            "GROUP BY tenant, kind, window_us",
            parameters,
        )
        rolled = self._rows(
            "SELECT tenant, kind, window_us, sum(events), sum(toInt128(cost_micro_usd)) FROM (SELECT tenant, kind, "
            "toUnixTimestamp64Micro(window_start) AS window_us, source_partition AS part, events, cost_micro_usd "
            f"FROM rollups FINAL WHERE kafka_topic = {{topic:String}} AND events > 0 AND {_MINUTE} >= {{start:Int64}}) WHERE {_WITHIN} "
            "GROUP BY tenant, kind, window_us",
            parameters | self._rollups(),
        )
        first, second = (
            {WindowKey(t, k, int(w)): Count(int(n), int(amount)) for t, k, w, n, amount in rows}
            for rows in (raw, rolled)
        )
        return first, second

    def open_windows(self, window_us: int) -> list[tuple[int, int]]:
        """Source partition and end of every window that is not closed; unit: microseconds since 1970-01-01 UTC."""
        rows = self._rows(
            "SELECT DISTINCT source_partition, toUnixTimestamp64Micro(window_start) FROM rollups FINAL "
            "WHERE kafka_topic = {topic:String} AND NOT closed",
            self._rollups(),
        )
        return [(int(p), int(start) + window_us) for p, start in rows]

    def policies(self, start: int, before: Mapping[int, int]) -> dict[str, Version]:
        """Newest version of every policy among the records from a minute on and below these offsets, by partition."""
        rows = self._rows(
            "SELECT tenant, policy, argMax((epoch, version, record_sha256), (epoch, version, kafka_offset)) FROM policies "
            f"WHERE kafka_topic = {{topic:String}} AND {_MINUTE} >= {{start:Int64}} "
            "AND kafka_offset < arrayElement({before:Array(Int64)}, kafka_partition + 1) "
            "GROUP BY tenant, policy",
            {"topic": self._topics.policy, "start": start, "before": _by_partition(before)},
        )
        return {f"{t}/{p}": Version(int(newest[0]), int(newest[1]), _text(newest[2])) for t, p, newest in rows}

    def _event_members(self, keys: Collection[Key]) -> dict[Key, list[Member]]:
        found: dict[Key, list[Member]] = {}
        for key in keys:
            tenant, minute = str(key[0]), int(key[1])
            rows = self._rows(
                f"SELECT event_id, amount, kafka_partition, kafka_offset FROM ({_EVENTS}) WHERE tenant = {{tenant:String}}",
                self._range(Span(minute, minute + 1)) | {"tenant": tenant},
            )
            found[key] = [Member(i, int(amount), f"{p}:{o}") for i, amount, p, o in rows]
        return found

    def _range(self, span: Span) -> dict[str, Any]:
        return {"topic": self._topics.trace, "start": span.start, "end": span.end}

    def _rollups(self) -> dict[str, Any]:
        return {"topic": self._topics.rollup}

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        try:
            rows: Sequence[Sequence[Any]] = self._client.query(sql, parameters=dict(parameters)).result_rows
        except ClickHouseError as e:
            raise SteersmanError(
                f"the tables cannot be asked ({str(e).splitlines()[0][:300]}); are they of this version ('steersman migrate')?"
            ) from e
        return rows


def _groups(rows: Iterable[Sequence[Any]]) -> dict[Key, Fingerprint]:
    return {key: Fingerprint(int(n), int(total), int(xor), int(amount)) for key, n, total, xor, amount in rows}


def _by_partition(values: Mapping[int, int]) -> list[int]:
    return [values.get(p, 0) for p in range(max(values, default=0) + 1)]


def _text(value: str | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
