"""One pass over prepared rows: what `streams.trace_stage.TraceStage` does record by record, with less work for each.

In every row the join comes first and the clock last, as there. What is put off is put off only to where nobody has looked
at it in between: the sums of windows up to the next emission, those of the ledger up to the end of the pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from steersman.errors import InvalidRecord
from steersman.fingerprint import Fingerprint
from streams.events import validate_kind
from streams.join import TraceJoin
from streams.ledger import LedgerBook
from streams.ports import PolicyBook
from streams.rollup import Rollups
from streams.trace_rows import EVENT, RECORD, TraceRows
from streams.watermark import PartitionClock
from streams.window_rows import CLOSED


class TracePass:
    """The parts of a stage, for one pass.

    Parameters
    ----------
    rows : TraceRows
        What to take in.
    policies, clock, join, rollups, ledger, counters
        The parts.
    take : callable
        Takes a whole record in: index of its row.
    pass_time : callable
        Does what is due after a record: its offset.
    found : list
        What detectors have found: `pass_time` is due when it holds anything.
    """

    def __init__(
        self,
        rows: TraceRows,
        *,
        policies: PolicyBook,
        clock: PartitionClock,
        join: TraceJoin,
        rollups: Rollups,
        ledger: LedgerBook,
        counters: Counter[str],
        take: Callable[[int], Any],
        pass_time: Callable[[int], Any],
        found: list[Any],
    ) -> None:
        self._rows = rows
        self._policies = policies
        self._clock = clock
        self._join = join
        self._rollups = rollups
        self._ledger = ledger
        self._count = counters
        self._take = take
        self._pass_time = pass_time
        self._found = found
        self._accounts: list[tuple[Fingerprint, list[int]]] = []

    def run(self, first: int) -> None:
        """Take in the rows from an index on; all of them are new to the stage and to its ledger."""
        rows, clock, join, rollups, ledger = self._rows, self._clock, self._join, self._rollups, self._ledger
        offsets, routes, times, minutes, keys, folded, spans, starts, windows, accounts = (
            rows.offsets, rows.routes, rows.times, rows.minutes, rows.keys, rows.folded, rows.spans, rows.starts,
            rows.windows, rows.accounts,
        )  # fmt: skip
        apply_plain, timers = join.apply_plain, join.timers
        sums = rollups.rows
        sums.begin(rows.sums)
        slot_of, opened, fills, put_off, put_off_slot = (
            sums.slots.get, sums.windows, rows.sums.fills, sums.rows.append, sums.row_slots.append
        )  # fmt: skip
        members: dict[int, list[int]] = {}
        found = self._found
        late_after = rollups.late_after_us
        self._count.update(what for row, what in rows.pricing.items() if row >= first)
        now, newest, emits_at = clock.now_us, ledger.newest, rollups.emits_at_us
        for row in range(first, len(rows)):
            offset, route, ts = offsets[row], routes[row], times[row]
            policy = None
            if route >= EVENT:
                if route == EVENT:
                    try:
                        policy = validate_kind(rows.events[row], self._policies)
                    except InvalidRecord:
                        route = RECORD  # which finds it out once more, and says so
                if route == RECORD:
                    clock.now_us = now
                    self._take(row)
                    now, emits_at = clock.now_us, rollups.emits_at_us
                    if ledger.newest > newest:
                        newest = ledger.newest
                        members.clear()
                    continue
            if minutes[row] > newest:
                newest = minutes[row]
                self._begin(row)
                members.clear()
            if route == EVENT:
                counts = join.apply(rows.events[row], ts, offset, policy)
            else:
                counts = apply_plain(keys[row], folded[row], ts, offset, spans[row])
            if counts:
                slot = slot_of(windows[row])
                if slot is None:
                    slot = rollups.open_row(windows[row], starts[row], rows.window_key(row), offset)
                if slot >= 0:
                    window = opened[slot]
                    window.at = offset
                    put_off(row)
                    put_off_slot(slot)
                    fill = fills[row]
                    if fill is not None:
                        window.add_fill(fill)
                    if starts[row] + late_after <= now:
                        window.late += 1
                        self._count["rollup_late"] += 1
                if slot == CLOSED:
                    self._say("too_late", row)
                else:
                    account = members.get(accounts[row])
                    if account is None:
                        account = members[accounts[row]] = self._account(row)
                    account.append(row)
            else:
                self._say("duplicate", row)
            if ts > now:
                now = ts
            if now >= emits_at or found or (timers and timers[0][0] <= now):
                clock.now_us = now
                self._begin(row)
                self._pass_time(offset)
                emits_at = rollups.emits_at_us
        clock.now_us = now
        self._begin(len(rows) - 1)
        sums.end()
        self._settle_ledger()

    def _begin(self, row: int) -> None:
        """See that the ledger is at a row, before anything is counted for it."""
        if self._ledger.at != self._rows.offsets[row]:
            self._ledger.begin(self._rows.offsets[row], self._rows.record_ts_us[row])

    def _say(self, outcome: str, row: int) -> None:
        self._begin(row)
        self._ledger.count(outcome, *self._rows.identity(row), tenant=self._rows.keys[row][1])

    def _account(self, row: int) -> list[int]:
        """Open the ledger's sums of accepted events of a row's minute and tenant; returns the list of their rows."""
        self._begin(row)
        rows: list[int] = []
        self._accounts.append((self._ledger.sums("accepted", self._rows.keys[row][1]), rows))
        return rows

    def _settle_ledger(self) -> None:
        for sums, members in self._accounts:
            at = np.array(members)
            hashes = self._rows.hashes[at]
            total, xor = np.add.reduce(hashes), np.bitwise_xor.reduce(hashes)
            sums.merge(Fingerprint(len(members), int(total), int(xor), int(self._rows.amounts[at].sum())))
