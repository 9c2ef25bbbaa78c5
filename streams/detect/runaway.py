"""A trace that costs too much, or nests too deep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding, Memory
from streams.trace_state import SpanRecord

EVERY: Final = 16
"""Depth is looked at whenever so many more spans have come."""


class Runaway:
    """Sum of costs above its bound, or spans inside each other beyond theirs.

    `streams.detect.trace_watch` calls it when the sum has passed the bound, and for the depth now and then.
    """

    name: ClassVar[str] = "runaway"
    severity: ClassVar[str] = "CRITICAL"
    signs: ClassVar[int] = 0

    def __init__(self, settings: DetectorSettings) -> None:
        self.cost_micro_usd = settings.runaway.cost_micro_usd
        self.depth = settings.runaway.depth

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Look at cost and depth of all spans; see `streams.detect.contract.TraceDetector`."""
        cost = sum(one.cost_micro_usd for one in spans)
        if cost > self.cost_micro_usd:
            return Finding(
                cost,
                self.cost_micro_usd,
                f"the trace has cost {cost / 1e6:.2f} dollars in {len(spans)} spans: stop it, and give the agent a budget.",
                {"cost_micro_usd": cost, "spans": len(spans)},
            )
        depth = depth_of(spans)
        if depth <= self.depth:
            return None
        return Finding(
            depth,
            self.depth,
            f"spans are nested {depth} deep: an agent calls itself, or others in a circle.",
            {"depth": depth, "spans": len(spans)},
        )


def depth_of(spans: Sequence[SpanRecord]) -> int:
    """Most spans of work that lie inside each other; ids that form a circle count once."""
    parents = {span.span_id: span.parent for span in spans if span.work}
    depths: dict[str, int] = {}
    for span_id in parents:
        path: list[str] = []
        at: str | None = span_id
        while at is not None and at in parents and at not in depths:
            depths[at] = 0  # entered: a circle ends here
            path.append(at)
            at = parents[at]
        depth = depths.get(at, 0) if at is not None else 0
        for one in reversed(path):
            depth += 1
            depths[one] = depth
    return max(depths.values(), default=0)
