"""Hostile and clumsy values on their way to the contract."""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman import contracts
from steersman.codec import Codec
from steersman.errors import InvalidRecord
from steersman.events import (
    BOOLEANS,
    DOUBLES,
    ENUMS,
    FLOAT_ARRAYS,
    INT_ARRAYS,
    LONGS,
    SETTABLE,
    STRING_CAPS,
)
from steersman.features import FeatureSpec, Numeric, Text
from steersman.finalize import LoggableContext, finalize

BASE = {
    "event_id": "e" * 32,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span_id": "00f067aa0ba902b7",
    "kind": "TOOL_CALL",
    "ts": 1_760_000_000_000_000,
}
CODEC = Codec("trace_event")


def clean(**fields: Any) -> tuple[dict[str, Any], Counter[str]]:
    """What is left of these fields, after a round trip through the codec, and the problems counted."""
    problems: Counter[str] = Counter()
    out = finalize({**BASE, **fields}, problems)
    return CODEC.decode(CODEC.encode(out)), problems


def _branches(field: dict[str, Any]) -> list[Any]:
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return [k.get("logicalType", k["type"]) if isinstance(k, dict) else k for k in kinds]


def test_the_field_groups_are_those_of_the_contract() -> None:
    groups: dict[str, set[str]] = {}
    nullable, items, symbols = set(), {}, {}
    for field in contracts.schema("trace_event")["fields"]:
        for branch in _branches(field):
            groups.setdefault(branch, set()).add(field["name"])
        for kind in field["type"] if isinstance(field["type"], list) else [field["type"]]:
            if isinstance(kind, dict) and kind["type"] == "array":
                items[field["name"]] = kind["items"]
            if isinstance(kind, dict) and kind["type"] == "enum":
                symbols[field["name"]] = kind["symbols"]
        if "null" in _branches(field):
            nullable.add(field["name"])
    assert groups["string"] == set(STRING_CAPS)
    assert groups["long"] | groups["timestamp-micros"] == set(LONGS)
    assert groups["double"] == set(DOUBLES)
    assert groups["boolean"] == set(BOOLEANS)
    assert {n for n, i in items.items() if i == "float"} == set(FLOAT_ARRAYS)
    assert {n for n, i in items.items() if i == "int"} == set(INT_ARRAYS)
    assert {name: [str(s) for s in kind] for name, kind in ENUMS.items()} == symbols
    assert (nullable - {"parent_span_id"}) | {"status"} == set(SETTABLE)


def test_numbers_of_every_make_become_integers() -> None:
    event, problems = clean(
        input_tokens=np.int32(5), output_tokens=7.0, cost_micro_usd=np.float64(2.6), context_tokens=True
    )
    assert (event["input_tokens"], event["output_tokens"], event["cost_micro_usd"]) == (5, 7, 3)
    assert event["context_tokens"] == 1
    assert not problems


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**63, "12", b"1", object(), [1], 1e300])
def test_what_is_no_integer_becomes_null_and_is_counted(value: Any) -> None:
    event, problems = clean(input_tokens=value)
    assert event["input_tokens"] is None
    assert problems == {"bad_value:input_tokens": 1}


def test_long_text_is_cut_and_says_so() -> None:
    event, problems = clean(operation="x" * 100_000)
    assert len(event["operation"]) == STRING_CAPS["operation"]
    assert event["truncated"] is True
    assert problems == {"truncated": 1}


def test_text_of_every_make() -> None:
    colour = enum.Enum("colour", {"RED": "red"})
    number = uuid.UUID(int=1)
    event, problems = clean(session_id=number, operation=colour["RED"], label=3, provider="\ud800", error=object())
    assert (event["session_id"], event["operation"], event["label"]) == (str(number), "red", "3")
    assert event["provider"] == "?"
    assert event["error"] is None
    assert problems == {"bad_value:error": 1}


def test_attributes_keep_what_can_be_kept() -> None:
    event, problems = clean(
        attributes={"a": 1, "nan": math.nan, "o": object(), "np": np.float32(0.5), "u": uuid.UUID(int=1)}
    )
    assert json.loads(event["attributes"]) == {"a": 1, "np": 0.5, "u": str(uuid.UUID(int=1))}
    assert problems == {"bad_value:attributes": 2}


def test_attributes_over_the_cap_lose_whole_entries() -> None:
    event, _ = clean(attributes={"big": "x" * 10_000, "small": 1})
    assert json.loads(event["attributes"]) == {"small": 1}
    assert event["truncated"] is True


@pytest.mark.parametrize(
    ("given_", "kept"), [('{"a": 1}', {"a": 1}), ("plain", {"value": "plain"}), ("[1]", {"value": "[1]"})]
)
def test_attributes_as_text_are_an_object_in_the_end(given_: str, kept: dict[str, Any]) -> None:
    assert json.loads(clean(attributes=given_)[0]["attributes"]) == kept


def test_recursive_attributes_are_left_out() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    event, problems = clean(attributes={"loop": loop, "a": 1})
    assert json.loads(event["attributes"]) == {"a": 1}
    assert problems == {"bad_value:attributes": 1}


def test_arrays() -> None:
    event, problems = clean(features=np.array([1, 2.5], dtype=np.float32), eligible=np.array([0, 3]))
    assert (event["features"], event["eligible"]) == ([1.0, 2.5], [0, 3])
    event, problems = clean(features=[1.0, math.nan], eligible="abc")
    assert (event["features"], event["eligible"]) == ([], [])
    assert problems == {"bad_value:features": 1, "bad_value:eligible": 1}
    assert clean(features=[0.0] * 10_001)[1] == {"bad_value:features": 1}


def test_unknown_fields_and_symbols_are_left_out() -> None:
    event, problems = clean(no_such=1, status="FINE", mode="LIVE")
    assert (event["status"], event["mode"]) == ("OK", "LIVE")
    assert problems == {"unknown_field": 1, "bad_value:status": 1}


def test_a_context_is_logged_without_its_text_and_as_it_was() -> None:
    spec = FeatureSpec(features=(Numeric(name="n"), Text(name="question", dim=4)))
    mine: dict[str, object] = {"n": 1.5, "question": "who am I"}
    context = LoggableContext(spec, mine)
    mine["n"] = 9
    assert json.loads(clean(context=context)[0]["context"]) == {"n": 1.5}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": "x"}, "trace_id"),
        ({"trace_id": None}, "trace_id"),
        ({"span_id": "0" * 16}, "span_id"),
        ({"kind": "FEEDBACK", "value": math.nan}, "empty_feedback"),
    ],
)
def test_events_that_no_one_could_use(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        finalize({**BASE, **fields}, Counter())
    assert caught.value.reason == reason


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.builds(object)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@settings(derandomize=True, max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(SETTABLE | FLOAT_ARRAYS | INT_ARRAYS)), ANYTHING, max_size=8))
def test_whatever_comes_the_result_can_be_encoded(fields: dict[str, Any]) -> None:
    clean(**fields)
