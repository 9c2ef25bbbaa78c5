"""Inserting the batches of one table, again and again until ClickHouse has them."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from collections.abc import Callable

from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

from sinks.batch import Batch, Rejected
from sinks.offer import Offer
from sinks.rows import Store, rows_of
from sinks.tables import Message, Table
from steersman.errors import SteersmanError, Unreachable
from steersman.fault_points import reach

MANY_ROWS = 10_000
"""A batch of so many rows waits for half as long again: inserts that are larger are merged less often, and merging costs a server
more than inserting does."""
MAX_CONSECUTIVE = 1000
"""Most records in a row that may be rejected before the sink stops."""

_HINTS = {
    60: "run 'python -m sinks migrate'",
    16: "run 'python -m sinks migrate'",
    81: "run 'python -m sinks migrate'",
    164: "the server or the user is read-only; the sink goes on when it can write again",
    241: "the server is short of memory; the sink goes on when there is some",
    242: "the table is read-only; the sink goes on when it can write again",
    252: "too many parts: merges cannot keep up, or inserts are too small (STEERSMAN_SINK_FLUSH_S, _ROWS)",
    307: "the insert is larger than the server takes; the sink goes on in halves (STEERSMAN_SINK_FLUSH_MIB)",
    516: "check user and password in STEERSMAN_CLICKHOUSE_URL",
    497: "the user may not insert into this table",
}

# Refusals that a smaller insert may escape (no memory, too large a body, too many parts), and the rows below which it
# is not cut. Smaller inserts make more parts, so that one is cut a few times at most.
_SMALLEST = {173: 1, 241: 1, 307: 1, 252: 1000}

# What clickhouse-connect raises, before anything is sent, for a value that its column cannot hold.
_UNFIT = (DataError, ValueError, TypeError, OverflowError, struct.error)


class TooManyRejected(SteersmanError):
    """So many records in a row cannot be stored that the fault must be elsewhere."""


class Backoff:
    """Pauses that double with every failure, with jitter.

    Parameters
    ----------
    rng
        Source of the jitter.
    base_s, max_s
        First and longest pause; unit: seconds.
    """

    def __init__(self, rng: random.Random, base_s: float = 0.2, max_s: float = 15.0):
        self._rng = rng
        self._base_s = base_s
        self._max_s = max_s
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; returns the pause before the next attempt, in seconds."""
        pause = min(self._max_s, self._base_s * float(2 ** min(self.failures, 30)))
        self.failures += 1
        return pause * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        self.failures = 0


class Writer:
    """Collects messages for one table and inserts them.

    Nothing is dropped: while ClickHouse refuses, the batch stays, is offered again with the same deduplication token
    (in halves, when it may be too large), and `blocked` tells the sink to stop reading the topic.

    A server remembers the tokens of the last inserts into a table (1000, see the migrations). A writer has one batch
    under way at a time, so only other sinks can push a token out before its batch comes again; then the table has its
    rows twice until it merges, and the views have them once.

    Parameters
    ----------
    table
        The table.
    backoff
        Pauses between attempts.
    reject
        Disposes of what cannot be stored; raises Unreachable when it could not.
    flush_s, flush_rows, flush_bytes
        A batch is inserted when it is that old (half as old again from `MANY_ROWS` on) or that large.
    timed
        Told how long each insert took, also one that failed; unit: seconds.
    """

    def __init__(
        self,
        table: Table,
        backoff: Backoff,
        reject: Callable[[list[Rejected]], None],
        *,
        flush_s: float,
        flush_rows: int,
        flush_bytes: int,
        timed: Callable[[float], object] = float,
    ):
        self.table = table
        self.counters: Counter[str] = Counter()
        self._backoff = backoff
        self._reject = reject
        self._timed = timed
        self._flush_s, self._flush_rows, self._flush_bytes = flush_s, flush_rows, flush_bytes
        self._filling: Batch | None = None
        self._offer: Offer | None = None
        self._next_attempt = 0.0
        self._consecutive = 0
        self.last_error = ""

    @property
    def blocked(self) -> bool:
        """True while a batch waits for ClickHouse to take it."""
        return self._offer is not None

    @property
    def waiting(self) -> int:
        """Messages that are not stored yet."""
        return sum(part.count for part in (self._offer, self._filling) if part is not None)

    def add(self, message: Message, now: float) -> None:
        """Take a message."""
        if self._filling is None:
            self._filling = Batch(self.table.name, now)
        self._filling.add(message)

    def due(self, now: float) -> bool:
        """Tell whether there is something to insert at this time."""
        if self._offer is not None:
            return now >= self._next_attempt
        batch = self._filling
        if batch is None:
            return False
        longest_s = self._flush_s if batch.count < MANY_ROWS else 1.5 * self._flush_s
        return batch.count >= self._flush_rows or batch.size >= self._flush_bytes or now - batch.started >= longest_s

    def flush(self, store: Callable[[], Store], now: float) -> dict[int, int]:
        """Insert what there is, once.

        Parameters
        ----------
        store
            Gives the client; raises Unreachable when there is none.

        Returns
        -------
        dict of int to int
            Offsets from which to go on, by partition, empty when ClickHouse did not take the batch.

        Raises
        ------
        TooManyRejected
            Too many in a row cannot be stored. The batch then ends before the last of them.
        """
        if self._offer is None:
            if self._filling is None:
                return {}
            self._offer, self._filling = self._make_offer(self._filling), None
        offer = self._offer
        try:
            if offer.next_piece is not None:
                self._insert(store(), offer)
                reach("sink.inserted")
            rejected = offer.rejected()
            self._reject(rejected)
        except (ClickHouseError, Unreachable, OSError) as e:
            code = getattr(e, "code", None)
            pause = self._backoff.failed()
            self._next_attempt = now + pause
            self.counters["failed_attempts"] += 1
            if code:
                self.counters[f"code_{code}"] += 1
            hint = _HINTS.get(code or 0, "the sink tries again by itself")
            # A broken constraint is told with the values of the row.
            said = " ".join(str(e).partition("Column values")[0].split())[:300]
            self.last_error = f"{said} ({hint}; next attempt in {pause:.1f} s)"
            return {}
        reach("sink.written")
        self.counters["rejected"] += len(rejected)
        self.counters["skipped"] += offer.skipped
        self._backoff.reset()
        self._offer = None
        self.last_error = ""
        return offer.positions()

    def drop(self, partition: int) -> None:
        """Forget the messages of a partition, which somebody else reads now; what was offered already stays as it is."""
        if self._offer is not None:
            self._offer.release(partition)
        if self._filling is not None:
            self._filling.drop(partition)

    def _make_offer(self, batch: Batch) -> Offer:
        rows, rejected = rows_of(self.table, batch.by_partition())
        if rejected:
            errors = {(one.message.partition, one.message.offset): one.error for one in rejected}
            consecutive = self._consecutive
            for i, message in enumerate(batch.messages):
                error = errors.get((message.partition, message.offset))
                consecutive = 0 if error is None else consecutive + 1
                if consecutive > MAX_CONSECUTIVE:
                    batch.cut(i)
                    raise TooManyRejected(
                        f"{consecutive} records of {message.topic} in a row cannot be stored, the last one (partition "
                        f"{message.partition}, offset {message.offset}) because of {error}: find out what is written to "
                        "the topic, or what this release cannot read, then start the sink again"
                    ) from error
            self._consecutive = consecutive
        elif batch.count:
            self._consecutive = 0
        return Offer(batch, rows, rejected, self.table.topic)

    def _insert(self, store: Store, offer: Offer) -> None:
        """Insert what is left of an offer. Rows that their columns cannot hold are found by halving, and rejected."""
        while (piece := offer.next_piece) is not None:
            reach("sink.before_insert")
            started = time.perf_counter()
            try:
                offer.rows.insert(
                    store,
                    piece.first,
                    piece.last,
                    # One insert may hold events of many months: replayed data does.
                    {
                        **({"optimize_on_insert": 0} if self.table.one_row_each else {}),
                        "insert_deduplication_token": piece.token,
                        "max_partitions_per_insert_block": 0,
                    },
                )
            except _UNFIT as e:
                if piece.count == 1:
                    offer.reject(e)
                else:
                    offer.halve()
                continue
            except ClickHouseError as e:
                if piece.count > _SMALLEST.get(getattr(e, "code", None) or 0, piece.count):
                    offer.halve()
                    self.counters["halved"] += 1
                raise
            finally:
                self._timed(time.perf_counter() - started)
            offer.stored()
            self._backoff.reset()
            self.counters["rows"] += piece.count
            self.counters["inserts"] += 1
