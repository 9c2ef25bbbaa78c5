"""The commands `steersman dlq list`, `show` and `replay`."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from console.dlq.judge import Judge
from console.dlq.letter import Letter, one_per_record, original_headers, place_text, read_letter
from console.dlq.replay import Replayer
from console.dlq.selection import Selection, parse_offsets, parse_time
from console.options import DEFAULT_POLICIES, Brokers, Json
from console.output import err, out, print_json, print_rows
from console.stack import require_broker
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

app = typer.Typer(no_args_is_help=True, help="Look at records that could not be processed, and replay them.")

_COLUMNS = ["id", "time", "stage", "reason", "source", "bytes", "replays", "replayed_to", "message"]

Stage = Annotated[
    list[str] | None, typer.Option(help="DESERIALIZE, VALIDATE, JOIN, LEARN or SINK; repeat it for several.")
]
Reason = Annotated[list[str] | None, typer.Option(help="Reason, e.g. unknown_policy; repeat it for several.")]
Source = Annotated[
    list[str] | None, typer.Option("--topic", help="Topic of the record that failed; repeat it for several.")
]
Since = Annotated[
    str | None,
    typer.Option(help="First Kafka timestamp of the record that failed: ISO 8601 (UTC), or 2h for 2 hours ago."),
]
Until = Annotated[str | None, typer.Option(help="Timestamp to stop before, as for --since.")]
Offsets = Annotated[
    list[str] | None,
    typer.Option(help="Place in the dead-letter topic: 2:17, 2:17-40, 2:17- or 2: ; repeat it for several."),
]


@app.command(
    "list",
    epilog="Examples: steersman dlq list --stage VALIDATE --since 2h · steersman dlq list --summary · steersman dlq list --json | jq .reason",
)
def list_letters(
    stage: Stage = None,
    reason: Reason = None,
    topic: Source = None,
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Counts by stage, reason and topic instead of letters.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many letters, the newest.")] = 100,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """List dead letters, one for each record that failed, and whether they were replayed."""
    target = resolve(brokers)
    found = _selected(target, _selection(stage, reason, topic, since, until, offsets))
    if summary:
        counts = Counter((one.stage, one.reason, one.source[0] if one.source else "", bool(one.mark)) for one in found)
        rows = [(*what, count) for what, count in sorted(counts.items())]
        print_rows(["stage", "reason", "topic", "replayed", "letters"], rows, as_json=as_json)
        return
    shown = sorted(found, key=lambda one: one.timestamp_ms)[-limit:]
    print_rows(_COLUMNS, [_row(one) for one in shown], as_json=as_json)
    if len(found) > limit:
        err.print(f"the newest {limit} of {len(found)}; --limit shows more, --summary counts them", highlight=False)


@app.command("show", epilog="Examples: steersman dlq show 2:17 · steersman dlq show 2:17 --json")
def show_letter(
    letter: Annotated[
        str, typer.Argument(help="Id of the letter, as listed: PARTITION:OFFSET of the dead-letter topic.")
    ],
    content: Annotated[
        bool,
        typer.Option("--content", help="Also the record's bytes, decoded where they can be. They may hold prompts."),
    ] = False,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: what failed, where, why, its headers, and with --content what is in it."""
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


@app.command(
    "replay",
    epilog="Examples: steersman dlq replay --reason unknown_policy · steersman dlq replay --reason unknown_policy --yes · "
    "steersman dlq replay --offsets 2:17 --yes",
)
def replay_letters(
    stage: Stage = None,
    reason: Reason = None,
    topic: Source = None,
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it nothing is written, only said.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also letters that were replayed before or that would fail again; repeats are dropped by their readers.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many letters, in the order of the log.")] = None,
    file: Annotated[
        Path, typer.Option("--policies", envvar="STEERSMAN_POLICIES", help="The policies file that workers use.")
    ] = DEFAULT_POLICIES,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Write dead letters back to the topics they came from; a dry run without --yes. Each takes effect once, however often it is replayed."""
    target = resolve(brokers)
    topics, partitions = _open(target)
    registry = registry_of(topics)
    codecs = {name: Codec(name, registry=registry) for name in ("trace_event", "reward")}
    judge = Judge(topics, door_settings().otlp_topic, partitions, load_policies(file), codecs)
    chosen = {one.id: one for one in _selected(target, _selection(stage, reason, topic, since, until, offsets))}
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


def _selection(
    stage: list[str] | None,
    reason: list[str] | None,
    topic: list[str] | None,
    since: str | None,
    until: str | None,
    offsets: list[str] | None,
) -> Selection:
    now_ms = int(time.time() * 1000)
    return Selection(
        stage or (),
        reason or (),
        topic or (),
        None if since is None else parse_time(since, "--since", now_ms),
        None if until is None else parse_time(until, "--until", now_ms),
        [parse_offsets(text) for text in offsets or ()],
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
