"""The book of a stage: the same entries however the log is cut, and nothing counted twice over restarts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fastavro.validation
from hypothesis import given
from hypothesis import strategies as st

from steersman import contracts
from steersman.fingerprint import Fingerprint, signed
from streams.ledger import MINUTE_US, LedgerBook, entry_key

LOG = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["accepted", "duplicate", "rejected"]), st.integers(0, 9)), max_size=30
)
CUTS = st.sets(st.integers(0, 30))
T0 = 1_800_000_000_000_000 // MINUTE_US * MINUTE_US


def run(log: list[tuple[int, str, int]], cuts: Iterable[int], restarts: Iterable[int] = ()) -> dict[str, Any]:
    """Entries by key, the highest version of each; a checkpoint after each cut, a crash before some are saved."""
    newest: dict[str, dict[str, Any]] = {}
    book, saved, saved_at = LedgerBook("trace", 2), b"", 0
    crashes = set(restarts)
    offset = 0
    while offset < len(log):
        minute, outcome, amount = log[offset]
        book.begin(offset, T0 + minute * MINUTE_US + 7)
        book.count(outcome, f"id{offset}", amount, tenant="t")
        offset += 1
        if offset in cuts or offset == len(log):
            for record in book.entries():
                fastavro.validation.validate(record, contracts.schema("ledger"))
                key = entry_key(record)
                if key not in newest or newest[key]["version"] <= record["version"]:
                    newest[key] = record
            if offset in crashes:
                crashes.discard(offset)
                book, offset = LedgerBook("trace", 2), saved_at
                if saved:
                    book.restore(saved)
            else:
                saved, saved_at = book.dump(), offset
    return {
        key: {k: v for k, v in r.items() if k not in ("version", "source_offset", "seq")} for key, r in newest.items()
    }


@given(LOG, CUTS, CUTS, st.sets(st.integers(0, 30)))
def test_cuts_and_crashes_do_not_show(
    log: list[tuple[int, str, int]], cuts: set[int], others: set[int], crashes: set[int]
) -> None:
    reference = run(log, ())
    assert run(log, cuts) == reference
    assert run(log, others, crashes) == reference


@given(LOG, CUTS)
def test_adds_up_to_the_log(log: list[tuple[int, str, int]], cuts: set[int]) -> None:
    expected: dict[tuple[int, str], Fingerprint] = {}
    for offset, (minute, outcome, amount) in enumerate(log):
        expected.setdefault((T0 + minute * MINUTE_US, outcome), Fingerprint()).add(f"id{offset}", amount)
    found: dict[tuple[int, str], Fingerprint] = {}
    for record in run(log, cuts).values():
        sums = Fingerprint(record["n"], record["id_sum"] % (1 << 64), record["id_xor"] % (1 << 64), record["amount"])
        found.setdefault((record["minute"], record["outcome"]), Fingerprint()).merge(sums)
    assert found == expected


def test_what_was_counted_before_a_restart_is_not_counted_again() -> None:
    book = LedgerBook("trace", 0)
    for offset in range(5):
        book.begin(offset, 0)
        book.count("accepted", str(offset))
    book.entries()
    again = LedgerBook("trace", 0)
    again.restore(book.dump())
    for offset in range(3, 7):  # the marker was older than the book
        again.begin(offset, 0)
        again.count("accepted", str(offset))
    (entry,) = again.entries()
    assert (entry["n"], entry["version"], entry["first_offset"]) == (7, 7, 0)


def test_unreadable_records_go_by_their_place() -> None:
    book = LedgerBook("trace", 4)
    book.begin(17, -1)
    book.unreadable()
    (entry,) = book.entries()
    place = Fingerprint()
    place.add("4:17")
    assert (entry["outcome"], entry["reason"], entry["tenant"], entry["minute"]) == ("rejected", "unreadable", "", 0)
    assert (entry["n"], entry["id_sum"]) == (1, signed(place.total))
