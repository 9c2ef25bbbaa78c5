"""The counting job as a plain Faust app: one agent, one table, Faust's own Kafka transport.

Settings are those that Faust's guide and its users' threads recommend for a worker that must recover quickly. Run by
`benchmarks.faults_plain_faust`, with its parameters in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import faust

from benchmarks.counting_job import PARTITIONS
from steersman.codec import Codec

TABLE = "counts"


def create_app(brokers: str, app_id: str, topic: str, guarantee: str, session_timeout_s: float, datadir: Path) -> Any:
    """Return the Faust app.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    app_id
        Consumer group, and first part of the changelog's name.
    topic
        The events.
    guarantee
        `at_least_once` or `exactly_once`.
    session_timeout_s
        Time after which the group gives up a silent worker; unit: seconds.
    datadir
        Folder of this worker.
    """
    app = faust.App(
        app_id,
        broker=[f"kafka://{host}" for host in brokers.split(",")],
        autodiscover=False,
        processing_guarantee=guarantee,
        store="memory://",
        datadir=datadir,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        stream_wait_empty=True,
        broker_max_poll_records=500,
        broker_commit_interval=1.0,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / 4,
        broker_request_timeout=max(40.0, session_timeout_s + 10.0),
    )
    codec = Codec("trace_event")
    events = app.topic(topic, key_type=str, value_type=bytes, value_serializer="raw")
    counts = app.Table(TABLE, default=lambda: [0, 0], partitions=PARTITIONS, key_type=str)

    @app.agent(events, concurrency=1)
    async def count(stream: Any) -> None:
        async for counter, value in stream.items():
            events, total = counts[counter]
            counts[counter] = [events + 1, total + int(codec.decode(value)["value"])]

    return app


if __name__ == "__main__":
    create_app(
        os.environ["COUNTING_BROKERS"],
        os.environ["COUNTING_APP_ID"],
        os.environ["COUNTING_TOPIC"],
        os.environ["COUNTING_GUARANTEE"],
        float(os.environ["COUNTING_SESSION_TIMEOUT_S"]),
        Path(os.environ["COUNTING_DATADIR"]),
    ).main()
