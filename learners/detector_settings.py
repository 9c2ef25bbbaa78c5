"""Thresholds of the detectors (`streams.detect`): the ``[detectors]`` table of ``policies.toml``.

Every key has a default; the defaults were set on seeds that `benchmarks.detectors` does not use.

.. code-block:: toml

    [detectors]
    off = []                    # names of detectors that are not to run
    brakes = ["behaviour_drift"]    # which take a policy that decides back to its baseline
    alerts_per_minute = 60      # of one detector and tenant, per partition; further ones are counted, and told by the next alert

    [detectors.brake]           # detectors of traces brake together, when they have hit
    hits = 5                    # so many
    of = 50                     # of the last so many decisions of a policy
    [detectors.tool_loop]
    repeats = 4                 # same operation and args_hash, with nothing new called in between
    most = 12                   # the same, whatever else is called
    [detectors.ping_pong]
    switches = 6                # between the same two agents, without a tool call that succeeds in between
    [detectors.retry_storm]
    failures = 4                # of one operation in a row
    within_s = 120.0
    [detectors.runaway]
    cost_micro_usd = 5_000_000  # of a trace
    depth = 16                  # spans inside each other
    [detectors.context_overflow]
    full = 1.0                  # share of the context window in use
    peak = 0.9                  # content was cut away when two calls in a row, after one above this share,
    drop = 0.4                  #   use so much less of what that one used
    [detectors.empty_output]
    ignore = ["embed"]          # operations whose name contains one of these have no output to miss
    [detectors.plausible_but_wrong]
    below = 0.3                 # of the policy's reward metric, where nothing failed
    metrics = {}                # of other metrics, by name: { faithfulness = 0.5 }
    [detectors.context_degradation]
    low = 0.4                   # quality of decisions whose fullest context was below this share ...
    high = 0.7                  #   ... against that above this one
    drop = 0.1                  # difference that matters, in the metric's unit
    sigmas = 4.0                # and how sure it must be
    least = 30                  # rewards on either side
    [detectors.behaviour_drift]
    warm_up = 60                # rewards of an arm that say what is normal
    slack = 0.5                 # change that is let pass, in standard deviations
    threshold = 35.0            # of the Page-Hinkley statistic, in standard deviations
    [detectors.feedback_collapse]
    window = 200                # decisions that had a choice
    share = 0.95                # of one arm
    exploring = 0.002           # mean probability of all other arms, below which nothing is tried any more
    worse = 0.1                 # or: another arm's mean utility is better by so many standard deviations, and sure to be
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

DetectorName = Literal[
    "tool_loop",
    "ping_pong",
    "retry_storm",
    "runaway",
    "context_overflow",
    "empty_output",
    "plausible_but_wrong",
    "context_degradation",
    "behaviour_drift",
    "feedback_collapse",
]
NAMES: tuple[str, ...] = get_args(DetectorName)
PenaltyName = Literal[
    "tool_loop",
    "ping_pong",
    "retry_storm",
    "runaway",
    "context_overflow",
    "empty_output",
    "plausible_but_wrong",
]
"""Detectors whose hits belong to a decision, so that they can be charged to it."""
PENALTIES: tuple[str, ...] = get_args(PenaltyName)

_Share = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Few = Annotated[int, Field(ge=2, le=4096)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrakeSettings(_Table):
    """See the module."""

    hits: Annotated[int, Field(ge=1, le=1024)] = 5
    of: Annotated[int, Field(ge=1, le=1024)] = 50

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.hits > self.of:
            raise ValueError(f"of {self.of} decisions never {self.hits} can be hit: write hits of at most {self.of}")
        return self


class ToolLoopSettings(_Table):
    """See the module."""

    repeats: _Few = 4
    most: _Few = 12


class PingPongSettings(_Table):
    """See the module."""

    switches: _Few = 6


class RetryStormSettings(_Table):
    """See the module."""

    failures: _Few = 4
    within_s: _Positive = 120.0


class RunawaySettings(_Table):
    """See the module."""

    cost_micro_usd: Annotated[int, Field(ge=1)] = 5_000_000
    depth: _Few = 16


class ContextOverflowSettings(_Table):
    """See the module."""

    full: _Share = 1.0
    peak: _Share = 0.9
    drop: _Share = 0.4


class EmptyOutputSettings(_Table):
    """See the module."""

    ignore: list[str] = ["embed"]


class PlausibleButWrongSettings(_Table):
    """See the module."""

    below: Annotated[float, Field(allow_inf_nan=False)] = 0.3
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}


class ContextDegradationSettings(_Table):
    """See the module."""

    low: _Share = 0.4
    high: _Share = 0.7
    drop: _Positive = 0.1
    sigmas: _Positive = 4.0
    least: _Few = 30


class BehaviourDriftSettings(_Table):
    """See the module."""

    warm_up: _Few = 60
    slack: _Positive = 0.5
    threshold: _Positive = 35.0


class FeedbackCollapseSettings(_Table):
    """See the module."""

    window: _Few = 200
    share: _Share = 0.95
    exploring: _Share = 0.002
    worse: _Positive = 0.1


class DetectorSettings(_Table):
    """The ``[detectors]`` table."""

    off: list[DetectorName] = []
    brakes: list[DetectorName] = []
    brake: BrakeSettings = BrakeSettings()
    alerts_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
    tool_loop: ToolLoopSettings = ToolLoopSettings()
    ping_pong: PingPongSettings = PingPongSettings()
    retry_storm: RetryStormSettings = RetryStormSettings()
    runaway: RunawaySettings = RunawaySettings()
    context_overflow: ContextOverflowSettings = ContextOverflowSettings()
    empty_output: EmptyOutputSettings = EmptyOutputSettings()
    plausible_but_wrong: PlausibleButWrongSettings = PlausibleButWrongSettings()
    context_degradation: ContextDegradationSettings = ContextDegradationSettings()
    behaviour_drift: BehaviourDriftSettings = BehaviourDriftSettings()
    feedback_collapse: FeedbackCollapseSettings = FeedbackCollapseSettings()
