"""One try to bring an offer into its table: what of the sink's work may run on another thread than the rest."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable

from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

from sinks.batch import Rejected
from sinks.offer import Offer
from sinks.rows import Store
from sinks.tables import Table
from steersman.errors import Unreachable
from steersman.fault_points import reach

# Refusals that a smaller insert may escape (no memory, too large a body, too many parts), and the rows below which it
# is not cut. Smaller inserts make more parts, so that one is cut a few times at most.
_SMALLEST = {173: 1, 241: 1, 307: 1, 252: 1000}

# What clickhouse-connect raises, before anything is sent, for a value that its column cannot hold.
_UNFIT = (DataError, ValueError, TypeError, OverflowError, struct.error)


class Attempt:
    """Inserts what is left of an offer, and sends the dead letters of its batch.

    From its making to `Writer.finish` the offer's rows are this attempt's alone; a partition may be released from the
    offer at any time.

    Parameters
    ----------
    table
        The table.
    offer
        What to insert.
    reject
        Disposes of what cannot be stored; raises Unreachable when it could not.
    timed
        Told how long each insert took, also one that failed; unit: seconds.

    Attributes
    ----------
    error
        Why it failed, None when rows and dead letters are where they belong.
    counters
        rows, inserts, halved, rejected.
    """

    def __init__(
        self,
        table: Table,
        offer: Offer,
        reject: Callable[[list[Rejected]], None],
        timed: Callable[[float], object],
    ):
        self.table = table
        self.error: ClickHouseError | Unreachable | OSError | None = None
        self.counters: Counter[str] = Counter()
        self._offer = offer
        self._reject = reject
        self._timed = timed

    def run(self, store: Callable[[], Store]) -> None:
        """Try, once.

        Parameters
        ----------
        store
            Gives the client; raises Unreachable when there is none.
        """
        try:
            if self._offer.next_piece is not None:
                self._insert(store())
                reach("sink.inserted")
            rejected = self._offer.rejected()
            self._reject(rejected)
        except (ClickHouseError, Unreachable, OSError) as e:
            self.error = e
            return
        self.counters["rejected"] += len(rejected)
        reach("sink.written")

    def _insert(self, store: Store) -> None:
        """Insert the pieces. Rows that their columns cannot hold are found by halving, and rejected."""
        offer = self._offer
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
            self.counters["rows"] += piece.count
            self.counters["inserts"] += 1
