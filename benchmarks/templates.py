"""Traces encoded once and sent again and again, each time with fresh ids and times: encoding costs more than the loop's budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.avro_container import zigzag
from benchmarks.payload import Record, TraceMaker
from steersman.codec import Codec

_ID: Final = "5eedc0de5eedc0de"
"""First half of every id in a template; stands for the fresh one."""
_TS_US: Final = 1_800_000_000_123_457
_PLACE: Final = _ID.encode()
_VARINT: Final = 8  # bytes of a time between 1978 and 3111


@dataclass(frozen=True, slots=True)
class Template:
    """An encoded event in two pieces, between which its time belongs.

    Attributes
    ----------
    trace
        Number of its trace among the templates.
    key_end
        Second half of the trace id.
    head, tail
        What is before and after the time.
    in_tail
        Whether there are ids after the time.
    """

    trace: int
    key_end: bytes
    head: bytes
    tail: bytes
    in_tail: bool


def make_templates(maker: TraceMaker, traces: int, at_once: int) -> list[Template]:
    """Return the events of so many traces in the order of sending.

    Parameters
    ----------
    maker
        Source of the traces.
    traces
        How many.
    at_once
        How many of them run at the same time.
    """
    encode = Codec("trace_event").encode
    out: list[Template] = []
    for start in range(0, traces, at_once):
        group = [
            (number, [_renamed(record) for record in maker.trace()])
            for number in range(start, min(traces, start + at_once))
        ]
        for step in range(max(len(records) for _, records in group)):
            out += [_template(number, encode, records[step]) for number, records in group if step < len(records)]
    return out


def fill_in(template: Template, fresh: bytes, time: bytes) -> tuple[bytes, bytes]:
    """Return key and value of a template's event with a fresh half id and an encoded time."""
    head = template.head.replace(_PLACE, fresh)
    tail = template.tail.replace(_PLACE, fresh) if template.in_tail else template.tail
    return fresh + template.key_end, head + time + tail


def fresh_ids(first: int, count: int) -> list[bytes]:
    """Return so many half ids, counted up from a number below 2^64."""
    return [b"%016x" % number for number in range(first, first + count)]


def encoded_times(times_us: NDArray[np.int64]) -> list[bytes]:
    """Encode times as Avro longs.

    Parameters
    ----------
    times_us : int64 array (n,)
        Between the years 1979 and 3000; unit: microseconds since 1970-01-01 UTC.
    """
    doubled = times_us.astype(np.uint64) << np.uint64(1)
    columns = np.empty((len(times_us), _VARINT), np.uint8)
    for i in range(_VARINT):
        more = 0x80 if i < _VARINT - 1 else 0
        columns[:, i] = ((doubled >> np.uint64(7 * i)) & np.uint64(0x7F)) | np.uint64(more)
    joined = columns.tobytes()
    return [joined[i : i + _VARINT] for i in range(0, len(joined), _VARINT)]


def _renamed(record: Record) -> Record:
    trace, renamed = record["trace_id"], {**record, "ts": _TS_US}
    renamed["trace_id"] = _ID + trace[16:]
    renamed["event_id"] = _ID + record["event_id"][16:]
    if record["decision_id"] is not None:
        renamed["decision_id"] = record["decision_id"].replace(trace, renamed["trace_id"])
    return renamed


def _template(number: int, encode: Callable[[Record], bytes], record: Record) -> Template:
    head, *rest = encode(record).split(zigzag(_TS_US))
    if len(rest) != 1:
        raise ValueError(f"the time of {record} is not found once in its bytes")
    tail = rest[0]
    return Template(number, record["trace_id"][16:].encode(), head, tail, _PLACE in tail)
