"""Steersman for agent services: report what agents do, and decide by policies that learn from it.

>>> from steersman import Kind, PolicySubscriber, Router, Tracer
>>> tracer = Tracer("retrieval")                                                      # doctest: +SKIP
>>> router = Router(PolicySubscriber().start(), tracer)                               # doctest: +SKIP
>>> with tracer.span(Kind.AGENT, operation="answer") as span:                         # doctest: +SKIP
...     decision = router.choose("research/retrieval", {"complexity": 0.4})
...     # ... act on decision.arm ...
>>> tracer.feedback(decision, value=1.0)                                              # doctest: +SKIP
"""

from __future__ import annotations

from steersman.codec import Codec
from steersman.decision import Decision
from steersman.errors import (
    ConfigError,
    DecodeError,
    InvalidRecord,
    SnapshotError,
    SteersmanError,
    Unreachable,
)
from steersman.events import Kind, Mode, Status
from steersman.held import Held, PolicySource, StaticPolicies
from steersman.ids import args_hash
from steersman.policy_guard import PolicyGuard
from steersman.prices import PriceTable
from steersman.router import Router
from steersman.sink import EventSink, MemorySink
from steersman.snapshot import PolicySnapshot
from steersman.span import Span
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from steersman.tracer import Tracer

__all__ = [
    "Codec",
    "ConfigError",
    "Decision",
    "DecodeError",
    "EventSink",
    "Held",
    "InvalidRecord",
    "Kind",
    "MemorySink",
    "Mode",
    "PolicyGuard",
    "PolicySnapshot",
    "PolicySource",
    "PolicySubscriber",
    "PriceTable",
    "Router",
    "SnapshotError",
    "Span",
    "StaticPolicies",
    "Status",
    "SteersmanError",
    "Topics",
    "Tracer",
    "Unreachable",
    "args_hash",
]
__version__ = "0.1.0"
