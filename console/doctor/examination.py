"""Every check of `steersman doctor`, one after the other, and a fix for whatever is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from console.acl import role_table
from console.doctor.access_checks import default_role, security_checks
from console.doctor.file_checks import key_checks, policy_checks, price_checks, settings_checks
from console.doctor.finding import Finding, Level, fine
from console.doctor.kafka_checks import KafkaChecks
from console.doctor.machine_checks import disk, ports
from console.doctor.registry_checks import registry_checks
from console.doctor.store_checks import store_checks
from console.output import err, out, print_json
from console.target import Target, home
from doors.settings import DoorSettings
from sinks.settings import SinkSettings
from steersman.errors import ConfigError
from steersman.topics import Topics
from streams.access import chosen
from streams.settings import StreamSettings

OK, PROBLEMS = 0, 4
_STYLE = {Level.ok: "green", Level.warning: "yellow", Level.problem: "red"}


def examine(
    target: Target, file: Path, role: str | None, *, probe: bool, max_lag: int, min_free_bytes: int, as_json: bool
) -> int:
    """Print what the checks find; returns 0, or 4 when there is a problem."""
    findings = []
    for step, found in _steps(target, file, role, probe=probe, max_lag=max_lag, min_free_bytes=min_free_bytes):
        err.print(f"checking {step} ...", highlight=False)
        findings += list(found)
    problems = sum(one.level == Level.problem for one in findings)
    if as_json:
        print_json(
            {"problems": problems, "addresses_from": target.origin, "findings": [asdict(one) for one in findings]}
        )
    else:
        for one in findings:
            out.print(f"{one.level.value:<8}", style=_STYLE[one.level], end="", highlight=False)
            out.print(f"{one.check:<22} {one.what}", markup=False, highlight=False, soft_wrap=True)
            if one.fix:
                out.print(f"{'':<8}{'':<22} fix: {one.fix}", markup=False, highlight=False, soft_wrap=True)
        out.print(f"{problems} problems in {len(findings)} findings", highlight=False)
    return PROBLEMS if problems else OK


def _steps(
    target: Target, file: Path, role: str | None, *, probe: bool, max_lag: int, min_free_bytes: int
) -> Iterator[tuple[str, Iterable[Finding]]]:
    yield "settings", settings_checks()
    try:
        streams, sink, doors = StreamSettings.read(), SinkSettings.read(), DoorSettings.read()
        topics = Topics(target.prefix)
    except ConfigError as error:
        said = str(error).splitlines()[0]
        yield "the rest", [fine("skipped", f"all else waits until the settings can be read ({said})")]
        return
    yield "policies and prices", [*policy_checks(file), *price_checks(streams.prices)]
    yield "keys", key_checks(streams.policy_signing_key, topics)
    groups = (
        ("stream worker", streams.group, (topics.trace, topics.reward)),
        (
            "sink",
            sink.group,
            (topics.trace, topics.reward, topics.rollup, topics.policy, topics.alert, topics.audit, topics.control),
        ),
    )
    yield "how Kafka is spoken to", (security := list(security_checks(target.brokers)))
    if all(one.level != Level.problem for one in security):
        table = role_table(target)
        [asked] = chosen(table, [role or default_role(list(table))])
        yield "Kafka", KafkaChecks(target.brokers, topics, groups, max_lag, asked).run(probe=probe)
    yield "the schema registry", registry_checks(streams.registry_url, topics)
    yield "ClickHouse", store_checks(target.reading, min_free_bytes)
    yield "ports", ports((doors.doors_host, doors.doors_port), (streams.metrics_host, streams.metrics_port))
    yield "the disk", disk(home(), min_free_bytes)
