"""The detectors there are: to add one, write a file that defines it, its thresholds in `learners.detector_settings`, and its line here."""

from __future__ import annotations

from streams.detect.behaviour_drift import BehaviourDrift
from streams.detect.context_degradation import ContextDegradation
from streams.detect.context_overflow import ContextOverflow
from streams.detect.contract import DecisionDetector, PolicyDetector, TraceDetector
from streams.detect.empty_output import EmptyOutput
from streams.detect.feedback_collapse import FeedbackCollapse
from streams.detect.ping_pong import PingPong
from streams.detect.plausible_but_wrong import PlausibleButWrong
from streams.detect.retry_storm import RetryStorm
from streams.detect.runaway import Runaway
from streams.detect.tool_loop import ToolLoop

TRACE: tuple[type[TraceDetector], ...] = (ToolLoop, PingPong, RetryStorm, ContextOverflow, EmptyOutput, Runaway)
DECISION: tuple[type[DecisionDetector], ...] = (PlausibleButWrong,)
POLICY: tuple[type[PolicyDetector], ...] = (ContextDegradation, BehaviourDrift, FeedbackCollapse)
