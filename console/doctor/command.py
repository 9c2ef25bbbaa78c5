"""`steersman doctor`: the command; the checks are in `console.doctor.examination`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import DEFAULT_POLICIES
from console.target import resolve


def doctor(
    brokers: Annotated[str | None, typer.Option(help="Kafka bootstrap servers, e.g. 127.0.0.1:9092.")] = None,
    clickhouse: Annotated[str | None, typer.Option(help="ClickHouse URL, e.g. http://user:password@host:8123.")] = None,
    file: Annotated[
        Path, typer.Option("--policies", envvar="STEERSMAN_POLICIES", help="The policies file.")
    ] = DEFAULT_POLICIES,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also make, write and delete a topic: shows rights and the broker's clock.")
    ] = False,
    role: Annotated[
        str | None,
        typer.Option(
            help="As whom the doctor asks: agent, worker, sink, door, page ... (docs/kafka-access.md); by default the role "
            "named like STEERSMAN_KAFKA_USERNAME, or else the operator."
        ),
    ] = None,
    max_lag: Annotated[int, typer.Option(min=0, help="Records that a consumer group may be behind.")] = 100_000,
    min_free_gib: Annotated[float, typer.Option(min=0, help="Least room on a disk; GiB.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of lines.")] = False,
) -> None:
    """Look for what is wrong with a deployment: broker, topics, groups, schemas, ClickHouse, clocks, keys, files, ports, disks.

    Run it with the environment of the services. Every finding names its fix. Exit 4 when there is a problem.
    """
    from console.doctor.examination import examine

    least = int(min_free_gib * 2**30)
    target = resolve(brokers, clickhouse)
    raise typer.Exit(examine(target, file, role, probe=probe, max_lag=max_lag, min_free_bytes=least, as_json=as_json))
