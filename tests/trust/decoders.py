"""Every decoder of bytes that come from outside, each with the errors by which it may refuse them.

Add a door's decoder here and `make trust` feeds it. A decoder gets the bytes; it returns when it took them.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from console.gateway import statements
from console.verify.producer_ledger import read_ledgers
from doors.intake import Intake
from doors.mapped import Rules
from doors.refused import Refused
from learners.neural.memory import Memory
from learners.shards import Statistics
from learners.state import StateError, unpack
from serving import codecs
from serving.inflate import inflate_snappy
from sinks.rows import rows_of
from sinks.tables import Message, tables
from steersman import contracts
from steersman.arms import ArmSpace
from steersman.clock import SYSTEM_CLOCK
from steersman.codec import SCHEMA_ID_HEADER, Codec
from steersman.dead_letter import HEADER, MAX_LETTER, failure_headers, fitted, read_failure
from steersman.errors import ConfigError, DecodeError, SnapshotError
from steersman.ids import parse_decision_id
from steersman.kafka_config import MAX_BATCH_BYTES
from steersman.policy_book import PolicyBook
from steersman.redaction import RedactionFailed, Redactor
from steersman.snapshot import PolicySnapshot
from steersman.throttle import Throttle
from steersman.topics import Topics
from steersman.traceparent import parse_traceparent
from streams import inflate
from streams.edges import make_codecs
from streams.record_batch import RecordBatch
from streams.state_log import FENCE, MARKER, StateFold, StateTakenOver, record_key, seal
from streams.trace_edge import TraceEdge
from streams.trace_stage import TraceStage
from tests.streams.trace_events import POLICIES

_SPEC = next(iter(POLICIES))


@dataclass(frozen=True)
class Decoder:
    """A decoder.

    Attributes
    ----------
    name
        Of what it reads.
    decode
        Takes the bytes.
    refusals
        Errors by which it may refuse them; any other is a finding.
    """

    name: str
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Reader:
    """What reads many records at a time, by columns.

    Attributes
    ----------
    name
        Of what it reads.
    read
        Takes them and returns how many it refused. It may raise nothing.
    """

    name: str
    read: Callable[[list[bytes]], int]


def readers() -> list[Reader]:
    """Make all readers of batches."""
    made = [Reader(f"columns of {table.name}", _table(table)) for table in tables(Topics())]
    return [*made, Reader("columns of the trace stage", _trace_stage())]


def decoders() -> list[Decoder]:
    """Make all decoders."""
    made = [_contract(name) for name in contracts.NAMES]
    redactor = Redactor()
    snapshots = Codec("policy_snapshot")
    book = PolicyBook("acme", None, None, None, SYSTEM_CLOCK, Throttle())
    return [
        *made,
        Decoder("signed body", lambda b: snapshots.without("signature", snapshots.head + b[10:]), (DecodeError,)),
        Decoder(
            "policy snapshot",
            lambda b: PolicySnapshot.from_record(snapshots.decode(snapshots.head + b[10:])),
            (DecodeError, SnapshotError),
        ),
        Decoder("policy book", lambda b: book.read(b"acme/research/retrieval", b, ())),
        Decoder("arms", _arms, (ValueError, RecursionError)),
        Decoder("writer schema", _schema, (ValueError, RecursionError)),
        Decoder("learner state", lambda b: unpack(_resealed(b)), (StateError,)),
        Decoder("shard statistics", lambda b: Statistics.of(_resealed(b)), (StateError,)),
        Decoder("state log", _state_log, (StateTakenOver,)),
        Decoder("dead-letter headers", lambda b: read_failure([(HEADER + "offset", b), (HEADER + "reason", b)])),
        Decoder("traceparent", lambda b: parse_traceparent(b)),
        Decoder("decision id", lambda b: parse_decision_id(b.decode("latin-1"))),
        *(
            Decoder(f"body in {name}", _body(name), (codecs.TooLarge, codecs.Unsupported))
            for name in ("gzip", "deflate", "lz4", "zstd")
        ),
        Decoder("body in snappy", lambda b: inflate_snappy(b, 1 << 20), (codecs.TooLarge, codecs.Unsupported)),
        Decoder("batch of Kafka records", _kafka_batch),
        Decoder("dead letter of anything", _letter),
        Decoder("memory of a neural learner", lambda b: Memory.from_bytes(b, _SPEC), (StateError,)),
        *_doors(),
        Decoder("SQL statement", lambda b: statements.parse(b[:4096])),
        Decoder("producer ledger", _ledger, (ConfigError,)),
        Decoder("redaction", lambda b: redactor.text(b.decode("utf-8", "surrogateescape")), (RedactionFailed,)),
    ]


def _kafka_batch(value: bytes) -> None:
    """The bytes as what a batch holds, under a right checksum, in each encoding in turn; read as the workers do."""
    inflate.install()
    after = struct.pack(">hiqqqhii", len(value) % 5, 0, 1, 1, -1, -1, -1, 1) + value
    raw = struct.pack(">qiibI", 0, len(after) + 9, 0, 2, calc_crc32c(after)) + after
    for record in fetcher.PartitionRecords(
        TopicPartition("t", 0), fetcher.MemoryRecords(raw), [], 0, None, None, True, 0
    ):
        assert len(record.value or b"") <= MAX_BATCH_BYTES


def _letter(value: bytes) -> None:
    headers = [(value[:n].decode("latin-1"), value[n:]) for n in (0, 5, 60)]
    why = failure_headers("t", 0, 1, "DESERIALIZE", DecodeError("magic", value.decode("latin-1")), connector="c")
    key, kept, all_headers = fitted(value[:3000], value, headers, why)
    assert (
        len(key or b"") + len(kept or b"") + sum(len(n.encode()) + len(v or b"") for n, v in all_headers) <= MAX_LETTER
    )


def _doors() -> list[Decoder]:
    intake = Intake(
        "t",
        Codec("trace_event"),
        Rules(capture_content=True, redactor=Redactor()),
        max_spans=1000,
        dead_letter_topic="dead",
    )
    ways: dict[str, Callable[[bytes], object]] = {
        "OTLP spans in protobuf": lambda b: intake.spans(b, "acme", json=False),
        "OTLP spans in JSON": lambda b: intake.spans(b, "acme", json=True),
        "OTLP log records": lambda b: intake.logs(b, "acme"),
        "feedback": lambda b: intake.feedback(b, "acme"),
        # As a request comes in: compressed, then decoded.
        "compressed OTLP spans": lambda b: intake.spans(codecs.decompress(b, "gzip", 1 << 20, 16), "acme"),
    }
    return [Decoder(name, decode, (Refused, codecs.TooLarge, codecs.Unsupported)) for name, decode in ways.items()]


def _contract(name: str) -> Decoder:
    codec = Codec(name)

    def decode(value: bytes) -> None:
        found = [
            _decoded(codec, value, ()),
            _decoded(codec, value, [(SCHEMA_ID_HEADER, value[:17])]),
            _decoded(codec, codec.head + value[10:], ()),  # whatever it is, as a body of this contract
        ]
        if None not in found:
            raise found[0] or DecodeError("none")

    return Decoder(f"contract {name}", decode, (DecodeError,))


def _decoded(codec: Codec, value: bytes, headers: Any) -> DecodeError | None:
    try:
        codec.decode(value, headers)
    except DecodeError as error:
        return error
    return None


def _table(table: Any) -> Callable[[list[bytes]], int]:
    def read(values: list[bytes]) -> int:
        rows, rejected = rows_of(
            table, [Message(table.topic, 0, i, b"k", v, timestamp_ms=1) for i, v in enumerate(values)]
        )
        assert rows.count + len(rejected) <= len(values)
        return len(rejected)

    return read


def _trace_stage() -> Callable[[list[bytes]], int]:
    codecs = make_codecs(("trace_event", "reward", "rollup", "alert", "ledger"))

    def read(values: list[bytes]) -> int:
        edge = TraceEdge(TraceStage(POLICIES, 0), Topics(), codecs, columns_from=1)
        n = len(values)
        step = edge.process_batch(
            RecordBatch("t", 0, 0, 0, 0, n - 1, list(range(n)), list(values), [None] * n, [()] * n, [1] * n), 0
        )
        assert step is not None
        offsets = {offset for offset, _, _ in step.failed}
        assert offsets <= set(range(n))
        return len(offsets)

    return read


def _arms(value: bytes) -> None:
    text = value.decode("utf-8", "replace")
    ArmSpace.from_record(
        {"knobs": [{"name": "a", "levels": [text]}, {"name": "b", "levels": ["1", text]}], "forbidden": [text]}
    )


def _schema(value: bytes) -> None:
    contracts.hazard(json.loads(value.decode("utf-8", "replace")))


def _state_log(value: bytes) -> None:
    fold = StateFold("trace", 0, None, "here")
    for offset, key in enumerate(
        (
            record_key("trace", 0, "x"),
            record_key("trace", 0, MARKER),
            record_key("trace", 0, FENCE),
            b"trace/0/" + value[:40],
            value[:80],
        )
    ):
        fold.feed(offset, 0, key, value, [("owner", value[:20]), ("digest", value[:16])])
        for owner in ("1-a@0", value[:12].decode("latin-1")):
            fold.feed(offset, 0, key, value, seal(key, value, owner))


def _resealed(value: bytes) -> bytes:
    """The bytes with a right digest, as who can write the topic would send them."""
    return value[:-32] + hashlib.sha256(value[:-32]).digest() if len(value) > 32 else value


def _body(name: str) -> Callable[[bytes], object]:
    return lambda value: codecs.decompress(value, name, 1 << 20)


def _ledger(value: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(value + b"\n")
        read_ledgers([Path(file.name)])
