"""Order-free fingerprints."""

from __future__ import annotations

import chdb
from hypothesis import given
from hypothesis import strategies as st

from steersman.fingerprint import Fingerprint, hash64, signed, unsigned

RECORDS = st.lists(st.tuples(st.text(max_size=8), st.integers(-(10**12), 10**12)), max_size=20)


def of(records: list[tuple[str, int]]) -> Fingerprint:
    made = Fingerprint()
    for identity, amount in records:
        made.add(identity, amount)
    return made


@given(RECORDS, st.randoms(use_true_random=False), st.integers(0, 20))
def test_order_and_cuts_do_not_show(records: list[tuple[str, int]], random: object, cut: int) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert of(records) == of(shuffled[:cut]).merge(of(shuffled[cut:]))


@given(RECORDS, st.tuples(st.text(max_size=8), st.integers(0, 10**12)))
def test_one_more_one_less_and_one_doubled_show(records: list[tuple[str, int]], extra: tuple[str, int]) -> None:
    assert of(records) != of([*records, extra])
    assert of([*records, extra]) != of([*records, extra, extra])
    assert of([*records, extra]) != of([*records, (extra[0], extra[1] + 1)])


@given(st.integers(0, (1 << 64) - 1))
def test_signed_and_back(value: int) -> None:
    assert -(1 << 63) <= signed(value) < 1 << 63
    assert unsigned(signed(value)) == value


def test_clickhouse_computes_the_same_hash() -> None:
    for text in ("", "abc", "é"):
        query = f"SELECT reinterpretAsUInt64(substring(SHA256('{text}'), 1, 8))"
        assert int(chdb.query(query, "TSV").bytes()) == hash64(text)
