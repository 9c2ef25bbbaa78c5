"""What verify prints."""

from __future__ import annotations

import json

import pytest

from console.verify.equations import Equation
from console.verify.report import show
from console.verify.span import OPEN, Span

GOOD = Equation(
    "E2a", "Kafka = rows", {"of": "Kafka", "n": 1234, "amount": 5}, {"of": "rows", "n": 1234, "amount": 5}, True
)
BAD = Equation("E4a", "rewards", {"of": "a", "n": 2}, {"of": "b", "n": 1}, False, ["id1: 1 in a, 0 in b"])
OTHERS = Equation("E2b", "the same", {"of": "a", "n": 2, "amount": 0}, {"of": "b", "n": 2, "amount": 0}, False, ["x"])
NOTHING = Equation("E1", "producers", {"of": "producers"}, {"of": "Kafka"}, True, [], "no producer ledger given")


def test_a_line_an_equation_with_both_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Span(29_000_000, OPEN), [NOTHING, GOOD], as_json=False) == 0
    text = capsys.readouterr().out
    assert "from 2025-02-19T21:20Z to the end" in text
    assert "E1  ok   producers: no producer ledger given" in text
    assert "E2a ok   Kafka = rows: 1,234 = 1,234, amount 5 = 5 micro-USD" in text
    assert "every equation holds" in text


def test_a_mismatch_lists_what_differs_and_exits_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Span(29_000_000, 29_000_060), [GOOD, OTHERS, BAD], as_json=False) == 4
    text = capsys.readouterr().out
    assert "E4a NOT  rewards: 2 vs 1" in text
    assert "      id1: 1 in a, 0 in b" in text
    assert "E2b NOT  the same: 2 vs 2, but not the same ones" in text
    assert "NOT equal: E2b, E4a" in text


def test_the_json_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Span(29_000_000, 29_000_060), [GOOD, BAD], as_json=True) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert (document["from"], document["to"]) == ("2025-02-19T21:20Z", "2025-02-19T22:20Z")
    assert document["equations"][1] == {
        "id": "E4a",
        "name": "rewards",
        "left": {"of": "a", "n": 2},
        "right": {"of": "b", "n": 1},
        "ok": False,
        "differing": ["id1: 1 in a, 0 in b"],
        "note": "",
    }
