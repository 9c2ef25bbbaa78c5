"""The same call over and over: same operation, same arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding, Memory
from streams.detect.signs import CALL
from streams.trace_state import SpanRecord

_STALE: Final = "stale"


class ToolLoop:
    """An agent that repeats a call though nothing new has been called since: it does not learn from the answer.

    A call that is repeated after others that were new (a file read again after each edit) is no loop before `most` times. Only
    calls that went well count; repeated failures are a `retry_storm`.
    """

    name: ClassVar[str] = "tool_loop"
    severity: ClassVar[str] = "WARNING"
    signs: ClassVar[int] = CALL

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings.tool_loop

    def add(self, span: SpanRecord, spans: Sequence[SpanRecord], memory: Memory) -> Finding | None:
        """Take a call in; see `streams.detect.contract.TraceDetector`."""
        call = span.operation, span.call
        times = memory[call] = memory.get(call, 0) + 1
        stale = memory[_STALE] = 0 if times == 1 else memory.get(_STALE, 0) + 1
        repeats = self._settings.repeats
        if not ((times >= repeats and stale >= repeats - 1) or times >= self._settings.most):
            return None
        return Finding(
            times,
            repeats if times < self._settings.most else self._settings.most,
            f"{span.agent or 'an agent'} called {span.operation or 'the same tool'} {times} times with the same arguments: "
            "look at what the tool answers, and whether the agent can see that it has asked before.",
            {"operation": span.operation, "args_hash": span.call, "times": times, "without_a_new_call": stale},
        )
