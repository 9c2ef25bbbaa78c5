"""A model call that went well and said nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding, Memory
from streams.detect.signs import EMPTY
from streams.trace_state import SpanRecord


class EmptyOutput:
    """Status OK, and no output token that is not reasoning. Calls of tools are output, embeddings have none to miss."""

    name: ClassVar[str] = "empty_output"
    severity: ClassVar[str] = "WARNING"
    signs: ClassVar[int] = EMPTY

    def __init__(self, settings: DetectorSettings) -> None:
        self._ignore = tuple(part.lower() for part in settings.empty_output.ignore)

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Take an empty call in; see `streams.detect.contract.TraceDetector`."""
        operation = span.operation.lower()
        if any(part in operation for part in self._ignore):
            return None
        return Finding(
            0,
            0,
            f"{span.operation or 'a model'} answered {span.agent or 'an agent'} without an error and without content: check the "
            "limit on output tokens, and treat it as a failure.",
            {"operation": span.operation, "span_id": span.span_id, "output_tokens": span.output_tokens},
        )
