"""The table ``[policy.guard]`` of a policies file: how a policy earns the right to decide, and loses it."""

from __future__ import annotations

import hashlib
import itertools
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_Count = Annotated[int, Field(ge=0, le=10_000_000, strict=True)]
_Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class GuardSpec(BaseModel):
    """Settings of a guard. Counts are rewards that taught something; without the table a policy is live from the start.

    Attributes
    ----------
    start : {"apprentice", "shadow", "canary", "live"}
        Stage in which a policy begins.
    apprentice : int
        Rewards of the service's own choices to learn from before shadow.
    shadow : int
        Rewards in shadow before the first canary.
    shares : list of float
        Shares of the traces that follow the policy in canary, one step after the other, growing.
    control : float
        Share of the traces that stays with the baseline when live; 0 leaves that to the routers' own holdout.
    alpha : float
        Chance of ever going live with a policy that is no better than the baseline, all attempts together.
    false_alarm : float
        Rollback: one over the comparisons that pass, on the mean, before a policy as good as the baseline is rolled back.
    tolerance : float
        How much worse than the baseline is still let pass, in standard deviations of a reward.
    quality_span : float
        Largest minus smallest quality that can be; promotion counts on it.
    cooldown : int
        Rewards in shadow after a rollback; doubled at each further one.
    freeze : bool
        Publish what was learned up to now, and nothing more until this is taken out; learning goes on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Literal["apprentice", "shadow", "canary", "live"] = "apprentice"
    apprentice: _Count = 200
    shadow: _Count = 100
    shares: Annotated[tuple[_Share, ...], Field(min_length=1, max_length=10)] = (0.1, 0.5)
    control: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.1
    alpha: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.05
    false_alarm: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.001
    tolerance: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.1
    quality_span: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    cooldown: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] = 500
    freeze: bool = False

    @field_validator("shares")
    @classmethod
    def _growing(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(b <= a for a, b in itertools.pairwise(shares)):
            raise ValueError("each share must be larger than the one before")
        return shares

    @property
    def digest(self) -> str:
        """16 hex digits of all that what the guard does depends on; `freeze` only stops the publishing."""
        text = self.model_dump_json(exclude={"freeze"})
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
