"""`steersman status` and `steersman topics`: what answers, what lags, what is stored."""

from __future__ import annotations

import contextlib
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from console.brokers import answers
from console.lag import LagMeter
from console.output import out, print_json, print_rows
from console.policy import held
from console.target import Target
from sinks.clickhouse import connect, shown
from sinks.settings import load_settings as sink_settings
from steersman.errors import SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.kafka_config import FOLLOWERS
from steersman.topics import Topics
from streams.settings import StreamSettings

TABLES = ("trace_events", "rewards", "rollups", "policies", "policy_acts", "alerts", "ledger", "dead_letters")


def stored(clickhouse: str) -> dict[str, int]:
    """Return the rows of each table, merged duplicates excluded.

    Raises
    ------
    SteersmanError
        When the store does not answer or its tables are missing.
    """
    with contextlib.closing(connect(clickhouse)) as client:
        try:
            return {t: int(client.query(f"SELECT count() FROM {t} FINAL").result_rows[0][0]) for t in TABLES}
        except ClickHouseError as e:
            raise SteersmanError(
                f"the tables are not there yet; run 'steersman migrate' ({str(e).splitlines()[0]})"
            ) from e


def show(target: Target, tenant: str, *, as_json: bool) -> int:
    """Print the state of every part; returns 0, or 4 when one is missing."""
    topics = Topics(target.prefix)
    report: dict[str, Any] = {
        "brokers": target.brokers,
        "clickhouse": shown(target.reading),
        "addresses_from": target.origin,
        "problems": [],
    }
    if answers(target.brokers):
        with LagMeter(target.brokers, StreamSettings().group, [topics.trace, topics.reward]) as worker:
            report["worker_lag"], report["records"] = worker.lag(), worker.end()
        with LagMeter(target.brokers, sink_settings().group, [topics.trace, topics.reward, topics.rollup]) as sink:
            report["sink_lag"] = sink.lag()
        report["policies"] = {name: h.snapshot.version for name, h in sorted(held(target, tenant).items())}
    else:
        report["problems"].append(
            f"no broker answers at {target.brokers}: start one with 'steersman up', or name yours with --brokers"
        )
    try:
        report["stored"] = stored(target.reading)
    except SteersmanError as e:
        report["problems"].append(str(e))
    if as_json:
        print_json(report)
    else:
        rows = [
            (k, ", ".join(f"{a} {b}" for a, b in v.items()) if isinstance(v, dict) else v)
            for k, v in report.items()
            if k != "problems"
        ]
        print_rows(["part", "state"], rows, as_json=False)
        for problem in report["problems"]:
            out.print(f"problem: {problem}", style="red", markup=False)
    return 4 if report["problems"] else 0


def show_topics(brokers: str, names: Topics, *, as_json: bool) -> None:
    """Print the topics of this deployment."""
    admin = KafkaAdmin(brokers)
    found = {n: t for n, t in admin.list_topics(timeout=10).topics.items() if n.startswith(names.prefix + ".")}
    wanted = (
        names.trace,
        names.reward,
        names.rollup,
        names.alert,
        names.policy,
        names.control,
        names.dead_letter,
        names.audit,
        names.state,
    )
    configs: dict[str, str] = {}
    # A broker may refuse to describe its topics; their names and sizes are worth showing all the same.
    with contextlib.suppress(KafkaException, KeyError):
        resources = [ConfigResource(ConfigResource.Type.TOPIC, n) for n in found]
        for resource, future in admin.describe_configs(resources).items():
            configs[resource.name] = future.result(5)["cleanup.policy"].value
    rows: list[tuple[object, ...]] = []
    for name in sorted(set(wanted) | set(found)):
        if name not in found:
            rows.append((name, None, None, "missing"))
            continue
        with LagMeter(brokers, f"{FOLLOWERS}status", [name]) as meter:
            rows.append((name, len(found[name].partitions), meter.end(), configs.get(name)))
    print_rows(["topic", "partitions", "records", "cleanup"], rows, as_json=as_json)
