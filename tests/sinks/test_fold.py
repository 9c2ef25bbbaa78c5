"""Folded traces change no answer: the views against the plain ones, which read events alone, whatever was folded, and when."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse import connect
from sinks.fold import WAIT_S, fold
from sinks.forget import Subject, forget
from sinks.migrations import load, migrate
from tests.faults.gateway import Gateway
from tests.sinks.test_traces import PLAIN, SEED, SPANS, Rows, asked, events, read, store

BEGAN = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(days=2)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def plain(client: Client) -> Client:
    """An empty database, with the plain views under names of their own."""
    for view, number in PLAIN.items():
        [statement] = [s for s in load()[number - 1].statements if f"VIEW {view} " in s]
        for name in PLAIN:
            statement = statement.replace(name, f"plain{name[1:]}")
        client.command(statement)
    return client


def at(client: Client, minute: int) -> None:
    """Let what is inserted from now on be stored in a minute after `BEGAN`."""
    when = (BEGAN + minute * MINUTE).strftime("%Y-%m-%d %H:%M:%S")
    client.command(f"ALTER TABLE trace_events MODIFY COLUMN ingested_at DEFAULT toDateTime('{when}', 'UTC')")


def same(client: Client, what: str, spans: list[tuple[int, int]] = SPANS) -> list[Rows]:
    found = []
    for span in spans:
        for view in PLAIN:
            rows = read(client, view, span)
            assert rows == read(client, f"plain{view[1:]}", span), (what, view, span)
            found.append(rows)
    return found


def from_events(client: Client, span: tuple[int, int]) -> int:
    """How many traces are read from their events."""
    call = "unfolded_traces(tenant = 't', since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}, mixed = 0)"
    return int(
        client.query(f"SELECT length(arrayDistinct(hashes)) - 1 FROM {call}", parameters=asked(span)).result_rows[0][0]
    )


def test_no_answer_depends_on_what_is_folded(plain: Client) -> None:
    rng = random.Random(SEED)
    made = events(rng)
    rng.shuffle(made)  # late events, and traces that are stored in many parts
    parts = [made[k::5] for k in range(5)]
    for k, part in enumerate(parts):
        at(plain, 10 * k)
        first = k * 1000
        store(plain, part, first)
        store(plain, [*rng.sample(part, 20), *rng.sample(made, 10)], first + 500)  # a producer that sent them again
        store(plain, part[:10], first)  # a sink that began again
        same(plain, f"part {k} stored", SPANS[k % 4 : k % 4 + 1])
        folded = fold(plain, until=BEGAN + (10 * k - 5) * MINUTE, max_events=60)
        assert (folded.traces > 0) == (k > 0)
        same(plain, f"part {k - 1} folded", SPANS[:3])
    done = fold(plain)
    assert done.steps > 0
    rows = same(plain, "all folded")[0]
    assert rows
    assert from_events(plain, SPANS[0]) == 0, "all of them come from their totals"
    assert from_events(plain, SPANS[2]) > 0, "those that a span cuts do not"
    assert fold(plain).traces == 0
    waited: list[float] = []
    fold(plain, again=True, max_events=100, wait=waited.append)
    assert waited == [WAIT_S]
    same(plain, "folded anew")
    assert from_events(plain, SPANS[0]) == 0
    before = plain.query("SELECT count(), sum(cost_micro_usd) FROM trace_totals FINAL").result_rows
    plain.command("OPTIMIZE TABLE trace_totals FINAL")
    assert plain.query("SELECT count(), sum(cost_micro_usd) FROM trace_totals").result_rows == before, "one row each"


def test_forgetting_takes_what_was_folded(plain: Client) -> None:
    made = events(random.Random(SEED + 1))
    at(plain, 0)
    half = len(made) // 2
    store(plain, [{**e, "source": "judge-7" if n % 9 == 0 else None} for n, e in enumerate(made[:half])])
    fold(plain, until=BEGAN + 5 * MINUTE)
    at(plain, 10)
    store(plain, made[half:], half)
    found = forget(plain, Subject("t", "u3"))
    assert found.before["trace_totals"]
    assert not any(found.after.values())
    same(plain, "a user forgotten")
    fold(plain, until=BEGAN + 20 * MINUTE)
    same(plain, "and folded")
    forget(plain, Subject("t", "judge-7"))  # traces of others lose some events, and some of them all
    same(plain, "judgements forgotten")
    assert from_events(plain, SPANS[0]) > 0
    fold(plain, until=BEGAN + 20 * MINUTE)
    assert from_events(plain, SPANS[0]) == 0
    same(plain, "and folded")
    query = "SELECT count() FROM trace_totals FINAL WHERE trace_id NOT IN (SELECT trace_id FROM trace_events)"
    assert plain.query(query).result_rows == [(0,)]
    forget(plain, Subject("t"))
    same(plain, "all forgotten")
    for table in ("trace_totals", "trace_folds", "trace_refolds"):
        assert plain.query(f"SELECT count() FROM {table} WHERE tenant = 't'").result_rows == [(0,)]
    store(plain, made[:half], 5000)
    same(plain, "and stored again")
    fold(plain, until=BEGAN + 30 * MINUTE)
    same(plain, "and folded again")
    assert from_events(plain, SPANS[0]) == 0


def test_rows_of_a_fold_that_was_cut_off_are_left_to_it_for_a_while(plain: Client) -> None:
    at(plain, 0)
    store(plain, events(random.Random(SEED + 6)))
    with pytest.raises(Dead):
        fold(Dying(plain, 1))  # type: ignore[arg-type]
    assert fold(plain).put_off
    assert from_events(plain, SPANS[0]) > 0
    assert not fold(plain, leave_s=0).put_off
    assert from_events(plain, SPANS[0]) == 0
    same(plain, "folded after all", SPANS[:1])


class Dead(Exception):
    """The process that folds, or forgets, ends here."""


class Dying:
    """A client that dies before one of its statements."""

    def __init__(self, client: Client, left: int):
        self._client, self._left = client, left

    def _pass(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Dead

    def query(self, *args: Any, **more: Any) -> Any:
        return self._client.query(*args, **more)

    def command(self, *args: Any, **more: Any) -> Any:
        self._pass()
        return self._client.command(*args, **more)


def test_it_may_end_between_any_two_statements(plain: Client) -> None:
    made = events(random.Random(SEED + 2))
    at(plain, 0)
    store(plain, made[::2])
    fold(plain, until=BEGAN + 5 * MINUTE)
    at(plain, 10)
    store(plain, made[1::2], 5000)  # most traces have events of before
    for statements in range(30):
        died = False
        try:
            fold(Dying(plain, statements), max_events=80, leave_s=0)  # type: ignore[arg-type]
        except Dead:
            died = True
        same(plain, f"died before statement {statements}", SPANS[:2])
        if not died:
            break
    assert statements > 3
    assert from_events(plain, SPANS[0]) == 0


def test_a_deletion_may_end_between_any_two_statements(plain: Client) -> None:
    made = events(random.Random(SEED + 3))
    at(plain, 0)
    store(plain, made)
    fold(plain)
    for statements in range(4, 40, 3):
        client = Dying(plain, statements)
        try:
            forget(client, Subject("t", "u3"))  # type: ignore[arg-type]
        except Dead:
            # The marks of a process that ends are left; here the last statement takes them away.
            plain.command("ALTER TABLE forget_marks DELETE WHERE 1", settings={"mutations_sync": 2})
        # Rows that are to go may be read from what is left of them, the others are whole.
        gone = {e["trace_id"] for e in made if "u3" in (e["attributes"] or "")}
        sessions = {e["session_id"] for e in made if e["trace_id"] in gone and e["session_id"]}
        kept = [e for e in made if e["session_id"] not in sessions and e["trace_id"] not in gone]
        assert kept
        same(plain, f"died before statement {statements}", SPANS[:1])


def test_a_deletion_while_it_runs_leaves_no_row(plain: Client) -> None:
    made = events(random.Random(SEED + 4))
    at(plain, 0)
    store(plain, made)

    class Meanwhile(Dying):
        """Somebody is forgotten between reading the events and writing the rows."""

        def command(self, statement: str, *args: Any, **more: Any) -> Any:
            done = super().command(statement, *args, **more)
            if "INSERT INTO trace_totals" in statement and self._left > 0:
                self._left = 0
                plain.command("CREATE TABLE copy AS trace_totals")
                plain.command("INSERT INTO copy SELECT * FROM trace_totals")
                plain.command("TRUNCATE TABLE trace_totals")
                forget(plain, Subject("t", "u3"))
                plain.command("INSERT INTO trace_totals SELECT * FROM copy")
                plain.command("DROP TABLE copy")
                self._left = 100
            return done

    folded = fold(Meanwhile(plain, 50))  # type: ignore[arg-type]
    assert folded.put_off
    same(plain, "put off")
    assert plain.query("SELECT count() FROM trace_totals WHERE tenant = 't'").result_rows == [(0,)]
    assert not fold(plain).put_off
    same(plain, "folded after all")


@pytest.fixture
def of_before(gateway_process: Gateway) -> Iterator[Client]:
    client = connect(f"{gateway_process.url}/t_fold_before", create_database=True)
    migrate(client, migrations=load()[:16])
    yield client
    client.command("DROP DATABASE t_fold_before", use_database=False)
    client.close()


def test_a_database_of_before_is_folded(of_before: Client) -> None:
    made = events(random.Random(SEED + 5))
    store(of_before, made)
    rows = [read(of_before, view, span) for view in PLAIN for span in SPANS]
    migrate(of_before)
    assert [read(of_before, view, span) for view in PLAIN for span in SPANS] == rows
    newest = of_before.query("SELECT max(ingested_at) FROM trace_events").result_rows[0][0]
    assert fold(of_before, settle_s=-1, until=newest + dt.timedelta(seconds=1)).traces > 0
    assert [read(of_before, view, span) for view in PLAIN for span in SPANS] == rows
