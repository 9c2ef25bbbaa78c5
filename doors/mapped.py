"""What to make of OTLP, and what became of a request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from steersman.finalize import finalize
from steersman.redaction import RedactionFailed, Redactor

_MAX_PROBLEMS: Final = 5


@dataclass(frozen=True)
class Rules:
    """What to make of spans.

    Attributes
    ----------
    tenant
        Tenant of the events: that of the door, never what the spans say.
    named
        Tenant that the request as a whole names; empty when it names none.
    capture_content
        Whether to keep what people and models said: prompts, answers, arguments, comments.
    end_at_root
        Whether the end of a root span is the end of its trace.
    keep_other
        Whether to keep spans that are about no model, tool, retrieval or agent (as AGENT); their children may be.
    redactor
        Takes secrets and personal data out of the texts, as the tracer's does; they stay as they are without one.
    """

    tenant: str = "default"
    named: str = ""
    capture_content: bool = False
    end_at_root: bool = True
    keep_other: bool = True
    redactor: Redactor | None = None


@dataclass
class Mapped:
    """What became of a request.

    Attributes
    ----------
    events
        Records of ``trace_event.avsc``, complete and checked.
    taken
        Spans or log records that were used.
    refused
        Spans or log records that cannot be used.
    problems
        What was wrong with the first few of those.
    counters
        What had to be left out of the events.
    redactor
        Of the rules.
    strangers
        Events that name another tenant, each with what is said about that; they are among the refused.
    """

    redactor: Redactor | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    taken: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    strangers: list[tuple[dict[str, Any], str]] = field(default_factory=list)

    def turn_away(self, made: Mapped, why: str) -> None:
        """Put the events of a span aside that names another tenant."""
        self.refuse(why)
        self.strangers += [(event, self._redacted(why)) for event in made.events]

    def _redacted(self, why: str) -> str:
        """What is kept of it: it names a span and a tenant as the sender wrote them."""
        try:
            return why if self.redactor is None else self.redactor.text(why)
        except RedactionFailed:
            return "tenant_mismatch: what it names could not be redacted"

    def refuse(self, what: str) -> None:
        """Note a span that cannot be used."""
        self.refused += 1
        self.warn(what)

    def warn(self, what: str) -> None:
        """Note what was wrong with a span that is used all the same."""
        self.counters["problems"] += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(what)

    def add(self, record: dict[str, Any]) -> None:
        """Add an event after making it fit the contract.

        Raises
        ------
        InvalidRecord
            When it cannot be made to.
        """
        left_out: Counter[str] = Counter()
        clean = finalize(record, left_out, self.redactor)
        self.counters.update(left_out)
        self.events.append(clean)
