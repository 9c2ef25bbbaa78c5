"""Two agents that hand a task to and fro."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding, Memory
from streams.detect.signs import AGENT, TOOL
from streams.trace_state import SpanRecord


class PingPong:
    """Spans of the same two agents in turn, with no tool call or retrieval of either that went well in between.

    A third agent, the same agent twice in a row, or such a call (that of a planner and its executor) ends the run.
    """

    name: ClassVar[str] = "ping_pong"
    severity: ClassVar[str] = "WARNING"
    signs: ClassVar[int] = AGENT

    def __init__(self, settings: DetectorSettings) -> None:
        self._switches = settings.ping_pong.switches

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Take an agent's span in; see `streams.detect.contract.TraceDetector`."""
        other, last, switches, ids = "", span.agent, 0, [span.span_id]
        for before in reversed(spans[:-1]):
            if before.signs & TOOL:
                break
            if not before.signs & AGENT:
                continue
            agent = before.agent
            if agent == last or (other and agent not in (other, span.agent)):
                break
            other = other or agent
            last = agent
            switches += 1
            ids.append(before.span_id)
            if switches == self._switches:
                return Finding(
                    switches,
                    self._switches,
                    f"{span.agent or 'an agent'} and {other or 'another'} handed the task over {switches} times without a tool "
                    "call that went well: say which of them decides, or what is missing.",
                    {"agents": sorted({span.agent, other}), "switches": switches, "span_ids": ids[::-1]},
                )
        return None
