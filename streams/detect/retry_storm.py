"""An operation that fails again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding, Memory
from streams.detect.signs import FAILED
from streams.trace_state import SpanRecord

_BACK: Final = 512
"""Spans that are looked back at."""


class RetryStorm:
    """Failures of one operation in a row, within some time. One that succeeds in between ends the row."""

    name: ClassVar[str] = "retry_storm"
    severity: ClassVar[str] = "WARNING"
    signs: ClassVar[int] = FAILED

    def __init__(self, settings: DetectorSettings) -> None:
        self._failures = settings.retry_storm.failures
        self._within_us = int(settings.retry_storm.within_s * 1_000_000)

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Take a failed call in; see `streams.detect.contract.TraceDetector`."""
        failed, first = 0, span.ts
        for before in reversed(spans[-_BACK:]):
            if not before.work or before.operation != span.operation:
                continue
            if not before.signs & FAILED or span.ts - before.ts > self._within_us:
                break
            failed += 1
            first = min(first, before.ts)
        if failed < self._failures:
            return None
        return Finding(
            failed,
            self._failures,
            f"{span.operation or 'an operation'} of {span.agent or 'an agent'} failed {failed} times in a row within "
            f"{(span.ts - first) / 1e6:.1f} s: back off, or give up and say so.",
            {"operation": span.operation, "failures": failed, "took_us": span.ts - first},
        )
