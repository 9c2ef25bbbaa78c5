from __future__ import annotations

import json
from array import array

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steersman.features import MAX_TEXT, Categorical, Embedding, FeatureSpec, Numeric, Text

SPEC = FeatureSpec(
    features=(
        Numeric(name="n", mean=2.0, scale=4.0),
        Numeric(name="chars", log=True),
        Categorical(name="lang", values=("de", "en", "true")),
        Embedding(name="e", dim=3),
        Text(name="prompt", dim=8, marks=False),
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
    spec = FeatureSpec(features=(Text(name="t", dim=16, marks=False),))
    x = spec.encode({"t": "Which model is cheapest?"})
    np.testing.assert_array_equal(x, spec.encode({"t": "which MODEL is cheapest"}))
    assert np.linalg.norm(x[:-1]) == pytest.approx(4.0, rel=1e-5)
    assert x.min() < 0 < x.max()
    assert not np.array_equal(x, spec.encode({"t": "cheapest is model which"}))  # pairs of words count


def test_the_hash_is_part_of_the_contract_between_agent_and_learner() -> None:
    """These bits may never change under the same feature spec."""
    spec = FeatureSpec(features=(Text(name="t", dim=16, marks=False),))
    assert np.flatnonzero(spec.encode({"t": "steersman"})).tolist() == [STEERSMAN_COLUMN, 16]
    assert np.sign(spec.encode({"t": "lange Wörter 漢字"}))[:-1].tolist() == GERMAN_AND_CHINESE


STEERSMAN_COLUMN = 12
GERMAN_AND_CHINESE = [0, 0, 1, 0, 0, 0, -1, -1, 0, -1, 0, 0, 0, 0, 0, -1]


def test_every_text_column_is_used_and_signs_are_even() -> None:
    spec = FeatureSpec(features=(Text(name="t", dim=32, marks=False),))
    words = np.array([spec.encode({"t": f"w{i}"})[:-1] for i in range(3200)])
    used = np.abs(np.sign(words)).sum(axis=0)
    assert used.min() > 60  # 100 expected, deviation 10
    assert used.max() < 140
    assert abs(np.sign(words).sum()) < 4 * np.sqrt(3200)


def test_marks_tell_length_code_and_mathematics() -> None:
    spec = FeatureSpec(features=(Text(name="t", dim=4),))
    assert spec.dim == 8
    assert spec.kinds == (*["text"] * 4, *["numeric"] * 3, "constant")

    def marks(text: str) -> list[float]:
        return spec.encode({"t": text})[4:7].tolist()

    prose = marks("Why do leaves turn yellow in autumn, and only in some countries")
    code = marks("def f(x):\n    return {'a': g(); }\n```")
    mathematics = marks("Solve $x^2 + 3 = 12$ with \\frac{1}{2}")
    assert prose[1:] == [0.0, 0.0]
    assert code[1] > max(mathematics[1], 0.5)
    assert mathematics[2] > max(code[2], 0.5)
    assert marks("a" * 243)[0] == pytest.approx((np.log(244) - 5.5) / 1.2, rel=1e-5)
    assert spec.encode({"t": ""}).tolist() == [0.0] * 7 + [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000_000,
        "{" * 5_000_000,
        "a " * 3_000_000,
        " " * 1000,
        "\x00" * 5000,
        "\ud800\udfff lone surrogates \udcff",
        "\u0130" * 4000,  # twice as long in lower case
        "e" + "\u0301" * 4000,
        "\U0001f469\u200d\U0001f4bb" * 2000,
        "\u202eright to left\u202c",
        "'; DROP TABLE policies; --",
        "\u221a" * 4000,
    ],
)
def test_hostile_texts(text: str) -> None:
    spec = FeatureSpec(features=(Text(name="t", dim=16),))
    x = spec.encode({"t": text})
    assert np.isfinite(x).all()
    assert np.abs(x).max() <= 10
    np.testing.assert_array_equal(x, spec.encode({"t": text}))


def test_only_the_beginning_of_a_text_is_looked_at() -> None:
    spec = FeatureSpec(features=(Text(name="t", dim=16),))
    head = "word " * (MAX_TEXT // 5)
    x, longer = spec.encode({"t": head}), spec.encode({"t": head + "and { more } words" * 1000})
    np.testing.assert_array_equal(np.delete(longer, 16), np.delete(x, 16))
    assert longer[16] > x[16]  # the length


def test_a_str_of_a_strange_class_is_read_as_the_text_it_is() -> None:
    class Strange(str):
        def __getitem__(self, key: object) -> str:
            raise RuntimeError("no")

        def __len__(self) -> int:
            return 10**18

        def lower(self) -> str:
            return "other" * 10**6

    spec = FeatureSpec(features=(Text(name="t", dim=16),))
    np.testing.assert_array_equal(spec.encode({"t": Strange("some text")}), spec.encode({"t": "some text"}))


def test_a_vector_may_come_in_any_form() -> None:
    spec = FeatureSpec(features=(Embedding(name="e", dim=3, scale=2.0),))
    expected = [1.0, -10.0, 0.5, 1.0]
    for value in (
        [2, -1e9, 1],
        (2.0, -1e9, 1.0),
        np.array([2.0, -1e9, 1.0], dtype=np.float32),
        array("d", [2.0, -1e9, 1.0]),
        memoryview(array("f", [2.0, -1e9, 1.0])),
    ):
        assert spec.encode({"e": value}).tolist() == expected
    for bad in ("abc", b"abc", bytearray(b"abc"), {1, 2, 3}, {1: 1, 2: 2, 3: 3}, [1, 2, "three"], [1, 2, 3j], [1, 2]):
        assert spec.encode({"e": bad}).tolist() == [0.0, 0.0, 0.0, 1.0]


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
