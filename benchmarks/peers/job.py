"""The rollup job as all peers do it: 10 s windows of count, cost and tokens per (tenant, agent, operation).

Nothing of the product is imported here. The key of a record is the key of its window, and all records of a key are
in one partition and in order of time, so that nobody has to repartition or to wait for stragglers.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastavro

from benchmarks.stopwatch import Stopwatch

WINDOW_US = 10_000_000
_BODY = 10  # bytes before the Avro body: marker and fingerprint of a single object
_SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "trace_event.avsc"

Window = tuple[str, int]
"""Key of the records, and start of the window in microseconds since 1970-01-01 UTC."""


def _plain(node: Any) -> Any:
    """Leave out logical types: integers are summed faster than dates."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, dict):
        return {key: _plain(item) for key, item in node.items() if key != "logicalType"}
    return node


_WRITER = fastavro.parse_schema(_plain(json.loads(_SCHEMA.read_text())))


def decode(value: bytes) -> dict[str, Any]:
    """Decode a trace event. Reading only the fields needed would save 5 % of it, at the price of everything else."""
    body = io.BytesIO(value)
    body.seek(_BODY)
    return fastavro.schemaless_reader(body, _WRITER, None)  # type: ignore[return-value]


def key_of(event: Mapping[str, Any]) -> str:
    """Return the key of an event's window."""
    return f"{event['tenant']}|{event['agent']}|{event['operation'] or ''}"


def add(total: list[int], event: Mapping[str, Any]) -> list[int]:
    """Return (events, cost in micro dollars, tokens) with one event more."""
    return [
        total[0] + 1,
        total[1] + (event["cost_micro_usd"] or 0),
        total[2] + (event["input_tokens"] or 0) + (event["output_tokens"] or 0),
    ]


class Trial:
    """Times the work from the first record to the last.

    Parameters
    ----------
    records
        How many there are.
    result
        Where `finish` writes what came out.
    """

    def __init__(self, records: int, result: Path) -> None:
        self.records = records
        self._result = result
        self._watch = Stopwatch()

    def begin(self) -> None:
        """Take the first record."""
        self._watch.begin()

    def done(self) -> None:
        """The last record is done; where this is called again, it was not the last."""
        self._watch.took(0)

    def finish(self, windows: Mapping[Window, Any]) -> None:
        """Write the result, and end the process: shutting down is not part of the job."""
        found = [[key, start, *total] for (key, start), total in windows.items()]
        self._watch.records = self.records
        self._watch.write(self._result, windows=found)
        os._exit(0)


def arguments(description: str | None) -> argparse.Namespace:
    """Read the arguments that all peers take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--records", type=int, required=True, help="records in the topic")
    parser.add_argument("--result", type=Path, required=True, help="file for the result")
    parser.add_argument("--data", type=Path, required=True, help="folder for state")
    return parser.parse_args()
