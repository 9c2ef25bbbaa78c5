"""The timed worker stands at the platform's own door: it must still be there, and time what goes through it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from benchmarks.stopwatch import Stopwatch
from streams.app import StreamsApp


def test_the_door_takes_batches() -> None:
    assert inspect.iscoroutinefunction(StreamsApp.take)
    assert list(inspect.signature(StreamsApp.take).parameters) == ["self", "batch"]


def test_a_stopwatch_counts_from_the_first_record_to_the_last(tmp_path: Path) -> None:
    watch = Stopwatch()
    watch.begin()
    watch.took(3)
    sum(range(200_000))
    watch.begin()  # a later batch
    watch.took(4)
    watch.write(tmp_path / "r.json", windows=[1])
    measured = json.loads((tmp_path / "r.json").read_text())
    assert measured["records"] == 7
    assert measured["windows"] == [1]
    assert measured["wall_s"] == measured["last"] - measured["first"] > 0
    assert measured["cpu_s"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_stopwatch_without_records_says_so(tmp_path: Path) -> None:
    Stopwatch().write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["records"] == 0
