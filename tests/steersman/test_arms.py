from __future__ import annotations

import numpy as np
import pytest

from steersman.arms import ArmSpace


def test_row_major_order_and_labels() -> None:
    arms = ArmSpace({"model": ["s", "l"], "top_k": [4, 8], "rerank": [False, True]})
    assert len(arms) == 8
    assert arms.labels[:3] == (
        "model=s;top_k=4;rerank=false",
        "model=s;top_k=4;rerank=true",
        "model=s;top_k=8;rerank=false",
    )
    assert arms.arms[3] == {"model": "s", "top_k": 8, "rerank": True}
    np.testing.assert_array_equal(arms.levels[5], [1, 0, 1])


def test_forbidden_arms_are_left_out() -> None:
    arms = ArmSpace({"model": ["s", "l"], "top_k": [4, 8, 16]}, [{"model": "s", "top_k": 16}, {"top_k": 4}])
    assert arms.labels == ("model=s;top_k=8", "model=l;top_k=8", "model=l;top_k=16")
    with pytest.raises(ValueError, match="forbidden"):
        arms.label_of({"model": "s", "top_k": 16})


def test_index_and_label_of_are_inverse() -> None:
    arms = ArmSpace({"t": [0.5, 1.0], "on": [True, False]})
    for i, arm in enumerate(arms.arms):
        assert arms.index(arms.label_of(arm)) == i
    assert arms.label_of({"on": True, "t": 1}) == "t=1.0;on=true"
    assert "t=0.5;on=true" in arms
    assert "t=0.5" not in arms


@pytest.mark.parametrize("arm", [{"on": 1}, {"on": True, "x": 1}, {}, {"on": "true"}])
def test_label_of_refuses(arm: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match="knob"):
        ArmSpace({"on": [True, False]}).label_of(arm)


def test_index_of_unknown_label_names_the_arms() -> None:
    with pytest.raises(ValueError, match="m=a"):
        ArmSpace({"m": ["a"]}).index("m=b")


@pytest.mark.parametrize(
    ("knobs", "word"),
    [
        ({}, "at least one knob"),
        ({"m": []}, "at least one level"),
        ({"m": "abc"}, "at least one level"),
        ({"m;": ["a"]}, "name"),
        ({"m": ["a", "a"]}, "twice"),
        ({"m": [1, 1.0]}, "twice"),
        ({"m": ["1", 1]}, "twice"),
        ({"m": ["a;b"]}, "free of"),
        ({"m": [float("nan")]}, "finite"),
        ({"m": [None]}, "finite"),
        ({"a": list(range(100)), "b": list(range(100))}, "10000 arms"),
    ],
)
def test_bad_knobs(knobs: dict[str, list[str]], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ArmSpace(knobs)


@pytest.mark.parametrize(
    ("ban", "word"),
    [({}, "at least one"), ({"x": 1}, "unknown knob"), ({"m": "z"}, "no level"), ({"m": "a"}, "every arm")],
)
def test_bad_forbidden(ban: dict[str, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ArmSpace({"m": ["a"]}, [ban])


def test_record_round_trip_keeps_types() -> None:
    arms = ArmSpace({"m": ["1", "x"], "k": [1, 2.5], "b": [True]}, [{"m": "x", "k": 2.5}])
    again = ArmSpace.from_record(arms.to_record())
    assert again == arms
    assert hash(again) == hash(arms)
    assert again.arms[0] == {"m": "1", "k": 1, "b": True}
    assert type(again.arms[0]["k"]) is int
