"""v_traces, v_sessions and v_session_feedback take repeats out inside each trace: against the plain views and against Python."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from doors.feedback import SESSION
from sinks.clickhouse import connect
from sinks.forget import Subject, forget
from sinks.migrations import load, migrate
from steersman.codec import Codec
from tests.faults.gateway import Gateway
from tests.sinks.analyst_world import insert
from tests.sinks.records import START_US, record
from tests.sinks.test_views import Message

H = 3_600_000_000
SPANS = [(-H, 100 * H), (0, H), (H // 2, 2 * H), (3 * H, 4 * H)]
"""Spans that are asked about, from and to in microseconds after `START_US`: all, and some that cut traces."""
SEED = 20260921
PLAIN = {"v_traces": 14, "v_session_feedback": 11, "v_sessions": 11}
"""The migrations that took repeats out with LIMIT BY, as it reads in the contract."""
Rows = list[tuple[Any, ...]]


def events(rng: random.Random) -> list[dict[str, Any]]:
    """Events of traces of several sessions, some of them days late, some again under another offset."""
    made: list[dict[str, Any]] = []
    for n in range(60):
        trace, at = f"{n % 50:032x}", START_US + rng.randrange(3 * H)
        for k in range(rng.randrange(1, 12)):
            kind = rng.choice(["DECISION", "MODEL_CALL", "TOOL_CALL", "FEEDBACK", "END", "AGENT", "RETRIEVAL"])
            late = rng.choice([0, 0, 0, 2 * H, 80 * H]) if kind == "FEEDBACK" else 0
            session, judged = f"s{n % 50 // 3}", kind == "FEEDBACK" and rng.random() < 0.3
            made.append(
                record(
                    "trace_event", event_id=f"{n * 100 + k:032x}", tenant="t" if n % 7 else "other", trace_id=trace, kind=kind,
                    agent=rng.choice(["a", "b", "c", ""]), session_id=session if rng.random() < 0.8 else None, ts=at + rng.randrange(H) + late,
                    duration_us=rng.choice([None, rng.randrange(5_000_000)]), status=rng.choice(["OK", "OK", "ERROR", "TIMEOUT"]),
                    cost_micro_usd=rng.choice([None, 0, rng.randrange(10_000)]), input_tokens=rng.choice([None, rng.randrange(1000)]),
                    output_tokens=rng.choice([None, rng.randrange(1000)]), metric="m" if kind == "FEEDBACK" else None,
                    value=0.5 if kind == "FEEDBACK" else None,
                    attributes=json.dumps(SESSION) if judged else f'{{"user.id":"u{n % 5}"}}',
                )
            )  # fmt: skip
    return made


def store(client: Client, made: list[dict[str, Any]], first: int = 0) -> None:
    """Insert with offsets from `first`."""
    codec = Codec("trace_event")
    insert(client, "trace_events", [Message("steersman.trace.v1", 0, first + i, b"k", codec.encode(e), timestamp_ms=e["ts"] // 1000) for i, e in enumerate(made)])  # fmt: skip


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    print(f"seed {SEED}")
    return events(random.Random(SEED))


@pytest.fixture(scope="module")
def filled(gateway_process: Gateway, made: list[dict[str, Any]]) -> Iterator[Client]:
    """A database with the events, a part of them from before the migration, and the plain views under names of their own."""
    client = connect(f"{gateway_process.url}/t_traces", create_database=True)
    migrate(client, migrations=load()[:14])
    for view, number in PLAIN.items():
        [statement] = [s for s in load()[number - 1].statements if f"VIEW {view} " in s]
        for name in PLAIN:
            statement = statement.replace(name, f"plain{name[1:]}")
        client.command(statement)
    rng, half = random.Random(SEED + 1), len(made) // 2
    store(client, made[:half])
    migrate(client)
    store(client, made[half:], half)
    store(client, made[half - 50 : half + 50], half - 50)  # a sink that began again
    repeats = rng.sample(made, len(made) // 4)
    store(client, [*repeats, *rng.sample(repeats, len(repeats) // 3)], len(made))  # a producer that sent them again
    yield client
    client.command("DROP DATABASE t_traces", use_database=False)
    client.close()


def asked(span: tuple[int, int]) -> dict[str, Any]:
    since, until = (dt.datetime.fromtimestamp((START_US + us) / 1e6, dt.UTC) for us in span)
    return {"since": since, "until": until}


def read(client: Client, view: str, span: tuple[int, int], more: str = "") -> Rows:
    call = f"{view}(tenant = 't', since = {{since:DateTime64(6, 'UTC')}}, until = {{until:DateTime64(6, 'UTC')}})"
    rows = client.query(f"SELECT * FROM {call} {more}", parameters=asked(span)).result_rows
    # A sum of fractions depends on the order of its parts.
    return sorted((tuple(round(v, 6) if isinstance(v, float) else v for v in row) for row in rows), key=repr)


def counted(made: Iterable[dict[str, Any]], span: tuple[int, int]) -> dict[str, tuple[Any, ...]]:
    """Trace -> what cannot bear repeats, counted in Python."""
    traces: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for e in made:
        if e["tenant"] == "t" and START_US + span[0] <= e["ts"] < START_US + span[1]:
            traces[e["trace_id"]].append(e)
    found = {}
    for trace, mine in traces.items():
        kinds, spans = (
            [e["kind"] for e in mine],
            [e for e in mine if e["kind"] not in ("DECISION", "FEEDBACK", "END")],
        )
        found[trace] = (
            len(spans), *(kinds.count(k) for k in ("DECISION", "MODEL_CALL", "TOOL_CALL", "FEEDBACK")),
            sum(e["status"] != "OK" for e in spans), *(sum(e[n] or 0 for e in mine) for n in ("input_tokens", "output_tokens", "cost_micro_usd")),
            sum(e["cost_micro_usd"] is None for e in spans if e["kind"] in ("MODEL_CALL", "TOOL_CALL")),
        )  # fmt: skip
    return found


COUNTED = "spans, decisions, model_calls, tool_calls, feedbacks, failed, input_tokens, output_tokens, cost_micro_usd, unpriced"


def by_trace(client: Client, span: tuple[int, int]) -> dict[str, tuple[Any, ...]]:
    call = "v_traces(tenant = 't', since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')})"
    rows = client.query(f"SELECT trace_id, {COUNTED} FROM {call}", parameters=asked(span)).result_rows
    return {trace: tuple(rest) for trace, *rest in rows}


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_repeats_and_late_events_change_nothing(
    filled: Client, made: list[dict[str, Any]], span: tuple[int, int]
) -> None:
    for view in PLAIN:
        rows = read(filled, view, span)
        assert rows, view
        assert rows == read(filled, f"plain{view[1:]}", span), view
    assert by_trace(filled, span) == counted(made, span)


def test_some_traces_alone(filled: Client) -> None:
    few = f"WHERE trace_id IN ('{3:032x}', '{4:032x}', 'none')"
    rows = read(filled, "v_traces", SPANS[0], few)
    assert len(rows) == 2
    assert rows == [r for r in read(filled, "v_traces", SPANS[0]) if r[1] in (f"{3:032x}", f"{4:032x}")]


def test_an_event_that_came_again_with_other_contents_counts_once(client: Client) -> None:
    told = {"event_id": "1" * 32, "tenant": "t", "trace_id": "x", "kind": "MODEL_CALL", "ts": START_US}
    # A span that was reported while it ran, and again at its end.
    store(client, [record("trace_event", **told, cost_micro_usd=7), record("trace_event", **{**told, "ts": START_US + 5}, cost_micro_usd=9)])  # fmt: skip
    [(spans, _, calls, *_, cost, unpriced)] = by_trace(client, SPANS[0]).values()
    assert (spans, calls, unpriced) == (1, 1, 0)
    assert cost in (7, 9)


def test_what_was_forgotten_is_in_no_view(filled: Client, made: list[dict[str, Any]]) -> None:
    forget(filled, Subject("t", "u3"))
    gone = {e["trace_id"] for e in made if "u3" in (e["attributes"] or "") and e["tenant"] == "t"}
    sessions = {e["session_id"] for e in made if e["trace_id"] in gone and e["session_id"] and e["tenant"] == "t"}
    gone |= {e["trace_id"] for e in made if e["session_id"] in sessions and e["tenant"] == "t"}
    left = [e for e in made if e["trace_id"] not in gone]
    assert 0 < len(left) < len(made)
    assert by_trace(filled, SPANS[0]) == counted(left, SPANS[0])
    for view in PLAIN:
        assert read(filled, view, SPANS[0]) == read(filled, f"plain{view[1:]}", SPANS[0]), view
