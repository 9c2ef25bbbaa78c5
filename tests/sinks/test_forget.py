"""Forgetting, on the analysts' world: nothing of the person is left in any table, and everybody else's rows are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from sinks.forget import KEPT, Subject, forget, subject_hash
from steersman.codec import Codec
from steersman.errors import ConfigError
from tests.sinks.analyst_world import JUDGED, TRACES, USER, World, insert, make, store, trace_of
from tests.sinks.records import record
from tests.sinks.test_views import Message

OWN = ("trace_events", "rewards", "alerts", "dead_letters")


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def counts(client: Client) -> dict[str, int]:
    """Rows of every table as they lie there, repeats included."""
    names = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    )
    return {n: int(client.command(f"SELECT count() FROM {n}")) for n in names.result_columns[0]}


def fill(client: Client, world: World) -> None:
    """Store the world, and let no merge that comes later change the counts."""
    store(client, world)
    for name in counts(client):
        client.command(f"OPTIMIZE TABLE {name} FINAL")


def dump(client: Client, table: str) -> str:
    """Everything in a table, as text that bytes and names can be looked for in."""
    return client.raw_query(f"SELECT * FROM {table} FORMAT JSONEachRow").decode("utf-8", "replace")


def theirs() -> set[str]:
    """Traces of the user: their own, and those of the sessions that have one."""
    sessions = {i // 4 for i in range(TRACES) if i % 40 == 17}
    return {trace_of(i) for i in range(TRACES) if i // 4 in sessions}


def all_traces(world: World) -> set[str]:
    """Traces of the tenant ``default``, those of judgements of sessions among them."""
    return {event["trace_id"] for event in world.events if event["tenant"] == "default"}


def test_a_user_is_gone_from_every_table_and_nobody_else(client: Client, world: World) -> None:
    fill(client, world)
    # An operator's own view: its target has traces, and is found by its columns.
    client.command("CREATE TABLE own (tenant String, trace_id String, n UInt64) ENGINE = MergeTree ORDER BY tenant")
    client.command("INSERT INTO own SELECT tenant, trace_id, count() FROM v_events GROUP BY tenant, trace_id")
    # They also judged a trace of somebody else.
    other = world.of("FEEDBACK")[0]
    judgement = {**other, "event_id": "f" * 32, "source": USER}
    insert(client, "trace_events", [Message("steersman.trace.v1", 5, 0, b"k", Codec("trace_event").encode(judgement), timestamp_ms=1_790_000_000_000)])  # fmt: skip
    gone, before = theirs(), counts(client)
    assert trace_of(17) in gone
    assert other["trace_id"] not in gone

    subject = Subject("default", USER)
    dry = forget(client, subject, dry_run=True)
    assert counts(client) == before, "a dry run deletes nothing, and leaves no marks"
    assert dry.after == {}
    assert dry.traces == len(gone)

    said: list[str] = []
    found = forget(client, subject, say=said.append)
    after = counts(client)
    assert found.before == dry.before
    assert set(found.after.values()) == {0}
    assert {t: before[t] - after[t] for t in before if t not in KEPT} == {
        t: found.before.get(t, 0) for t in before if t not in KEPT
    }
    assert all(found.before[t] for t in (*OWN, "own")), found.before
    assert found.before["dead_letters"] == 2
    for table in after:
        text = dump(client, table)
        assert USER not in text, table
        assert not [t for t in gone if t in text], table
    events = {e["event_id"] for e in world.events if e["trace_id"] not in gone}
    assert set(client.query("SELECT DISTINCT event_id FROM trace_events").result_columns[0]) == events
    rewards = {r["decision_id"] for r in world.rewards if r["trace_id"] not in gone}
    assert set(client.query("SELECT DISTINCT decision_id FROM rewards").result_columns[0]) == rewards
    assert said[-1].startswith("deleting")
    assert "trace_events" in said[-1], "last, so that an interrupted run finds everything again"

    (audit,) = client.query("SELECT * FROM v_forgotten").named_results()
    assert (audit["tenant"], audit["scope"], audit["traces"], audit["request"]) == (
        "default",
        "user",
        len(gone),
        found.request,
    )
    assert audit["deleted"] == {t: n for t, n in found.before.items() if n}
    assert audit["subject_hash"] == subject_hash(subject.name, audit["subject_salt"])
    assert USER not in json.dumps(audit, default=str)

    # Where in Kafka they had come from, and nothing more: for `steersman verify`.
    places = client.query(
        "SELECT stage != '' AS letter, kafka_topic, count() FROM forgotten_places GROUP BY 1, 2"
    ).result_rows
    assert {(letter, topic): n for letter, topic, n in places} == {
        (0, "steersman.trace.v1"): found.before["trace_events"],
        (0, "steersman.reward.v1"): found.before["rewards"],
        (1, "steersman.trace.v1"): found.before["dead_letters"],
    }

    again = forget(client, subject)
    assert sum(again.before.values()) == 0


def test_statements_that_the_server_keeps_do_not_name_the_user(client: Client, world: World) -> None:
    fill(client, world)
    forget(client, Subject("default", USER))
    kept = client.query("SELECT table, command FROM system.mutations WHERE database = currentDatabase()").result_rows
    assert kept
    assert not [row for row in kept if USER in str(row)]


def test_a_batch_offered_again_does_not_bring_them_back(client: Client, world: World) -> None:
    events = [e for e in world.of("AGENT") if USER in str(e["attributes"])]
    messages = [Message("steersman.trace.v1", 0, i, b"k", Codec("trace_event").encode(e), timestamp_ms=1_790_000_000_000) for i, e in enumerate(events)]  # fmt: skip
    insert(client, "trace_events", messages)
    forget(client, Subject("default", USER))
    insert(client, "trace_events", messages)  # the reply to the first insert was lost: same rows, same token
    assert client.command("SELECT count() FROM trace_events") == 0


def test_a_session_and_the_session_of_a_user(client: Client, world: World) -> None:
    fill(client, world)
    mine = {trace_of(i) for i in range(16, 20)}  # session s4, in which trace 17 names the user
    assert forget(client, Subject("default", "somebody else", "s4")).traces == 0
    assert forget(client, Subject("default", USER, "s5"), dry_run=True).traces == 0
    found = forget(client, Subject("default", USER, "s4"))
    assert found.traces == len(mine)
    left = set(client.query("SELECT DISTINCT trace_id FROM trace_events WHERE tenant = 'default'").result_columns[0])
    assert left == all_traces(world) - mine
    assert forget(client, Subject("default", None, "s5")).traces == 4
    assert forget(client, Subject("default", None, "s3")).traces == 5, "what was said of the session as a whole, too"
    judged = "SELECT groupUniqArray(session_id) FROM trace_events WHERE attributes LIKE '%steersman.target%'"
    assert set(client.query(judged).result_rows[0][0]) == set(JUDGED) - {"s3"}
    assert forget(client, Subject("acme", None, "s1"), dry_run=True).traces == 20, "the same session of another tenant"


def test_a_tenant_goes_as_a_whole(client: Client, world: World) -> None:
    fill(client, world)
    insert(
        client,
        "dead_letters",
        [
            _letter("acme/p", b""),
            _letter("k", Codec("trace_event").encode(world.of("MODEL_CALL", tenant="acme")[0]), 1),
        ],
    )
    rows = {
        t: int(client.command(f"SELECT count() FROM {t} WHERE tenant = 'acme'"))
        for t in ("trace_events", "rollups", "ledger")
    }
    found = forget(client, Subject("acme"))
    assert found.scope == "tenant"
    assert found.traces == 20
    assert {t: found.before[t] for t in rows} == rows
    assert min(rows.values()) > 0
    assert found.before["dead_letters"] == 2
    for table in counts(client):
        if table not in ("forgotten", "forgotten_places"):
            assert '"tenant":"acme"' not in dump(client, table)
    assert client.command("SELECT uniqExact(trace_id) FROM trace_events WHERE tenant = 'default'") == len(
        all_traces(world)
    )
    found = forget(client, Subject("default"))
    left = counts(client)
    assert {t: n for t, n in left.items() if n and t not in KEPT} == {"dead_letters": 7}, "records that name no tenant"


def _letter(key: str, value: bytes, offset: int = 0) -> Any:
    return Message("steersman.dead-letter.v1", 1, offset, key.encode(), value, (), 1_790_000_000_000)


def test_numbers_and_further_keys_name_users(client: Client) -> None:
    made = [
        record("trace_event", event_id=f"{i:032x}", tenant="t", trace_id=f"{i:032x}", kind="END", attributes=text)
        for i, text in enumerate(['{"user.id":4711}', '{"crm":"4711"}', '{"user_id":"47"}', '{"other":4711}', "4711", ""])
    ]  # fmt: skip
    codec = Codec("trace_event")
    insert(client, "trace_events", [Message("steersman.trace.v1", 0, i, b"k", codec.encode(e), timestamp_ms=1_790_000_000_000) for i, e in enumerate(made)])  # fmt: skip
    assert forget(client, Subject("t", "4711"), dry_run=True).traces == 1
    assert forget(client, Subject("t", "4711", None, ("user.id", "crm")), dry_run=True).traces == 2
    assert forget(client, Subject("t", "'; DROP TABLE trace_events; --"), dry_run=True).traces == 0


@pytest.mark.parametrize("given", [("", None, None), ("t", " ", None), ("t", None, "")])
def test_nobody_is_nobody(given: tuple[str, str | None, str | None]) -> None:
    with pytest.raises(ConfigError, match="has no name"):
        Subject(*given)
