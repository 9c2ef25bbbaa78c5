"""A sink killed at every fault point, and one whose ClickHouse is away: the tables in the end are the topics."""

from __future__ import annotations

import json

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from sinks.sink import _MAX_POLL
from steersman.fault_points import EXIT_CODE, VARIABLE
from steersman.topics import Topics
from tests.sinks.records import VIEWS, event, value

FAULT_POINTS = ("sink.before_insert", "sink.inserted", "sink.written", "sink.offsets_stored")


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("point", FAULT_POINTS)
def test_killed_at_a_fault_point_then_started_again(
    start, until, produce, topics: Topics, client: Client, point: str, passes: int
):
    total, poison = 400, 7
    others = {"rewards": topics.reward, "alerts": topics.alert, "rollups": topics.rollup, "ledger": topics.audit}
    for i in range(total):
        produce(topics.trace, event(i), key=f"{i // 3:032x}")
        if i % 57 == 0 and i // 57 < poison:
            produce(topics.trace, b"no avro", key="bad")
        if i % 20 == 0:
            for table, topic in others.items():
                produce(topic, value(table, i)[0])
    produce.flush(20)
    killed = start(**{VARIABLE: f"{point}:{passes}"})
    assert killed.wait(60) == EXIT_CODE, killed.tail()
    sink = start()

    def stored() -> dict[str, int]:
        try:
            return {
                t: int(client.command(f"SELECT count() FROM {VIEWS[t]}"))
                for t in VIEWS
                if t not in ("policies", "policy_acts")
            }
        except ClickHouseError:
            return {}

    wanted = {"trace_events": total, "dead_letters": poison, **dict.fromkeys(others, total // 20)}
    until(lambda: stored() == wanted, sink)
    assert sink.stop() == 0, "all that was read is written"
    assert stored() == wanted, "nothing doubled by what came after"
    sums = "SELECT uniqExact(event_id), sum(cost_micro_usd), uniqExact(kafka_partition, kafka_offset) FROM v_events"
    assert client.query(sums).first_row == (total, total * (total - 1) // 2, total)
    assert client.query(
        "SELECT uniqExact(error_partition, error_offset), any(stage) FROM v_dead_letters"
    ).first_row == (
        poison,
        "SINK",
    )


def test_clickhouse_away_bounds_what_waits_and_then_everything_is_there_once(
    start, until, produce, topics: Topics, client: Client, gateway_process
):
    flush_rows, total = 500, 30_000
    sink = start(STEERSMAN_SINK_FLUSH_ROWS=str(flush_rows))
    produce(topics.trace, event(0), partition=0)
    until(lambda: client.command("SELECT count() FROM v_events") == 1, sink)
    gateway_process.kill()
    for i in range(1, total):
        produce(topics.trace, event(i), partition=i % 2)
    produce.flush(30)

    def waiting() -> list[int]:
        lines = (json.loads(line) for line in sink.log.read_text().splitlines() if line.startswith("{"))
        return [line["waiting"] for line in lines if line["event"] == "insert_failed"]

    # Twenty attempts at up to half a second: what a sink that goes on reading would have read it all in.
    until(lambda: len(waiting()) >= 20, sink)
    assert max(waiting()) <= 2 * (flush_rows + _MAX_POLL) < total / 2
    assert len(set(waiting()[-10:])) == 1, "paused: nothing more comes"
    gateway_process.restart()
    until(lambda: client.command("SELECT count() FROM v_events") == total, sink)
    sums = "SELECT uniqExact(event_id), sum(cost_micro_usd) FROM v_events"
    assert client.query(sums).first_row == (total, total * (total - 1) // 2)
    assert sink.stop() == 0
