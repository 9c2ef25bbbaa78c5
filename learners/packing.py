"""What of a learner of sums goes into its state, and where in it the numbers lie (`learners.state` has the bytes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace

from . import state
from .control import Control
from .moments import Moments
from .protocol import Place
from .spec import PolicySpec

Float = NDArray[np.float64]


class Numbers(NamedTuple):
    """The numbers of a state.

    Attributes
    ----------
    sums : float64 array (R, W)
        Those that are not empty, of the rows that the header lists.
    inherited : float64 array (K * 2 * W,)
        What the epoch began with; none mostly.
    pacing : float64 array
        Of the ceilings' accounts.
    """

    sums: Float
    inherited: Float
    pacing: Float


class Packable(Protocol):
    """What is packed: a `learners.policy_learner.PolicyLearner`, whose attributes these are."""

    spec: PolicySpec
    epoch: int
    since: int
    began: dict[int, Place]
    sources: dict[int, Place]
    applied_hash: int
    moments: Moments
    control: Control

    @property
    def inherited(self) -> Float:
        """See there."""

    @property
    def version(self) -> int:
        """See there."""


def pack_learner(learner: Packable, wakes: bool) -> bytes:
    """A learner's state; `wakes`: whether it began with arms that were new."""
    moments, spec = learner.moments, learner.spec
    rows = moments.occupied()
    control, pacing = learner.control.dump()
    sums = moments.sums.reshape(-1, moments.width)[rows]
    header = {
        "key": spec.key,
        "lineage": spec.lineage,
        "epoch": learner.epoch,
        "version": learner.version,
        "applied_hash": learner.applied_hash,
        "began": state.vector_to_json(learner.began),
        "sources": state.vector_to_json(learner.sources),
        "rows": rows,
        "arms": spec.arms.to_record(),
        "columns": spec.columns,
        "control": control,
        "inherited": len(learner.inherited) > 0,
        "wakes": wakes,
    }
    # What few learners have is left out where there is none of it, so that states stay what they were.
    if learner.since != learner.epoch:
        header["since"] = learner.since
    if spec.quarantine:
        header["quarantined"] = list(spec.quarantine)
    return state.pack(header, np.concatenate([sums.ravel(), learner.inherited.ravel(), pacing]))


def numbers_of(header: Mapping[str, Any], numbers: Float, width: int) -> Numbers:
    """Take the numbers of a state apart; StateError when they are not as many sums as the header lists.

    Parameters
    ----------
    header : mapping
        Its header.
    numbers : float64 array
        All of them, in any shape.
    width : int
        W, numbers of one row of sums.
    """
    numbers = numbers.ravel()
    end = len(header["rows"]) * width
    inherited = len(ArmSpace.from_record(header["arms"])) * 2 * width if header.get("inherited") else 0
    if len(numbers) < end + inherited:
        raise state.StateError(f"the state holds {len(numbers)} sums, which the spec does not make")
    return Numbers(numbers[:end].reshape(-1, width), numbers[end : end + inherited], numbers[end + inherited :])


def moments_of(header: Mapping[str, Any], numbers: Float, dim: int) -> tuple[ArmSpace, Moments]:
    """The arms of a state, and its sums over x of `dim` entries."""
    arms = ArmSpace.from_record(header["arms"])
    moments = Moments(len(arms), dim)
    moments.sums.reshape(-1, moments.width)[header["rows"]] = numbers_of(header, numbers, moments.width).sums
    return arms, moments
