"""Secrets planted in everything that an agent reports, through the running stack; then searched for in all that it left.

The doors: arguments of decorated functions (by position, by name, nested), exceptions, tool arguments, attributes (values,
keys, JSON within JSON), comments, labels and sources of feedback, names of operations and sessions, ids of events, and
events that the platform refuses; and of the doors: attributes and events of OTLP spans, evaluations, feedback as JSON, bodies that are
refused (`tests.trust.otlp_canaries`), with content captured. What is searched: every record of every topic (keys, values, headers: events, dead
letters, state), every row of every table, the files of the store, all logs, the live page, and what the tracer says of itself. A control
without redaction must find every one of them, or nothing was proved.
"""

from __future__ import annotations

import asyncio
import html
import json
import logging
import os
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from console.children import ROOT
from console.stack import Stack
from doors.intake import Intake
from doors.mapped import Rules
from doors.refused import Refused
from sinks.clickhouse import connect
from steersman import Kind, MemorySink, Tracer
from steersman.codec import Codec
from steersman.kafka_config import follower_config
from steersman.redaction import Redactor
from tests.trust import otlp_canaries
from tests.trust.canaries import MAKERS, Canary, forms, make
from tests.trust.ordinary import sentences
from tests.trust.part import Found, Say

PER_KIND, PER_KIND_OTLP = 8, 4
TABLES = ("trace_events", "rewards", "rollups", "policies", "alerts", "dead_letters", "ledger")
MAX_FALSE_SHARE = 0.01
Door = Callable[[Tracer, str], None]


def _positional(tracer: Tracer, text: str) -> None:
    tracer.observe(Kind.TOOL_CALL, "search")(lambda query, n: n)(f"look up {text} please", 3)


def _by_name(tracer: Tracer, text: str) -> None:
    def call(**options: Any) -> None: ...

    tracer.observe(Kind.MODEL_CALL, "complete")(call)(
        options={"messages": [{"role": "user", "content": f"hi, {text}"}]}
    )


def _coroutine(tracer: Tracer, text: str) -> None:
    async def fetch(url: str) -> None: ...

    asyncio.run(tracer.observe(Kind.RETRIEVAL, "fetch")(fetch)(f"see {text}"))


def _exception(tracer: Tracer, text: str) -> None:
    def fails() -> None:
        raise ValueError(f"401 from upstream: {text}")

    with suppress(ValueError):
        tracer.observe(Kind.TOOL_CALL, "call")(fails)()


def _attribute(tracer: Tracer, text: str) -> None:
    with tracer.span(Kind.TOOL_CALL, "call") as span:
        span.set(attributes={"gen_ai.tool.call.arguments": json.dumps({"body": f"please use {text}"})})


def _nested(tracer: Tracer, text: str) -> None:
    with tracer.span(Kind.TOOL_CALL, "call") as span:
        span.set(attributes={"a": {"b": [1, {"c": json.dumps({"d": json.dumps([f"({text})"])})}]}})


def _json_attributes(tracer: Tracer, text: str) -> None:
    with tracer.span(Kind.MODEL_CALL, "call") as span:
        span.set(attributes=json.dumps({"prompt": f"the customer wrote: {text}"}))


def _key(tracer: Tracer, text: str) -> None:
    with tracer.span(Kind.TOOL_CALL, "call") as span:
        span.set(attributes={"headers": {f"{text}": 1}})


def _feedback(**where: str) -> Door:
    def door(tracer: Tracer, text: str) -> None:
        with tracer.span(Kind.AGENT, "answer") as span:
            pass
        tracer.feedback(span, value=1.0, **{name: form.format(text) for name, form in where.items()})

    return door


def _operation(tracer: Tracer, text: str) -> None:
    with tracer.span(Kind.TOOL_CALL, f"GET {text}", session_id=f"s {text}"):
        pass


def _event_id(tracer: Tracer, text: str) -> None:
    tracer.emit({"kind": Kind.RETRIEVAL, "event_id": f"{text} 1"})


def _refused(tracer: Tracer, text: str) -> None:
    tracer.emit({"kind": Kind.DECISION, "policy": "no/such", "attributes": {"why": f"asked by {text}"}, "reason": text})


DOORS: dict[str, Door] = {
    "argument": _positional,
    "argument_by_name": _by_name,
    "argument_of_coroutine": _coroutine,
    "exception": _exception,
    "tool_arguments": _attribute,
    "nested": _nested,
    "json_attributes": _json_attributes,
    "key": _key,
    "comment": _feedback(comment="she said {}, twice"),
    "label_and_source": _feedback(label="{}", source="by {}"),
    "operation_and_session": _operation,
    "event_id": _event_id,
    "refused_event": _refused,
}


def plant(tracer: Tracer, canaries: list[Canary]) -> Counter[str]:
    """Send each canary through a door, the doors in turn; returns how many went through each."""
    through: Counter[str] = Counter()
    for i, canary in enumerate(canaries):
        name = list(DOORS)[(i + i // len(DOORS)) % len(DOORS)]
        DOORS[name](tracer, canary.text)
        through[name] += 1
    return through


def found_in(canaries: list[Canary], places: Iterator[tuple[str, bytes]]) -> dict[str, list[str]]:
    """Return the places in which canaries occur, by place, and their kinds."""
    wanted = [(canary.kind, form) for canary in canaries for form in forms(canary)]
    hits: dict[str, set[str]] = {}
    for place, content in places:
        for kind, form in wanted:
            if form in content:
                hits.setdefault(place, set()).add(kind)
    return {place: sorted(kinds) for place, kinds in hits.items()}


def topic_bytes(brokers: str, counts: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Every record of every topic, header and key included."""
    consumer = Consumer(follower_config(brokers))
    with closing(consumer):
        for name, topic in consumer.list_topics(timeout=10).topics.items():
            for partition in topic.partitions:
                consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING)])
                while (message := consumer.poll(10.0)) is not None:
                    if (error := message.error()) is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, error.str()
                        break
                    headers = message.headers()
                    parts = [message.key() or b"", message.value() or b""]
                    parts += [str(pair).encode() for pair in headers] if isinstance(headers, list) else []
                    parts += [v for _, v in headers if isinstance(v, bytes)] if isinstance(headers, list) else []
                    counts[name] += 1
                    yield (
                        f"topic {name}",
                        b"\0".join(part.encode() if isinstance(part, str) else part for part in parts),
                    )


def table_bytes(url: str, counts: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Every row of every table."""
    with closing(connect(url)) as client:
        for table in TABLES:
            content = client.raw_query(f"SELECT * FROM {table}", fmt="JSONEachRow")
            counts[table] = content.count(b"\n")
            yield f"table {table}", content.replace(b"\\/", b"/")


def file_bytes(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that the stack left: logs, and the store's own."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with suppress(OSError):
                yield f"file {file.relative_to(folder)}", file.read_bytes()


class _Log(logging.Handler):
    """What the agent package says, as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().encode())


def control(canaries: list[Canary]) -> int:
    """Plant without redaction, into memory, and return how many can be found: all, or the search proves nothing."""
    sink, codec = MemorySink(redact=False), Codec("trace_event")
    plant(Tracer("control", sink=sink, capture_content=True), canaries)
    everything = b"\0".join(codec.encode(record) + json.dumps(record, default=str).encode() for record in sink.records)
    everything = everything.replace(b'\\\\\\"', b'"').replace(b'\\"', b'"')
    # In JSON within JSON a line feed has three backslashes or more; the forms know one.
    everything += everything.replace(b"\\\\", b"\\").replace(b"\\\\", b"\\").replace(b"\\\\", b"\\")
    return sum(any(form in everything for form in forms(canary)) for canary in canaries)


def false_share() -> tuple[int, int]:
    """Return how many ordinary sentences there are, and how many of them redaction changes."""
    redactor = Redactor()
    lines = list(sentences())
    return len(lines), sum(redactor.text(line) != line for line in lines)


def run(quick: bool, seed: int, say: Say) -> Found:
    """Plant through the running stack, wait until the store has it, and search."""
    r = random.Random(seed)
    canaries = [make(kind, r) for _ in range(PER_KIND) for kind in MAKERS]
    problems: list[str] = []
    through_doors = [make(kind, r) for _ in range(PER_KIND_OTLP) for kind in MAKERS]
    seen_without = control(canaries) + control_of_doors(through_doors)
    if seen_without != len(canaries) + len(through_doors):
        problems.append(f"the control finds only {seen_without} of {len(canaries) + len(through_doors)}")
    log = _Log()
    logging.getLogger("steersman").addHandler(log)
    records, rows = Counter[str](), Counter[str]()
    before = {name: os.environ.get(name) for name in ("STEERSMAN_HOME", "STEERSMAN_DOORS_CAPTURE_CONTENT")}
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"STEERSMAN_HOME": home, "STEERSMAN_DOORS_CAPTURE_CONTENT": "true"}
        try:
            with Stack("trust", ROOT / "policies.toml") as stack:
                stack.start(lambda step: say(f"canaries: {step}"))
                tracer = Tracer("agent", brokers=stack.brokers, capture_content=True)
                through = plant(tracer, canaries)
                by_door, accepted = otlp_canaries.plant(stack.doors, through_doors)
                canaries += through_doors
                if left := tracer.flush(60):
                    problems.append(f"{left} events were not delivered")
                stats = tracer.stats()
                if not _stored(stack, stats["sent"], through["refused_event"], accepted):
                    problems.append("the events did not all reach the store")
                say("canaries: searching")
                hits = found_in(canaries, topic_bytes(stack.brokers, records))
                hits |= found_in(canaries, table_bytes(stack.clickhouse, rows))
                tracer.close()
                hits |= found_in(
                    canaries,
                    iter(
                        [
                            ("stats", repr(stats).encode()),
                            ("agent log", b"\n".join(log.lines)),
                            *_page(stack, len(through_doors)),
                        ]
                    ),
                )
            hits |= found_in(canaries, file_bytes(Path(home)))
        finally:
            logging.getLogger("steersman").removeHandler(log)
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    problems += [f"{place} holds {', '.join(kinds)}" for place, kinds in hits.items()]
    if stats["problems"].get("redaction_failed"):
        problems.append("redaction failed on some texts")
    ordinary, changed = false_share()
    if changed > MAX_FALSE_SHARE * ordinary:
        problems.append(f"{changed} of {ordinary} ordinary sentences were changed")
    kinds_hit = {(kind, place) for place, kinds in hits.items() for kind in kinds}
    totals = {
        "canaries": len(canaries),
        "canaries_found": len(kinds_hit),
        "canary_kinds": len(MAKERS),
        "ordinary_sentences": ordinary,
        "ordinary_changed": changed,
    }
    detail = {
        "doors": dict(through), "otlp_doors": dict(by_door), "found_without_redaction": seen_without, "records_searched": dict(sorted(records.items())),
        "rows_searched": dict(rows), "tracer": stats,
    }  # fmt: skip
    return Found(totals, problems, detail)


def control_of_doors(canaries: list[Canary]) -> int:
    """Map what is sent to the doors without redaction, and return how many can be found in the events, or in the bodies refused."""
    intake = Intake("t", Codec("trace_event"), Rules(capture_content=True), max_spans=1000, dead_letter_topic="dead")
    found = 0
    for canary, (_, path, kind, body) in zip(canaries, otlp_canaries.bodies(canaries), strict=True):
        everything = [body]
        with suppress(Refused):
            if path == "/v1/feedback":
                taken = intake.feedback(body, "default")
            else:
                taken = (intake.logs if path == "/v1/logs" else intake.spans)(
                    body, "default", json=kind.endswith("json")
                )
            everything = [record.value for record in taken.records]
        text = b"\0".join(everything)
        for _ in range(4):  # JSON within JSON within JSON
            text += text.replace(b"\\\\", b"\\").replace(b'\\"', b'"')
        found += any(form in text for form in forms(canary))
    return found


def _page(stack: Stack, traces: int) -> Iterator[tuple[str, bytes]]:
    """What the live page shows of all that."""
    for path in ("/", *(f"/trace/{n:032x}" for n in range(1, traces + 1))):
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(stack.page + path, timeout=20) as answer:
            yield "page", html.unescape(answer.read().decode()).encode()


def _stored(stack: Stack, events: int, refused: int, by_doors: int) -> bool:
    """Wait until the store has what was sent."""
    deadline = time.monotonic() + 90
    with closing(connect(stack.clickhouse)) as client:
        while time.monotonic() < deadline:
            stack.check()
            have = client.query(
                "SELECT (SELECT uniqExact(event_id) FROM trace_events WHERE agent = 'agent'), (SELECT count() FROM v_dead_letters), "
                "(SELECT uniqExact(trace_id) FROM trace_events WHERE trace_id < '0000000000001')"
            )
            stored, dead, traces = have.result_rows[0]
            if stored >= events and dead >= refused and traces >= by_doors:
                return True
            time.sleep(0.3)
    return False
