"""The file that a price table is kept in (`steersman.prices`), as it is read and checked."""

from __future__ import annotations

import datetime as dt
import tomllib
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from steersman.errors import ConfigError

PICO_PER_MICRO: Final = 1_000_000
"""Millionths of a millionth: prices of a token are kept in picodollars, those of a call told in microdollars."""

_Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
_Writes = _Usd | dict[Annotated[str, Field(pattern=r"^[0-9]+[smhd]$")], _Usd]


class Rates(BaseModel):
    """Prices of tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Usd
    cached_input: _Usd | None = None
    cache_write: _Writes | None = None
    cache_write_default: str | None = None
    output: _Usd | None = None
    reasoning: _Usd | None = None

    @field_validator("input", "cached_input", "output", "reasoning")
    @classmethod
    def _exact(cls, value: Decimal | None) -> Decimal | None:
        if value is not None and value * PICO_PER_MICRO % 1:
            raise ValueError("has more than six decimals: prices are dollars per million tokens")
        return value


class Above(Rates):
    """Prices of requests of more than so many input tokens."""

    input_tokens: Annotated[int, Field(ge=0)]


class _Dated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    provider: str
    names: Annotated[list[str], Field(min_length=1)]
    since: Annotated[dt.date, Field(alias="from")]
    per_call: _Usd = Decimal(0)
    source: str = ""


class ModelPrice(_Dated, Rates):
    """One ``[[model]]`` entry of a table; prices in US dollars per million tokens."""

    above: list[Above] = []


class ToolPrice(_Dated):
    """One ``[[tool]]`` entry of a table."""


class Document(BaseModel):
    """A whole table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: list[ModelPrice] = []
    tool: list[ToolPrice] = []


def read_document(text: str, source: str) -> Document:
    """Read and check the text of a table.

    Parameters
    ----------
    text : str
        TOML.
    source : str
        Names the table in errors.

    Raises
    ------
    ConfigError
        Names the table, the entry and what is wrong.
    """
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    try:
        parsed = Document.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_say(problem)}" for problem in error.errors())) from error
    if not parsed.model and not parsed.tool:
        raise ConfigError(f"{source}: holds no price; write [[model]] or [[tool]] tables")
    return parsed


def inherit(tier: Above, price: ModelPrice) -> Rates:
    """Rates of a step: its default duration is that of the price, unless it says so itself."""
    if tier.cache_write_default is None and isinstance(tier.cache_write, dict):
        return tier.model_copy(update={"cache_write_default": price.cache_write_default})
    return tier


def _say(problem: Any) -> str:
    path = ""
    for step in problem["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    message = {"missing": "is required", "extra_forbidden": "unknown key"}.get(problem["type"], problem["msg"])
    return f"{path.lstrip('.')}: {message}"
