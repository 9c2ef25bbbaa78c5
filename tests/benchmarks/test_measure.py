"""What figures are made of: percentiles, spreads, CPU time, and whether a load was kept up with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.environments import STREAMING
from benchmarks.loop import complaint, described
from benchmarks.loop_platform import Load
from benchmarks.measure import Figure, Missed, percentile, report, spread
from benchmarks.usage import cpu_of, cpu_s
from steersman.errors import SteersmanError


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile(values, 0.0) == 1
    assert percentile([7.0], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_spread_is_median_smallest_largest() -> None:
    assert spread([3.0, 1.0, 2.00049]) == (2.0, 1.0, 3.0)


def test_what_was_measured_is_written_before_a_miss_is_told(tmp_path: Path) -> None:
    figure = Figure("s", "m", "us", 2.0, 1.0, 3.0, 5)

    def figures(error: Exception) -> Iterator[Figure]:
        yield figure
        raise error

    with pytest.raises(Missed, match="too far off"):
        report("x", "some bytes", figures(Missed("too far off")), folder=tmp_path)
    assert len(json.loads((tmp_path / "x.json").read_text())["figures"]) == 1
    with pytest.raises(SteersmanError, match="no broker"):
        report("y", "some bytes", figures(SteersmanError("no broker")), folder=tmp_path)
    assert not (tmp_path / "y.json").exists(), "half a measurement is none"


def test_a_report_has_a_header_and_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = Figure("s", "m", "us", 2.0, 1.0, 3.0, 5)
    path = report("x", "some bytes", [figure], versions={"kafka": "4"}, folder=tmp_path / "new")
    written = json.loads(path.read_text())
    assert path == tmp_path / "new" / "x.json"
    assert written["figures"] == [
        {
            "system": "s", "metric": "m", "unit": "us", "median": 2.0, "min": 1.0, "max": 3.0, "repeats": 5,
            "cpu_us_per_event": None,
        }
    ]  # fmt: skip
    assert written["header"]["payload"] == "some bytes"
    assert written["header"]["command"] == "python -m benchmarks x"
    assert written["header"]["versions"]["kafka"] == "4"
    assert "min 1, max 3" in capsys.readouterr().out


def test_cpu_time_is_read_behind_a_name_of_any_form() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = f"12 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 {3 * ticks} {ticks} 99 99 20"
    assert cpu_s(stat) == pytest.approx(4.0)


def test_cpu_time_of_processes_leaves_out_those_that_are_gone() -> None:
    used = cpu_of({"me": os.getpid(), "gone": 2**22 + 1})
    assert used.keys() == {"me"}
    assert used["me"] > 0


def test_the_lock_says_which_peers() -> None:
    assert STREAMING.versions(["bytewax"])["peers: bytewax"].count(".") == 2


def loaded(worker: list[int], sink: list[int], events: int = 10_000) -> Load:
    return Load(rate=1000.0, seconds=10.0, events=events, worker_lag=worker, sink_lag=sink, cpu_us={"worker": 30.0})


def test_a_load_was_kept_up_with() -> None:
    steady = [900, 1500, 700, 1300, 800, 1400, 900, 1200]
    assert complaint(loaded(steady, steady)) == ""
    # In few samples, a little growth is chance.
    assert complaint(loaded([0, 0, 0, 0, 200, 400, 600, 600], steady)) == ""
    # What was behind at first and has been caught up with does not count.
    assert complaint(loaded([9000, 6000, *steady[2:]], steady)) == ""


def test_a_load_was_not_kept_up_with() -> None:
    steady = [900] * 8
    assert "only 970/s" in complaint(loaded(steady, steady, events=9700))
    growing = [0] * 30 + [600] * 30
    assert "worker fell behind by 0.6 s" in complaint(loaded(growing, steady))
    assert "sink fell behind by 2.0 s" in complaint(loaded(steady, [0, 0, 0, 0, 500, 1000, 2000, 2000]))
    assert "sink was 5.1 s behind" in complaint(loaded(steady, [0, 0, 0, 0, 5100, 0, 0, 0]))
    assert "only 3 times" in complaint(loaded([1, 2, 3], [1, 2, 3]))


def test_a_load_is_described_in_rates_seconds_and_cpu_time() -> None:
    found = {(f.system, f.metric): f for f in described(loaded([1000, 2000, 3000], [0, 0, 500]))}
    assert found["full loop, 10 s", "sustained"].median == 1000.0
    assert found["full loop, 10 s", "sustained"].cpu_us_per_event == 30.0
    assert (found["worker", "behind"].median, found["worker", "behind"].max) == (2.0, 3.0)
    assert found["worker", "CPU"].median == 30.0
