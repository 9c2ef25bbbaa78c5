"""Learners by name, from `learners.catalog`.

A learner is a class with the constructor and methods of `learners.protocol.Learner`; `learners.policy_learner.PolicyLearner` is
one. It is imported when a policy first asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from steersman.errors import ConfigError

from .catalog import LEARNERS
from .guarded import GuardedLearner
from .operated import OperatedLearner
from .protocol import Learner
from .spec import PolicySpec


def learner_class(name: str) -> type[Learner]:
    """The learner of this name; what follows a colon in it is the learner's own. ConfigError lists the names when there is none."""
    known = LEARNERS.get(name.partition(":")[0])
    if known is None:
        raise ConfigError(f"no learner is called {name!r}; the learners are {', '.join(sorted(LEARNERS))}")
    module, _, attribute = known.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"learner = {name!r} needs {error.name}, which is not installed here: pip install 'steersman[neural]' where the "
            "workers run"
        ) from error
    return cast("type[Learner]", getattr(found, attribute))


def make_learner(spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> Learner:
    """A fresh learner for a policy, in an epoch that began after the rewards up to `began`; under its guard, if it has one."""
    return GuardedLearner.over(spec, learner_class(spec.learner)(spec, epoch, began))


def restore_learner(spec: PolicySpec, data: bytes) -> Learner:
    """A policy's learner, from its state."""
    learner = GuardedLearner.over(spec, learner_class(spec.learner).from_state(spec, data), data)
    return OperatedLearner.over(spec, learner, data)
