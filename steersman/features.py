"""From a request's context to the numbers a policy sees.

A `FeatureSpec` lists transforms; their columns, in order, and a last column that is always 1 make `x`, float32 (d,).
Every transform gives columns of a variance of about 1, so that one set of shrinkage strengths suits them all.
Whatever cannot be used (missing, wrong type, not finite, too long) becomes 0, which is the mean: deciding never fails
because of its input.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

LIMIT = 10.0
"""Entries of x lie in [-LIMIT, LIMIT]: one absurd input must not own a regression."""

MAX_TEXT = 4000
"""Characters of a text that are looked at."""

MAX_LOG_TEXT = 200
"""Characters of a categorical value kept by `FeatureSpec.loggable`."""

ColumnKind = Literal["numeric", "categorical", "embedding", "text", "constant"]

_WORD = re.compile(r"\w+")
_HEAD = slice(MAX_TEXT)
_ONE, _FIRST, _SECOND = np.uint64(1), np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_CODE_SIGNS = ("{", "}", ";", "()", "==", "=>", "->", "::", "</", "```", "def ", "import ", "return ", "SELECT ")
_MATH_SIGNS = (
    "\\",
    "$",
    "^",
    "=",
    "+",
    "\u221a",
    "\u2211",
    "\u222b",
    "\u2264",
    "\u2265",
    "\u03c0",
    "\u00d7",
    *"0123456789",
)
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Dim = Annotated[int, Field(ge=1, le=512)]


class _Transform(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: _Name


class Numeric(_Transform):
    """One number: (v - mean) / scale, of log(1 + v) instead of v when `log` (negative values then count as missing)."""

    kind: Literal["numeric"] = "numeric"
    mean: _Finite = 0.0
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    log: bool = False

    @property
    def width(self) -> int:
        """Number of columns."""
        return 1

    def place(self, value: object, row: list[float], at: int) -> None:
        """Write the column of `value` into `row` (zeros before) at index `at`."""
        number = _number(value)
        if number is None or (self.log and number < 0):
            return
        scaled = ((math.log1p(number) if self.log else number) - self.mean) / self.scale
        row[at] = -LIMIT if scaled < -LIMIT else LIMIT if scaled > LIMIT else scaled


class Categorical(_Transform):
    """One-hot columns, one per listed value; any other value gives zeros."""

    kind: Literal["categorical"] = "categorical"
    values: tuple[str, ...] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.values)) != len(self.values):
            raise ValueError("a value is listed twice")
        return self

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.values)

    def place(self, value: object, row: list[float], at: int) -> None:
        """Write the columns of `value` into `row` (zeros before) from index `at` on."""
        text = _category(value)
        if text in self.values:
            row[at + self.values.index(text)] = 1.0


class Embedding(_Transform):
    """A vector of `dim` numbers, each divided by `scale` (choose it so that an entry's deviation is about 1).

    Whatever numpy makes an array of: a list, an ndarray, an ``array.array``, a tensor on the CPU.
    """

    kind: Literal["embedding"] = "embedding"
    dim: _Dim
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.dim

    def fill(self, value: object, out: NDArray[np.float32]) -> None:
        """Write the columns of `value` into `out` (zeros before)."""
        if isinstance(value, str | bytes | bytearray) or len(value) != self.dim:  # type: ignore[arg-type]
            return
        vector = np.asarray(value, dtype=np.float64)
        if vector.shape == (self.dim,) and np.isfinite(vector).all():
            np.minimum(np.maximum(vector / self.scale, -LIMIT), LIMIT, out=out, casting="same_kind")


class Text(_Transform):
    """Word unigrams and bigrams hashed with signs into `dim` columns (Weinberger et al. 2009), and three marks.

    The vector of words is scaled to length sqrt(dim). The marks, left out when `marks` is false, are the length,
    (log(1 + characters) - 5.5) / 1.2, and how much looks like code and like mathematics, log(1 + signs found) / 1.5.
    Only the first `MAX_TEXT` characters are looked at (the length is that of the whole text), each a fixed number of
    times. An empty text counts as missing.

    Notes
    -----
    A word's code is the CRC-32 of its UTF-8 bytes, a pair's a sum of two odd multiples; both go through the finalizer
    of SplitMix64 (Steele, Lea, Flood 2014), whose last bit is the sign. The same on every machine and version.
    """

    kind: Literal["text"] = "text"
    dim: _Dim = 32
    marks: bool = True

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.dim + 3 * self.marks

    @property
    def kinds(self) -> list[ColumnKind]:
        """Kinds of the columns."""
        words: list[ColumnKind] = ["text"] * self.dim
        marks: list[ColumnKind] = ["numeric"] * (3 * self.marks)
        return words + marks

    def fill(self, value: object, out: NDArray[np.float32]) -> None:
        """Write the columns of `value` into `out` (zeros before)."""
        if not isinstance(value, str) or not str.__len__(value):
            return
        # Not value[...]: a subclass of str may do anything there.
        text = str.__getitem__(value, _HEAD)
        words = _WORD.findall(text.lower())
        if words:
            codes = np.array(list(map(_word_code, words)), dtype=np.uint64)
            pairs = codes[:-1] * _FIRST + codes[1:] * _SECOND
            mixed = _mix(np.concatenate((codes, pairs)))
            columns = ((mixed >> _ONE) % np.uint64(self.dim)).astype(np.intp)
            signs = (mixed & _ONE).astype(np.float64)
            signs += signs
            signs -= 1.0
            sums = np.bincount(columns, signs, self.dim)
            square = float(sums.dot(sums))
            if square > 0:
                scaled = sums * math.sqrt(self.dim / square)
                np.minimum(np.maximum(scaled, -LIMIT), LIMIT, out=out[: self.dim], casting="same_kind")
        if self.marks:
            count = text.count
            out[self.dim :] = (
                min((math.log1p(str.__len__(value)) - 5.5) / 1.2, LIMIT),
                math.log1p(sum(map(count, _CODE_SIGNS))) / 1.5,
                math.log1p(sum(map(count, _MATH_SIGNS))) / 1.5,
            )


Transform = Annotated[Numeric | Categorical | Embedding | Text, Field(discriminator="kind")]


class FeatureSpec(BaseModel):
    """How a context becomes x. Frozen; ``model_dump_json`` and ``model_validate_json`` are each other's inverse.

    Parameters
    ----------
    features : tuple of Numeric, Categorical, Embedding, Text
        In column order; names are distinct. Empty means x = (1,): the policy ignores the context.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    features: tuple[Transform, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"feature {name!r} is listed twice")
        if self.dim > 2048:
            raise ValueError(f"the features make {self.dim} columns, more than 2048")
        return self

    @cached_property
    def dim(self) -> int:
        """Length d of x, the last constant 1 included."""
        return sum(feature.width for feature in self.features) + 1

    @cached_property
    def _scalars(self) -> list[tuple[str, int, Numeric | Categorical, float, float]]:
        """Features that fill a row number by number, with their first columns.

        Then mean and scale; a scale of 0 stands for everything that is not just (v - mean) / scale.
        """
        return [
            (f.name, at, f, f.mean, f.scale) if isinstance(f, Numeric) and not f.log else (f.name, at, f, 0.0, 0.0)
            for at, f in self._placed
            if isinstance(f, Numeric | Categorical)
        ]

    @cached_property
    def _vectors(self) -> list[tuple[str, int, Embedding | Text]]:
        """Features that fill many columns at once, with their first columns."""
        return [(f.name, at, f) for at, f in self._placed if isinstance(f, Embedding | Text)]

    @property
    def _placed(self) -> list[tuple[int, Transform]]:
        starts = accumulate((feature.width for feature in self.features), initial=0)
        return list(zip(starts, self.features, strict=False))

    def column(self, name: str) -> int:
        """First column of a feature; KeyError when there is none of the name."""
        for at, feature in self._placed:
            if feature.name == name:
                return at
        raise KeyError(name)

    @property
    def kinds(self) -> tuple[ColumnKind, ...]:
        """Kind of each of the d columns; the last is ``constant``."""
        out: list[ColumnKind] = []
        for feature in self.features:
            out += feature.kinds if isinstance(feature, Text) else [feature.kind] * feature.width
        return (*out, "constant")

    def encode(self, context: Mapping[str, object]) -> NDArray[np.float32]:
        """Encode a context; never raises.

        Parameters
        ----------
        context : mapping of str to object
            What is known when deciding; names that are not features are ignored.

        Returns
        -------
        float32 array (d,)
            Finite, within [-10, 10], last entry 1. What could not be used is 0.
        """
        # One list, made an array at once: an array's entries are slow to set one by one.
        row = [0.0] * self.dim
        row[-1] = 1.0
        for name, at, scalar, mean, scale in self._scalars:
            try:
                value = context[name]
                if scale and type(value) is float:  # nearly always, and cheaper here than in a call
                    scaled = (value - mean) / scale
                    if -LIMIT <= scaled <= LIMIT:
                        row[at] = scaled
                        continue
                scalar.place(value, row, at)
            except Exception:  # noqa: S112  # a caller's object may raise anything (missing key, odd __float__): the mean
                continue
        x = np.array(row, dtype=np.float32)
        for name, at, vector in self._vectors:
            columns = x[at : at + vector.width]
            try:
                vector.fill(context[name], columns)
            except Exception:  # as above
                columns[:] = 0.0
        return x

    def loggable(self, context: Mapping[str, object]) -> str:
        """JSON object of the numeric and categorical features only: never texts or embeddings. Never raises."""
        out: dict[str, float | str] = {}
        for feature in self.features:
            try:
                value = context[feature.name]
                if isinstance(feature, Numeric):
                    number = _number(value)
                    if number is not None:
                        out[feature.name] = number
                elif isinstance(feature, Categorical):
                    text = _category(value)
                    if text is not None:
                        out[feature.name] = text[:MAX_LOG_TEXT]
            except Exception:  # noqa: S112  # as in encode: what cannot be read is not logged
                continue
        return json.dumps(out, allow_nan=False)


def _number(value: object) -> float | None:
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, str | bytes) or value is None:
        return None
    number = float(value)  # type: ignore[arg-type]  # callers catch what a strange object raises
    return number if math.isfinite(number) else None


def _category(value: object) -> str | None:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str | int | float | np.integer | np.floating):
        return str(value)
    return None


@lru_cache(maxsize=16384)
def _word_code(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _mix(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64: every bit of the code changes every bit of the result."""
    codes ^= codes >> np.uint64(30)
    codes *= np.uint64(0xBF58476D1CE4E5B9)
    codes ^= codes >> np.uint64(27)
    codes *= np.uint64(0x94D049BB133111EB)
    codes ^= codes >> np.uint64(31)
    return codes
