"""The table ``[policy.prior]`` of a policies file: what is expected of levels before the first reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Quality = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Expected = Mapping[str, Mapping[str, float]]
"""Knob -> text of a level -> mean."""


class PriorSpec(BaseModel):
    """Means of levels as somebody knows them: from an evaluation set, another policy, or a price list.

    Attributes
    ----------
    events : float
        Rewards of each level that its declared quality is worth. For means of an evaluation set: its number of prompts, or less where
        its prompts are not those of the service.
    quality : mapping
        Knob -> level -> mean quality of requests answered with it, the other knobs as usual; unit: the metric's.
    cost_micro_usd, latency_us : mapping
        Likewise; believed until the level's own rewards tell, which one or two do. Units: millionths of a US dollar, microseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = 20.0
    quality: dict[str, dict[str, _Quality]] = {}
    cost_micro_usd: dict[str, dict[str, _Amount]] = {}
    latency_us: dict[str, dict[str, _Amount]] = {}

    @property
    def tables(self) -> Mapping[str, Expected]:
        """What is declared, by component."""
        return {"quality": self.quality, "cost_micro_usd": self.cost_micro_usd, "latency_us": self.latency_us}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(levels for knobs in self.tables.values() for levels in knobs.values()):
            raise ValueError("declares nothing: add a table such as [policy.prior.quality.model], or take it out")
        return self
