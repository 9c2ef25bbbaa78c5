"""The soak run: slopes, logs and plot; and a second of all of it on the embedded broker, whose memory proves nothing."""

from __future__ import annotations

import os
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from benchmarks import soak as soak_run
from benchmarks.lines import Line, line_chart
from benchmarks.memory import rss_mb, rss_of, slope
from benchmarks.soak import Soak, logged, plot, rows, run
from benchmarks.soak_visitors import SPANS, spans
from console.children import ChildFailed
from doors.intake import Intake
from doors.mapped import Rules
from steersman.codec import Codec


def test_a_slope_is_that_of_the_line_and_its_error_that_of_the_noise() -> None:
    rng = np.random.default_rng(3)
    at = np.linspace(0, 30, 360)
    rise, error = slope(list(at), list(200 + 0.25 * at))
    assert rise == pytest.approx(0.25)
    assert error == pytest.approx(0, abs=1e-9)
    fitted = [slope(list(at), list(200 + 0.25 * at + rng.normal(0, 3, len(at)))) for _ in range(300)]
    assert np.mean([rise for rise, _ in fitted]) == pytest.approx(0.25, abs=0.01)
    assert np.std([rise for rise, _ in fitted]) == pytest.approx(np.mean([error for _, error in fitted]), rel=0.2)
    with pytest.raises(ValueError, match="too few"):
        slope([1, 2], [1, 2])


def test_memory_is_read_as_linux_tells_it() -> None:
    assert rss_mb("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t  123456 kB\nRssAnon:\t1 kB\n") == pytest.approx(126.418944)
    assert rss_mb("Name:\tzombie\n") == 0
    assert rss_of({"this": os.getpid(), "gone": 2**22 + 1}).keys() == {"this"}


def seen(growing: str) -> Soak:
    """Forty minutes in which one process grows by 2 MB a minute after a steep warm-up."""
    soak = Soak(events=1_000_000, seconds=200.0, cpu_s={"worker": 50.0})
    for step in range(80):
        minute = step / 2
        used = dict.fromkeys((*soak_run._OURS, "feed"), 100.0 + min(minute, 10) * 30)
        used[growing] += 2 * minute
        soak.take(minute, used, (step, None))
    return soak


def test_the_warm_up_does_not_count_and_what_grows_after_it_is_found() -> None:
    found = {row.process: row for row in rows(seen("sink"), 10.0)}
    assert [name for name, row in found.items() if not row.ok] == ["sink"]
    assert found["sink"].rss_slope_mb_per_min == pytest.approx(2.0)
    assert found["worker"].rss_slope_mb_per_min == pytest.approx(0.0)
    assert (found["worker"].minutes, found["worker"].events_per_s, found["worker"].cpu_us_per_event) == (29.5, 5000, 50)
    assert found["worker"].rss_first_mb == 400
    with pytest.raises(ValueError, match="too few"):
        rows(seen("sink"), 39.5)
    lost = seen("sink")
    lost.rss["page"].pop()
    with pytest.raises(ChildFailed, match="page"):
        rows(lost, 10.0)


def test_the_plot_is_svg_with_a_line_a_process() -> None:
    soak = seen("sink")
    drawn = ET.fromstring(plot(soak, 10.0, rows(soak, 10.0)))
    lines = [node for node in drawn.iter() if node.tag.endswith("polyline")]
    assert len(lines) == len(soak_run._OURS)
    assert all(len(line.attrib["points"].split()) == len(soak.minutes) for line in lines)
    assert "sink +2.00 MB/min" in "".join(drawn.itertext())
    with pytest.raises(ValueError, match="nothing to draw"):
        line_chart("t", "x", "y", [Line("empty", [], [])])


def test_logs_are_counted_by_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text(
        '{"ready": true}\n{"level": "info", "event": "started"}\n'
        '{"level": "warning", "event": "behind by 3"}\n{"level": "warning", "event": "behind by 14"}\nplain\n'
    )
    (tmp_path / "page.log").write_text(
        '{"level": "warning", "event": "Timer commit is overlapping (interval=2.8 runtime=4.5)"}\n'
    )
    (tmp_path / "kafka.log").write_text("2026-01-01 00:00:00,123 WARN disk at 91% (kafka.log)\n2026-01-01 INFO fine\n")
    found = {(line["process"], line["level"], line["event"]): line["times"] for line in logged(tmp_path)}
    late = ("page", "warning", "Timer commit is overlapping (interval=N.N runtime=N.N)")
    assert found == {late: 1, ("worker", "warning", "behind by N"): 2, ("kafka", "warn", "disk at N% (kafka.log)"): 1}
    assert [line["process"] for line in logged(tmp_path) if line["explained"]] == ["page"]


def test_visitors_send_what_the_doors_take() -> None:
    body, trace = spans(random.Random(5), 1_800_000_000 * 10**9)
    intake = Intake("t", Codec("trace_event"), Rules(), max_spans=100, dead_letter_topic="dead")
    made = intake.spans(body, "default", json=False)
    assert len(made.records) == SPANS + 1  # and the end of the trace
    assert trace


def test_a_second_of_everything() -> None:
    soak, said = run(600.0, 0.03, 0.0, kafka=False)
    found = {row.process: row for row in rows(soak, 0.0)}
    assert set(soak_run._OURS) <= found.keys()
    assert all(row.rss_last_mb > 10 for row in found.values())
    assert soak.events > 100
    # A timer that fires late says how busy the machine is; anything else at WARNING is a fault of ours.
    assert [line for line in said["logs"] if line["explained"] is None] == []
    assert set(said["load"]) == {"agent", "visitors"}
    assert said["missing"] == dict.fromkeys(soak_run.MISSING, 0)
