"""A batch of raw trace records as rows: most of them checked and prepared by columns, the others left as records.

A row is *plain* when it was written by the current contract, decodes beyond doubt (`columns.avro`), passes every
check of `streams.events` that looks at one field, and has a plausible time. Any other row is decoded and validated as a
record, with the outcome that the record path gives because it is the record path.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from columns.avro import ColumnReader
from columns.block import Block
from columns.column import Bools, Longs, Numbers, with_nulls
from steersman import contracts
from steersman.codec import Codec
from steersman.errors import DecodeError
from steersman.events import MAX_AMOUNT
from steersman.fingerprint import hash64_all
from steersman.prices import FIELDS as PRICE_FIELDS
from steersman.prices import PRICED, PriceTable
from streams.detect.sign_rows import sign_rows
from streams.events import AMOUNTS, BAD_STATUSES, MAX_TS_US, NAMES, SPAN_KINDS, STATUSES
from streams.framed import framed
from streams.ledger import MINUTE_US, minutes_of
from streams.record_batch import RecordBatch
from streams.text_columns import HexIds, codes_of, combine, hex_ids
from streams.trace_state import KEPT, SpanRecord, TraceKey
from streams.watermark import PartitionClock
from streams.window import WindowKey
from streams.window_rows import window_rows

SPAN, END, EVENT, RECORD = range(4)
"""How a row is taken in: as a prepared span, as the end of a trace, as the few fields of a decision or feedback that matter,
or as a whole record."""

_SCHEMA: Final = contracts.schema("trace_event")
_READER: Final = ColumnReader(_SCHEMA)
_ROUTES: Final = dict.fromkeys(SPAN_KINDS, SPAN) | {"END": END, "DECISION": EVENT, "FEEDBACK": EVENT}
_SPAN_FIELDS: Final = ("duration_us", "cost_micro_usd", "input_tokens", "output_tokens", "status")
_DECISION_FIELDS: Final = ("kind", *KEPT, *_SPAN_FIELDS)
_FEEDBACK_FIELDS: Final = (
    "kind", "event_id", "tenant", "trace_id", "metric", "value", "label", "target_decision_id", "target_span_id",
    "source",
)  # fmt: skip
_NAMED: Final = ("tenant", "agent", "policy", "arm", "operation")
"""Fields of a `WindowKey`, but for the kind."""
_WINDOW_KEY: Final = partial(tuple.__new__, WindowKey)
"""Makes a `WindowKey` of its fields, in a third of the time that the class takes."""


class TraceRows:
    """Rows of a batch, ready for `streams.trace_stage.TraceStage.process_rows`.

    Parameters
    ----------
    batch : RecordBatch
        The records.
    start : int
        Index of the first that is wanted; there must be one.
    codec : Codec
        Of trace events.
    clock : PartitionClock
        It says which times are plausible, and is not moved.
    window_us : int
        Length of the windows; unit: microseconds.
    prices : PriceTable, optional
        Prices the calls that report no cost.

    Attributes
    ----------
    offsets : list of int
        Kafka offsets.
    record_ts_us : list of int
        Kafka timestamps; unit: microseconds since 1970-01-01 UTC, zero or less without one.
    routes : list of int
        `SPAN`, `END`, `EVENT` or `RECORD`, for each row.
    failed : list of (int, DecodeError)
        Offsets of the records that cannot be decoded, and why.
    minutes : list of int
        The ledger's minutes.
    pricing : dict of int to str
        Rows whose cost was to be computed, and what is counted for each.

    Notes
    -----
    All other lists mean something for rows that are not `RECORD` only: ``times`` and ``starts`` (event times, and where
    their windows start; microseconds since 1970-01-01 UTC), ``keys`` and ``folded`` (trace and event id, as the join has
    them), ``spans`` (of `SPAN` rows), ``events`` (of `EVENT` rows), ``windows`` (equal number, equal start and window key),
    ``sums`` (what windows add up), ``accounts`` (equal number, equal minute and tenant), ``hashes`` and ``amounts`` (for the
    ledger).
    """

    def __init__(
        self,
        batch: RecordBatch,
        start: int,
        codec: Codec,
        clock: PartitionClock,
        window_us: int,
        prices: PriceTable | None = None,
    ) -> None:
        self._batch, self._start, self._codec = batch, start, codec
        self.offsets = batch.offsets[start:]
        self.record_ts_us = [stamp * 1000 for stamp in batch.timestamps[start:]]
        # Any producer sets the time of its records: beyond these bounds none is plausible, and the product would overflow.
        stamps = np.clip(np.array(batch.timestamps[start:], np.int64), -1, 10**15) * 1000
        minutes = minutes_of(stamps)
        self.minutes: list[int] = minutes.tolist()
        self.failed: list[tuple[int, DecodeError]] = []

        block = _READER.read(*framed(batch, start, codec, _SCHEMA))
        event_ids, trace_ids = hex_ids(block, "event_id", 32), hex_ids(block, "trace_id", 32)
        span_ids, parents = hex_ids(block, "span_id", 16), hex_ids(block, "parent_span_id", 16)
        ts = block.numbers("ts").values
        sound = (
            block.sure & _within_bounds(block) & clock.plausible(ts, stamps)
            & event_ids.valid & trace_ids.named & span_ids.named & (parents.named | ~parents.present)
        )  # fmt: skip
        kinds = block.numbers("kind")
        by_kind = np.array([_ROUTES.get(kind, RECORD) for kind in kinds.symbols])
        routes = np.where(sound, by_kind[kinds.values], RECORD)
        self.routes: list[int] = routes.tolist()
        plain = routes != RECORD
        # The ledger counts what was reported, which is what the log and the tables hold.
        self.amounts: Longs = np.where(plain, block.numbers("cost_micro_usd").values, 0)
        self.pricing = {} if prices is None else _price(block, plain, prices)

        ts = np.where(plain, ts, 0)
        starts = ts - ts % window_us
        self.times: list[int] = ts.tolist()
        self.starts: list[int] = starts.tolist()
        self._names = [codes_of(block.texts(name), plain) for name in _NAMED]
        named = (map(names.__getitem__, codes.tolist()) for codes, names in self._names)
        symbols = map(kinds.symbols.__getitem__, kinds.values.tolist())
        # All at once: most rows of a batch that is not long need theirs.
        self._window_keys = list(map(_WINDOW_KEY, zip(*named, symbols, strict=True)))
        tenant_codes, tenants = self._names[0]
        self._event_ids = event_ids
        everywhere = np.arange(len(self))
        self.keys: list[TraceKey] = list(
            zip(trace_ids.pick(everywhere), map(tenants.__getitem__, tenant_codes.tolist()), strict=True)
        )
        self.folded: list[int] = (event_ids.words[:, 0] ^ event_ids.words[:, 1]).tolist()
        self.spans = _spans(block, np.flatnonzero(routes == SPAN), span_ids, parents, self._names)
        self.events = _events(block, np.flatnonzero(routes == EVENT))

        first = int(starts[plain].min()) if plain.any() else 0
        numbers = [np.where(plain, (starts - first) // window_us, 0), np.where(plain, kinds.values, 0)]
        self.windows: list[int] = combine(*numbers, *(codes for codes, _ in self._names)).tolist()
        self.sums = window_rows(block, plain)
        self.accounts: list[int] = combine((minutes - minutes.min()) // MINUTE_US, tenant_codes).tolist()
        self.hashes = hash64_all(event_ids.all_bytes())
        self._records = {row: self._decode(row) for row in np.flatnonzero(~plain).tolist()}

    def __len__(self) -> int:
        return len(self.offsets)

    def record(self, row: int) -> dict[str, Any] | None:
        """Return the decoded record of a row, None for one that cannot be decoded."""
        return self._records[row] if row in self._records else self._decode(row)

    def window_key(self, row: int) -> WindowKey:
        """Return what the window of a row counts."""
        return self._window_keys[row]

    def identity(self, row: int) -> tuple[str, int]:
        """Return event id and amount of a row, as the ledger counts them."""
        return self._event_ids.one(row), int(self.amounts[row])

    def _decode(self, row: int) -> dict[str, Any] | None:
        index = self._start + row
        try:
            return self._codec.decode(self._batch.values[index], self._batch.headers[index])
        except DecodeError as error:
            self.failed.append((self.offsets[row], error))
            return None


def _within_bounds(block: Block) -> Bools:
    """Which rows have a status, a time, amounts and names as `streams.events` wants them."""
    status, ts = block.numbers("status"), block.numbers("ts").values
    fine: Bools = np.array([symbol in STATUSES for symbol in status.symbols])[status.values]
    fine &= (ts >= 0) & (ts <= MAX_TS_US)
    for name, cap in NAMES:
        fine &= block.texts(name).size <= cap  # bytes: never fewer than the characters that count
    for name in AMOUNTS:
        amount = block.numbers(name)
        if amount.values.any():
            fine &= (amount.values >= 0) & (amount.values <= MAX_AMOUNT)
    return fine


def _price(block: Block, plain: Bools, prices: PriceTable) -> dict[int, str]:
    """Put in the costs of calls that report none; returns what is counted for each row."""
    kinds, costs = block.numbers("kind"), block.numbers("cost_micro_usd")
    if costs.present is None:
        return {}
    wanted = plain & ~costs.present & np.array([symbol in PRICED for symbol in kinds.symbols])[kinds.values]
    rows = np.flatnonzero(wanted)
    values, present = costs.values.copy(), costs.present.copy()
    counted: dict[int, str] = {}
    for row, record in zip(rows.tolist(), block.records(rows, PRICE_FIELDS), strict=True):
        cost, reason = prices.cost(record)
        counted[row] = f"unpriced_{reason}" if cost is None else "priced"
        if cost is not None:
            values[row], present[row] = cost, True
    block.columns["cost_micro_usd"] = Numbers(values, present)
    return counted


def _spans(
    block: Block, rows: Longs, span_ids: HexIds, parents: HexIds, coded: list[tuple[Longs, list[str]]]
) -> list[SpanRecord | None]:
    """Span records of some rows, their names given as codes; None at the others."""
    named = dict(zip(_NAMED, coded, strict=True))
    signs = sign_rows(block, rows)
    status = block.numbers("status")
    bad = np.array([symbol in BAD_STATUSES for symbol in status.symbols])
    columns = (
        span_ids.pick(rows),
        with_nulls(parents.pick(rows), parents.present[rows]),
        block.numbers("ts").pick(rows),
        block.numbers("duration_us").pick(rows),
        *(block.numbers(name).values[rows].tolist() for name in ("cost_micro_usd", "input_tokens", "output_tokens")),
        bad[status.values[rows]].tolist(),
        [True] * len(rows),
        signs.signs,
        *([names[code] for code in codes[rows].tolist()] for codes, names in (named["agent"], named["operation"])),
        signs.args,
        signs.fills,
    )
    spans: list[SpanRecord | None] = [None] * len(block.sure)
    for row, span in zip(rows.tolist(), map(SpanRecord._make, zip(*columns, strict=True)), strict=True):
        spans[row] = span
    return spans


def _events(block: Block, rows: Longs) -> list[dict[str, Any]]:
    """What the join and the checks need to know of decisions and feedback; nothing at other rows."""
    kinds = block.numbers("kind")
    decided = kinds.values[rows] == kinds.symbols.index("DECISION")
    nothing: dict[str, Any] = {}
    events = [nothing] * len(block.sure)
    for wanted, names in ((rows[decided], _DECISION_FIELDS), (rows[~decided], _FEEDBACK_FIELDS)):
        for row, record in zip(wanted.tolist(), block.records(wanted, names), strict=True):
            events[row] = record
    return events
