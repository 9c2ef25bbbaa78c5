from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steersman.features import Categorical, Embedding, FeatureSpec, Numeric, Text

SPEC = FeatureSpec(
    features=(
        Numeric(name="n", mean=2.0, scale=4.0),
        Numeric(name="chars", log=True),
        Categorical(name="lang", values=("de", "en", "true")),
        Embedding(name="e", dim=3),
        Text(name="prompt", dim=8),
    )
)


class Hostile:
    """An object whose every use raises."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


def test_columns() -> None:
    x = SPEC.encode({"n": 10, "chars": np.e - 1, "lang": "en", "e": [1, 2, 3], "prompt": ""})
    np.testing.assert_allclose(x, [2, 1, 0, 1, 0, 1, 2, 3, *[0] * 8, 1], rtol=1e-6)
    assert x.dtype == np.float32
    assert SPEC.dim == len(x) == len(SPEC.kinds) == 17
    assert SPEC.kinds[0] == "numeric"
    assert SPEC.kinds[-1] == "constant"


def test_text_is_stable_signed_and_scaled() -> None:
    spec = FeatureSpec(features=(Text(name="t", dim=16),))
    x = spec.encode({"t": "Which model is cheapest?"})
    np.testing.assert_array_equal(x, spec.encode({"t": "which MODEL is cheapest"}))
    assert np.linalg.norm(x[:-1]) == pytest.approx(4.0, rel=1e-5)
    assert x.min() < 0 < x.max()
    assert not np.array_equal(x, spec.encode({"t": "cheapest is model which"}))  # pairs of words count
    # the hash is part of the contract between agent and learner: these bits may never change
    assert np.flatnonzero(spec.encode({"t": "steersman"})).tolist() == [STEERSMAN_COLUMN, 16]


STEERSMAN_COLUMN = 8


def test_unusable_values_are_zero() -> None:
    nothing = SPEC.encode({})
    assert nothing.tolist() == [0] * 16 + [1]
    for bad in (None, Hostile(), "x" * 3, b"", float("nan"), float("inf"), 10**400, [1, 2], [[1, 2, 3]], object()):
        x = SPEC.encode({"n": bad, "chars": bad, "lang": bad, "e": bad, "prompt": None})
        np.testing.assert_array_equal(x, nothing)
    np.testing.assert_array_equal(SPEC.encode({"e": [1.0, float("nan"), 2.0], "chars": -5}), nothing)


def test_absurd_values_are_limited() -> None:
    x = SPEC.encode({"n": 1e300, "chars": 1e300, "e": [1e300, -1e300, 0]})
    assert np.isfinite(x).all()
    assert np.abs(x).max() == 10


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["n", "chars", "lang", "e", "prompt", "z"]), json_like))
def test_never_raises_and_always_finite(context: dict[str, object]) -> None:
    x = SPEC.encode(context)
    assert x.shape == (17,)
    assert np.isfinite(x).all()
    assert x[-1] == 1
    assert set(json.loads(SPEC.loggable(context))) <= {"n", "chars", "lang"}


def test_loggable_holds_no_text() -> None:
    context = {"n": 3, "lang": "fr" * 500, "e": [1, 2, 3], "prompt": "secret", "chars": Hostile()}
    logged = json.loads(SPEC.loggable(context))
    assert logged == {"n": 3.0, "lang": "fr" * 100}
    assert json.loads(SPEC.loggable({"lang": True})) == {"lang": "true"}


def test_json_round_trip() -> None:
    again = FeatureSpec.model_validate_json(SPEC.model_dump_json())
    assert again == SPEC
    assert hash(again) == hash(SPEC)
    assert FeatureSpec().dim == 1


@pytest.mark.parametrize(
    "features",
    [
        [{"kind": "numeric", "name": "n"}, {"kind": "text", "name": "n"}],
        [{"kind": "numeric", "name": "n", "scale": 0}],
        [{"kind": "numeric", "name": "n", "mean": float("nan")}],
        [{"kind": "categorical", "name": "n", "values": ["a", "a"]}],
        [{"kind": "categorical", "name": "n", "values": []}],
        [{"kind": "embedding", "name": "n", "dim": 0}],
        [{"kind": "embedding", "name": f"n{i}", "dim": 512} for i in range(4)],
        [{"kind": "what", "name": "n"}],
        [{"kind": "numeric", "name": "n", "extra": 1}],
    ],
)
def test_bad_specs(features: list[dict[str, object]]) -> None:
    with pytest.raises(ValidationError):
        FeatureSpec.model_validate({"features": features})
