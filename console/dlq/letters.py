"""Dead letters as `steersman dlq` lists them, shows one, and writes them back."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from console.brokers import require_broker
from console.dlq.judge import Judge
from console.dlq.letter import Letter, one_per_record, original_headers, place_text, read_letter
from console.dlq.replay import Replayer
from console.dlq.selection import Selection, parse_offsets, parse_time
from console.output import err, out, print_json, print_rows
from console.target import Target, registry_of, resolve
from doors.settings import load_settings as door_settings
from learners.policies_file import load_policies
from steersman.codec import Codec
from steersman.dead_letter import read_failure
from steersman.errors import ConfigError, DecodeError, SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.partition_log import LogRecord, PartitionLog
from streams.topics import existing_partitions

_COLUMNS = ["id", "time", "stage", "reason", "source", "bytes", "replays", "replayed_to", "message"]


class Asked(NamedTuple):
    """Which letters, as the command line says it; None where it says nothing."""

    stage: list[str] | None
    reason: list[str] | None
    topic: list[str] | None
    since: str | None
    until: str | None
    offsets: list[str] | None


def show_all(target: Target, asked: Asked, *, summary: bool, limit: int, as_json: bool) -> None:
    """Print the newest letters, one for each record that failed, or how many there are."""
    found = _selected(target, _selection(asked))
    if summary:
        counts = Counter((one.stage, one.reason, one.source[0] if one.source else "", bool(one.mark)) for one in found)
        rows = [(*what, count) for what, count in sorted(counts.items())]
        print_rows(["stage", "reason", "topic", "replayed", "letters"], rows, as_json=as_json)
        return
    shown = sorted(found, key=lambda one: one.timestamp_ms)[-limit:]
    print_rows(_COLUMNS, [_row(one) for one in shown], as_json=as_json)
    if len(found) > limit:
        err.print(f"the newest {limit} of {len(found)}; --limit shows more, --summary counts them", highlight=False)


def show_one(letter: str, brokers: str | None, *, content: bool, as_json: bool) -> None:
    """Print one letter.

    Raises
    ------
    ConfigError
        When `letter` names none, or several.
    SteersmanError
        When it is not there.
    """
    partition, first, last = parse_offsets(letter)
    if first != last:
        raise ConfigError(f"{letter!r} names several letters; show takes one, e.g. 2:17")
    target = resolve(brokers)
    topics, _ = _open(target)
    record = next((r for _, r in _records(target, topics, partition) if r.offset == first), None)
    if record is None:
        raise SteersmanError(f"{topics.dead_letter} has no record {letter}: see 'steersman dlq list'")
    one, failure = read_letter(partition, record), read_failure(record.headers)
    details: dict[str, Any] = dict(zip(_COLUMNS, _row(one), strict=True))
    details |= {"exception": failure.exception_class, "stacktrace": failure.stacktrace, "key": _printable(record.key)}
    details["headers"] = {name: _printable(value) for name, value in original_headers(record.headers)}
    if content:
        details["value_base64"] = None if record.value is None else base64.b64encode(record.value).decode()
        details["decoded"] = _decoded(target, topics, one, record)
    if as_json:
        print_json(details)
        return
    for name, value in details.items():
        out.print(f"{name:<12} {value}", markup=False, highlight=False, soft_wrap=True)


def replay(
    target: Target, asked: Asked, file: Path, *, yes: bool, force: bool, limit: int | None, as_json: bool
) -> None:
    """Say which letters would be written back, and with `yes` do it."""
    topics, partitions = _open(target)
    registry = registry_of(topics)
    codecs = {name: Codec(name, registry=registry) for name in ("trace_event", "reward")}
    judge = Judge(topics, door_settings().otlp_topic, partitions, load_policies(file), codecs)
    chosen = {one.id: one for one in _selected(target, _selection(asked))}
    replayer = Replayer(target.brokers, topics.dead_letter) if yes else None
    rows: list[list[Any]] = []
    going = 0
    with contextlib.ExitStack() as held:
        write = held.enter_context(replayer.writing()) if replayer is not None else None
        for number in range(partitions[topics.dead_letter]):
            for _, record in _records(target, topics, number):
                letter = chosen.get(f"{number}:{record.offset}")
                if letter is None or (limit is not None and going >= limit):
                    continue
                verdict = judge.of(letter, record)
                goes = verdict.replay or (force and not verdict.firm)
                going += goes
                rows.append([*_row(letter)[:5], "replay" if goes else "stays", verdict.why])
                if goes and write is not None:
                    write(letter, record)
                    if going % 1000 == 0:
                        err.print(f"{going} letters written ...", highlight=False)
    stays = len(rows) - going
    columns = [*_COLUMNS[:5], "what", "why"]
    if as_json:
        done = {"dry_run": not yes, "replayed" if yes else "would_replay": going, "stay": stays}
        print_json({**done, "letters": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    print_rows(columns, rows, as_json=False)
    said = f"{going} letters replayed" if yes else f"dry run: {going} letters would be replayed, --yes does it"
    out.print(f"{said}; {stays} stay", highlight=False)


def _selection(asked: Asked) -> Selection:
    now_ms = int(time.time() * 1000)
    return Selection(
        asked.stage or (),
        asked.reason or (),
        asked.topic or (),
        None if asked.since is None else parse_time(asked.since, "--since", now_ms),
        None if asked.until is None else parse_time(asked.until, "--until", now_ms),
        [parse_offsets(text) for text in asked.offsets or ()],
    )


def _open(target: Target) -> tuple[Topics, dict[str, int]]:
    """Return the names of the topics and how many partitions those that exist have; the dead-letter topic does."""
    require_broker(target.brokers)
    topics = Topics(target.prefix)
    admin = KafkaAdmin(target.brokers)
    partitions = existing_partitions(admin, target.brokers)
    if topics.dead_letter not in partitions:
        raise ConfigError(
            f"topic {topics.dead_letter} does not exist at {target.brokers}; create it with 'steersman topics --create', or "
            "name the deployment's prefix in STEERSMAN_TOPIC_PREFIX"
        )
    return topics, partitions


def _records(target: Target, topics: Topics, partition: int) -> Iterator[tuple[int, LogRecord]]:
    for record in PartitionLog(target.brokers, topics.dead_letter, partition):
        yield partition, record


def _selected(target: Target, selection: Selection) -> list[Letter]:
    topics, partitions = _open(target)
    letters = [
        read_letter(number, record)
        for partition in range(partitions[topics.dead_letter])
        for number, record in _records(target, topics, partition)
    ]
    return [one for one in one_per_record(letters) if selection.takes(one)]


def _row(one: Letter) -> list[Any]:
    at = dt.datetime.fromtimestamp(one.timestamp_ms / 1000, dt.UTC)
    source = place_text(one.source) if one.source else None
    return [one.id, at, one.stage, one.reason, source, one.size, one.replays + one.marks, one.mark or None, one.message]


def _decoded(target: Target, topics: Topics, one: Letter, record: LogRecord) -> Any:
    contract = {topics.trace: "trace_event", topics.reward: "reward"}.get(one.source[0] if one.source else "")
    if contract is None:
        return None
    try:
        event = Codec(contract, registry=registry_of(topics)).decode(record.value, record.headers)
    except DecodeError:
        return None
    return {name: value for name, value in event.items() if value is not None and value != []}


def _printable(value: Any) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
