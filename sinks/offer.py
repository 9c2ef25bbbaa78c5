"""A batch on its way into ClickHouse: which of its rows are there, and in what pieces the others are offered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sinks.batch import Batch, Rejected
from sinks.rows import Rows
from steersman.errors import InvalidRecord


@dataclass(frozen=True)
class Piece:
    """Rows of one insert, `last` excluded, and its deduplication token."""

    first: int
    last: int
    token: str

    @property
    def count(self) -> int:
        """Rows."""
        return self.last - self.first


class Offer:
    """A batch that has been offered once: no row and no token of it changes any more, whatever happens.

    Only so can a server recognise an insert that comes again because the reply to it was lost. Pieces are halved, each
    half under a token made from the whole one's; that is for inserts that were *refused*. Where a server had stored
    part of a refused insert (the partitions before the one that it ran out of memory at), the halves bring those rows
    again under other tokens: the table holds them twice until it merges, the views never do, as after a restart of the
    sink with other cuts.

    Parameters
    ----------
    batch
        What to insert; not to be changed from here on.
    rows
        Its rows, partition by partition.
    rejected
        Its messages that cannot be stored.
    topic
        Where it came from.
    """

    def __init__(self, batch: Batch, rows: Rows, rejected: list[Rejected], topic: str):
        self.rows = rows
        self._batch = batch
        self._released: set[int] = set()
        self._rejected = rejected
        self._left = deque([Piece(0, rows.count, batch.token(topic))] if rows.count else [])
        self.skipped = batch.count - rows.count - len(rejected)

    @property
    def count(self) -> int:
        """Messages of the batch."""
        return self._batch.count

    @property
    def next_piece(self) -> Piece | None:
        """What to insert next; None when all rows are stored or rejected."""
        return self._left[0] if self._left else None

    def stored(self) -> None:
        """Count the next piece as stored."""
        self._left.popleft()

    def halve(self) -> None:
        """Put the two halves of the next piece in its place."""
        piece = self._left.popleft()
        half = piece.first + piece.count // 2
        self._left.appendleft(Piece(half, piece.last, piece.token + "r"))
        self._left.appendleft(Piece(piece.first, half, piece.token + "l"))

    def reject(self, error: Exception) -> None:
        """Give up the next piece, a single row that its columns cannot hold."""
        message = self.rows.message(self._left.popleft().first)
        self._rejected.append(Rejected(message, InvalidRecord("bad_value", str(error))))

    def release(self, partition: int) -> None:
        """Leave a partition to whoever reads it now.

        Its rows stay, for the token's sake, and do no harm: the new reader brings the same ones. Its dead letters and
        offsets are the new reader's.
        """
        self._released.add(partition)

    def rejected(self) -> list[Rejected]:
        """What cannot be stored, of the partitions that are still ours."""
        return [r for r in self._rejected if r.message.partition not in self._released]

    def positions(self) -> dict[int, int]:
        """Next offset to read, by partition that is still ours."""
        return {p: offset for p, offset in self._batch.positions().items() if p not in self._released}
