"""The timings of docs/sql.md: what is made of a result file, and what a small run writes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.sql import PAGE, main, questions, timings_table

HEADER = {
    "machine": "m, 2 cores",
    "versions": {"chdb": "4.4"},
    "payload": "events",
    "command": "python -m benchmarks.sql",
}


def result(folder: Path, ms: float) -> Path:
    timings = [
        {"query": "1. A", "span": span, "rows": 3, "ms": value, "best_ms": 1.0, "worst_ms": 9e9} for span, value in (("day", 12.3), ("all", ms))
    ]  # fmt: skip
    (folder / "sql.json").write_text(json.dumps({"header": HEADER, "queries": timings}))
    return folder


def test_a_question_has_a_number_a_title_a_reason_and_a_query() -> None:
    text = "### 3. Why\nBecause\nof this.\n```sql\nSELECT 1\nFROM x\n```\n\n### `v_x`\nno.\n```sql\nSELECT 2\n```\n"
    (one,) = questions(text)
    assert (one.number, one.title, one.why, one.sql) == (3, "Why", "Because\nof this.", "SELECT 1\nFROM x")


def test_what_misses_the_bar_is_named(tmp_path: Path) -> None:
    assert "| 1. A | 12 | 999 |" in timings_table(result(tmp_path, 999.4))
    assert "Each is below 1,000 ms." in timings_table(tmp_path)
    assert "Not below 1,000 ms: 1. A (all)." in timings_table(result(tmp_path, 1000.0))


def test_a_small_run_times_every_question(tmp_path: Path) -> None:
    main(["--events", "4000", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "sql.json").read_text())
    assert found["stored_rows"] == 4000
    listed = {f"{q.number}. {q.title}" for q in questions(PAGE.read_text())}
    assert {t["query"] for t in found["queries"]} == listed
    empty = {t["query"].split(".")[0] for t in found["queries"] if t["span"] == "all" and not t["rows"]}
    assert empty <= {"12"}, "a question without an answer is no measurement; no call repeats here"
