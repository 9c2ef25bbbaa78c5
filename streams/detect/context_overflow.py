"""A context window that is full, or that had to be cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding, Memory
from streams.detect.signs import CONTEXT, OVERFLOW
from streams.trace_state import SpanRecord


class ContextOverflow:
    """A call that filled its context window or failed because of it, or one after which content was cut away.

    Cut away: after a call above the share `peak`, the next two calls of the same agent and operation use less by `drop`. One
    small call in between, for something else, is not that.
    """

    name: ClassVar[str] = "context_overflow"
    severity: ClassVar[str] = "WARNING"
    signs: ClassVar[int] = CONTEXT | OVERFLOW

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings.context_overflow

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Take a call in; see `streams.detect.contract.TraceDetector`."""
        settings, fill = self._settings, span.fill
        if span.signs & OVERFLOW:
            return self._found(span, 1.0, settings.full, "failed because its context window was too small", {})
        if fill is None:
            return None
        if fill >= settings.full:
            return self._found(span, fill, settings.full, "filled its context window", {})
        place = "peak", span.agent, span.operation
        peak, lower = memory.get(place, (0.0, 0))
        if fill >= settings.peak:
            memory[place] = (max(peak, fill) if not lower else fill, 0)
        elif peak:
            if fill > peak * (1 - settings.drop):
                memory[place] = (peak, 0)
            elif lower:
                del memory[place]
                return self._found(
                    span, fill, peak * (1 - settings.drop), "went on with much less context than it had", {"peak": peak}
                )
            else:
                memory[place] = (peak, 1)
        return None

    def _found(self, span: SpanRecord, fill: float, threshold: float, what: str, evidence: dict[str, float]) -> Finding:
        return Finding(
            fill,
            threshold,
            f"{span.operation or 'a call'} of {span.agent or 'an agent'} {what}: what no longer fits is lost to the agent; "
            "retrieve less, or summarise before.",
            {"operation": span.operation, "fill": fill, "span_id": span.span_id, **evidence},
        )
