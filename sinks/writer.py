"""Inserting the batches of one table, again and again until ClickHouse has them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from sinks.attempt import Attempt
from sinks.batch import Batch, Rejected
from sinks.offer import Offer
from sinks.rows import Store, rows_of
from sinks.tables import Message, Table
from steersman.errors import SteersmanError

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
    (in halves, when it may be too large), and `full` tells the sink to stop reading the topic.

    A server remembers the tokens of the last inserts into a table (1000, see the migrations). A writer has one batch
    under way at a time, so only other sinks can push a token out before its batch comes again; then the table has its
    rows twice until it merges, and the views have them once.

    All methods are for one thread. What `begin` gives may run on another; meanwhile messages are taken for the next
    batch, and partitions dropped.

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
        self._ready: Offer | None = None
        self._attempt: Attempt | None = None
        self._next_attempt = 0.0
        self._consecutive = 0
        self.last_error = ""

    @property
    def blocked(self) -> bool:
        """True from a batch's first failure until it is stored."""
        return bool(self.last_error)

    @property
    def full(self) -> bool:
        """True while no more messages are to come: blocked, or the next batch is large enough and one is under way."""
        return self.blocked or self._ready is not None or (self._offer is not None and self._large())

    @property
    def under_way(self) -> bool:
        """True while an attempt has not finished."""
        return self._attempt is not None

    @property
    def waiting(self) -> int:
        """Messages that are not stored yet."""
        return sum(part.count for part in (self._offer, self._ready, self._filling) if part is not None)

    def add(self, message: Message, now: float) -> None:
        """Take a message."""
        if self._filling is None:
            self._filling = Batch(self.table.name, now)
        self._filling.add(message)

    def due(self, now: float) -> bool:
        """Tell whether there is something to insert at this time."""
        if self._attempt is not None:
            return False
        if self._offer is not None:
            return now >= self._next_attempt
        batch = self._filling
        if self._ready is not None or batch is None:
            return self._ready is not None
        longest_s = self._flush_s if batch.count < MANY_ROWS else 1.5 * self._flush_s
        return self._large() or now - batch.started >= longest_s

    def prepare(self) -> None:
        """Make the next batch ready while one is under way, when it is large enough.

        Raises
        ------
        TooManyRejected
            As `begin`.
        """
        if self._offer is not None and self._ready is None and self._large() and self._filling is not None:
            self._ready, self._filling = self._make_offer(self._filling), None

    def begin(self) -> Attempt | None:
        """Make what there is ready to be inserted, None when there is nothing or an attempt is under way.

        Raises
        ------
        TooManyRejected
            Too many in a row cannot be stored. The batch then ends before the last of them.
        """
        if self._attempt is not None:
            return None
        if self._offer is None:
            self._offer, self._ready = self._ready, None
        if self._offer is None:
            if self._filling is None:
                return None
            self._offer, self._filling = self._make_offer(self._filling), None
        self._attempt = Attempt(self.table, self._offer, self._reject, self._timed)
        return self._attempt

    def finish(self, now: float) -> dict[int, int]:
        """Take note of what the attempt under way came to; call it when that has run.

        Returns
        -------
        dict of int to int
            Offsets from which to go on, by partition, empty when ClickHouse did not take the batch.
        """
        attempt, offer = self._attempt, self._offer
        if attempt is None or offer is None:
            return {}
        self._attempt = None
        self.counters.update(attempt.counters)
        if attempt.counters["inserts"] or attempt.error is None:
            self._backoff.reset()
        if attempt.error is not None:
            self._failed(attempt.error, now)
            return {}
        self.counters["skipped"] += offer.skipped
        self._offer = None
        self.last_error = ""
        return offer.positions()

    def withdraw(self) -> None:
        """Take note that the attempt under way will not run; its batch is still the next one."""
        self._attempt = None

    def flush(self, store: Callable[[], Store], now: float) -> dict[int, int]:
        """Insert what there is, once, and wait for it.

        Parameters
        ----------
        store
            Gives the client; raises Unreachable when there is none.

        Returns
        -------
        dict of int to int
            As `finish`.

        Raises
        ------
        TooManyRejected
            As `begin`.
        """
        attempt = self.begin()
        if attempt is None:
            return {}
        attempt.run(store)
        return self.finish(now)

    def drop(self, partition: int) -> None:
        """Forget the messages of a partition, which somebody else reads now; what was made ready stays as it is."""
        for offer in (self._offer, self._ready):
            if offer is not None:
                offer.release(partition)
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

    def _large(self) -> bool:
        batch = self._filling
        return batch is not None and (batch.count >= self._flush_rows or batch.size >= self._flush_bytes)

    def _failed(self, error: Exception, now: float) -> None:
        code = getattr(error, "code", None)
        pause = self._backoff.failed()
        self._next_attempt = now + pause
        self.counters["failed_attempts"] += 1
        if code:
            self.counters[f"code_{code}"] += 1
        hint = _HINTS.get(code or 0, "the sink tries again by itself")
        # A broken constraint is told with the values of the row.
        said = " ".join(str(error).partition("Column values")[0].split())[:300]
        self.last_error = f"{said} ({hint}; next attempt in {pause:.1f} s)"
