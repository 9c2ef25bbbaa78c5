"""What detectors of every sort have in common, and the contract of each sort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from learners.detector_settings import DetectorSettings
from streams.trace_state import Decision, FeedbackRecord, SpanRecord


class Finding(NamedTuple):
    """What a detector found.

    Attributes
    ----------
    value, threshold : float
        What was measured, and the bound it passed; unit: the detector's.
    message : str
        One sentence: what, and what to do.
    evidence : dict
        Ids and values that show it, JSON-ready.
    subject : str
        What of a policy it is about, e.g. an arm and a component; empty for traces.
    """

    value: float
    threshold: float
    message: str
    evidence: dict[str, Any]
    subject: str = ""


Memory = dict[Any, Any]
"""What detectors remember of one trace; each uses keys of its own."""


class Detector(Protocol):
    """A detector of any sort.

    Attributes
    ----------
    name : str
        As in the catalog and in alerts.
    severity : str
        A symbol of ``alert.avsc``.
    """

    name: ClassVar[str]
    severity: ClassVar[str]

    def __init__(self, settings: DetectorSettings) -> None: ...


class TraceDetector(Detector, Protocol):
    """Looks at the spans of a trace as they arrive.

    Attributes
    ----------
    signs : int
        Signs (`streams.detect.signs`) of the spans that it wants to see.
    """

    signs: ClassVar[int]

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Take a span in.

        Parameters
        ----------
        span
            A span with one of the signs.
        spans
            All spans of the trace so far, in the order of the log; `span` is the last.
        memory
            What it remembers of the trace. It must follow from the spans.
        """


class DecisionDetector(Detector, Protocol):
    """Looks at a decision whose reward closes."""

    def judge(
        self, decision: Decision, reward: Mapping[str, Any], feedback: Sequence[FeedbackRecord]
    ) -> Finding | None:
        """Look at a decision, its reward before any penalty, and all feedback of its trace."""


class PolicyDetector(Detector, Protocol):
    """Looks at the rewards of one policy; one object for each policy (or shard of one)."""

    def add(self, reward: Mapping[str, Any]) -> list[Finding]:
        """Take the next reward in."""

    def to_state(self) -> Any:
        """What it remembers, JSON-ready and bounded."""

    def from_state(self, state: Any) -> None:
        """Take back what `to_state` gave; ValueError, KeyError or TypeError when it is not that."""
