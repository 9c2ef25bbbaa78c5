"""The benchmarks' page: a table, ratios and plots from result files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import Bar, bar_chart
from benchmarks.page import main, page, plots, ratios
from benchmarks.rollup_systems import SYSTEMS

SVG = "{http://www.w3.org/2000/svg}"
HEADER = {
    "machine": "m, 2 cores", "python": "3.11", "versions": {"a": "1"}, "payload": "events", "command": "python -m x",
    "argv": [],
}  # fmt: skip


def figure(system: str, median: float, metric: str = "throughput", unit: str = "events/s") -> dict[str, Any]:
    return {
        "system": system, "metric": metric, "unit": unit, "median": median, "min": median / 2, "max": median * 2,
        "repeats": 3, "cpu_us_per_event": None if unit != "events/s" else 12.345,
    }  # fmt: skip


ROLLUP = [figure("Peer", 1000.0), figure("steersman, job", 25_000.0), figure("steersman, empty agent", 90_000.0)]


def test_a_table_has_a_row_for_each_figure() -> None:
    text = page({"rollup": {"header": HEADER, "figures": ROLLUP}})
    assert "| Peer | throughput, events/s | 1,000 | 500 | 2,000 | 3 | 12.3 |" in text
    assert "![rollup](results/rollup-events-s.svg)" in text
    assert "`python -m x` on m, 2 cores, Python 3.11; a 1." in text


def test_ratios_compare_us_with_peers_only() -> None:
    assert ratios(ROLLUP) == ["steersman, job: 25 x Peer"]
    assert ratios(ROLLUP[1:]) == []
    assert ratios([figure("1 worker", 1.0), figure("2 workers", 2.0)]) == []


def test_every_system_of_ours_is_named_as_such() -> None:
    assert all(system.ours == system.name.startswith("steersman") for system in SYSTEMS)


def test_plots_are_one_for_each_unit_with_something_to_compare() -> None:
    mixed = [
        *ROLLUP,
        figure("Peer", 2.0, "behind", "s"),
        figure("p50", 1, "n", "count"),
        figure("p99", 1, "n", "count"),
    ]
    assert list(plots("rollup", mixed)) == ["rollup-events-s.svg"]


def test_a_chart_is_svg_to_scale() -> None:
    chart = bar_chart("a < b", [Bar("one", 50, 25, 100, "50"), Bar("two & more", 100, 100, 100, "100", ours=False)])
    root = ET.fromstring(chart)
    _, short, long = root.findall(f"{SVG}rect")
    assert float(long.get("width", "0")) == 2 * float(short.get("width", "0"))
    assert short.get("fill") != long.get("fill")
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert texts == ["a < b", "one", "50", "two & more", "100"]
    line = root.find(f"{SVG}line")
    assert line is not None
    assert float(line.get("x2", "0")) - float(line.get("x1", "0")) == pytest.approx(285)


def test_a_chart_of_nothing_is_refused_and_one_of_zeros_is_not() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        bar_chart("t", [])
    assert 'width="0.0"' in bar_chart("t", [Bar("zero", 0, 0, 0, "0")])


def test_the_page_is_made_from_the_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "rollup.json").write_text(json.dumps({"header": HEADER, "figures": ROLLUP}))
    (tmp_path / "demo.json").write_text(json.dumps({"events": 1}))  # no benchmark of figures
    (tmp_path / "rollup-old.svg").write_text("stale")
    (tmp_path / "other-s.svg").write_text("not ours")
    main(["--results", str(tmp_path), "--page", str(tmp_path / "README.md")])
    assert "demo" not in (tmp_path / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["other-s.svg", "rollup-events-s.svg"]
