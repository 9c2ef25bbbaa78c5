"""What a check of the doctor found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    ok = "ok"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes
    ----------
    check
        Low-cardinality name of the check, e.g. `topic.config`.
    level
        How bad it is.
    what
        What was looked at and found.
    fix
        What to do; empty only when nothing is wrong.
    """

    check: str
    level: Level
    what: str
    fix: str = ""


def fine(check: str, what: str) -> Finding:
    """Make a finding that all is well."""
    return Finding(check, Level.ok, what)


def warning(check: str, what: str, fix: str) -> Finding:
    """Make a finding that will do harm one day."""
    return Finding(check, Level.warning, what, fix)


def problem(check: str, what: str, fix: str) -> Finding:
    """Make a finding that does harm now."""
    return Finding(check, Level.problem, what, fix)


Check = Callable[[], Iterable[Finding]]
