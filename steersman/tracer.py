"""The tracer: how an agent reports what it does."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from steersman import forks
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.codec import SchemaIds
from steersman.content import arguments, parameter_names
from steersman.decision import Decision
from steersman.events import Kind, Status
from steersman.ids import is_trace_id, new_event_id, new_span_id, new_trace_id, parse_decision_id
from steersman.kafka_config import brokers_from_env
from steersman.observe import observed
from steersman.prices import PRICED, PriceTable, ToPrice, prices_from_env
from steersman.redaction import Redactor, redactor_of
from steersman.sender import Overflow, Sender
from steersman.sink import EventSink, merged
from steersman.span import CURRENT, Span
from steersman.throttle import Throttle
from steersman.topics import Topics
from steersman.traceparent import TraceParent, parse_traceparent

F = TypeVar("F", bound=Callable[..., Any])


class Tracer:
    """Records what an agent does as trace events, without ever waiting for Kafka or failing because of it.

    Parameters
    ----------
    agent : str
        Name of the agent that reports.
    tenant : str, optional
        Tenant that owns the traces; ``STEERSMAN_TENANT`` or ``default`` when not given.
    brokers : str, optional
        ``host:port`` list of Kafka; ``STEERSMAN_BROKERS`` or ``127.0.0.1:9092`` when not given.
    topics : Topics, optional
        Topic names; the prefix of ``STEERSMAN_TOPIC_PREFIX`` or ``steersman`` when not given.
    sink : EventSink, optional
        Where events go instead of Kafka, e.g. a `MemorySink`.
    registry : SchemaIds, optional
        Schema registry for the framing; none by default.
    max_queue : int
        Most events that wait in memory.
    overflow : {"drop_oldest", "drop_new"}
        Which event to give up when that many wait.
    prices : PriceTable, optional
        Prices the model and tool calls that report no cost; the table of ``STEERSMAN_PRICES`` when not given, and none
        without that. A call whose price is not known keeps a null cost and is counted in `stats` (``unpriced:<reason>``).
    capture_content : bool
        Whether content leaves the process: comments of feedback, the arguments of observed functions, the messages of
        exceptions. Off unless asked for.
    redact : bool or Redactor
        Whether secrets and personal data are taken out of all texts, attributes included, before they are sent
        (`steersman.redaction`); on unless told otherwise. A sink of your own has to see to it itself.
    kafka : mapping, optional
        librdkafka settings that win over ours; TLS and SASL come from ``STEERSMAN_KAFKA_*`` (`steersman.kafka_security`).
    clock : Clock
        Source of time.

    Raises
    ------
    ConfigError
        If the topic prefix, the price table or a setting ``STEERSMAN_KAFKA_*`` is unusable. Nothing else in here raises into the caller, later.

    Examples
    --------
    >>> tracer = Tracer("retrieval")                                             # doctest: +SKIP
    >>> with tracer.span(Kind.TOOL_CALL, operation="search") as span:            # doctest: +SKIP
    ...     span.set(cost_micro_usd=120)
    """

    def __init__(
        self,
        agent: str,
        *,
        tenant: str | None = None,
        brokers: str | None = None,
        topics: Topics | None = None,
        sink: EventSink | None = None,
        registry: SchemaIds | None = None,
        max_queue: int = 10_000,
        overflow: Overflow = "drop_oldest",
        prices: PriceTable | None = None,
        capture_content: bool = False,
        redact: bool | Redactor = True,
        kafka: Mapping[str, Any] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.agent = agent
        self.tenant = tenant or os.environ.get("STEERSMAN_TENANT") or "default"
        self._clock = clock
        self._capture_content = capture_content
        prices = prices or prices_from_env()
        self._to_price = None if prices is None else ToPrice(prices)
        self._trouble: Counter[str] = Counter()
        self._lock = threading.RLock()  # re-entrant: a signal handler may record an event, too
        self._throttle = Throttle(clock=clock)
        if sink is None:
            topics = topics or Topics(os.environ.get("STEERSMAN_TOPIC_PREFIX") or "steersman")
            sink = Sender(
                brokers_from_env(brokers),
                topics.trace,
                registry=registry,
                max_queue=max_queue,
                overflow=overflow,
                kafka=kafka,
                redactor=redactor_of(redact),
            )
        self._sink: EventSink = sink
        forks.watch(self)

    def span(
        self,
        kind: Kind = Kind.AGENT,
        operation: str | None = None,
        *,
        parent: str | bytes | Span | None = None,
        session_id: str | None = None,
        end: bool = True,
    ) -> Span:
        """Make a span, to be used in a ``with`` or ``async with`` block.

        Parameters
        ----------
        kind : Kind
            What the span does.
        operation : str, optional
            Model, tool, data source or step.
        parent : str, bytes or Span, optional
            A W3C ``traceparent`` from another process, or a span of this one. By default the current span of this
            thread or task; without one the span begins a new trace. An unusable header counts as none.
        session_id : str, optional
            Conversation the trace belongs to; inherited within a process.
        end : bool
            Whether a span that began its trace also records that the trace is complete when it closes. Pass False when
            other processes go on with the trace after that, and call `end_trace` there.
        """
        above: Span | TraceParent | None
        if parent is None:
            above = CURRENT.get()
        elif isinstance(parent, Span):
            above = parent
        else:
            above = parse_traceparent(parent)
            if above is None:
                self._count("bad_traceparent")
                above = CURRENT.get()
        return Span(self, kind, operation, above, session_id, end)

    def observe(self, kind: Kind = Kind.TOOL_CALL, operation: str | None = None) -> Callable[[F], F]:
        """Decorate a function, coroutine function, generator or async generator so that each call is a span.

        Parameters
        ----------
        kind : Kind
            What the function does.
        operation : str, optional
            Defaults to the function's name.
        """

        def decorate(function: F) -> F:
            name = operation or getattr(function, "__qualname__", type(function).__name__)
            if not self._capture_content:
                return observed(function, lambda args, kwargs: self.span(kind, name))
            names = parameter_names(function)

            def with_content(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Span:
                span = self.span(kind, name)
                span.set(attributes={"arguments": arguments(names, args, kwargs)})
                return span

            return observed(function, with_content)

        return decorate

    def current(self) -> Span | None:
        """The span that the running code is in, or None."""
        return CURRENT.get()

    def feedback(
        self,
        target: Decision | Span | str,
        metric: str = "quality",
        value: float | bool | None = None,
        *,
        label: str | None = None,
        comment: str | None = None,
        source: str | None = None,
        target_decision: bool = True,
        event_id: str | None = None,
    ) -> bool:
        """Report how something turned out; from any process, at any later time.

        Parameters
        ----------
        target : Decision, Span or str
            What is judged: a decision or its id, a span or its ``traceparent``, or a trace id.
        metric : str
            What was measured.
        value : float or bool, optional
            The measurement, finite; a truth value counts as 0 or 1.
        label : str, optional
            A categorical judgement.
        comment : str, optional
            Free text; sent only when the tracer captures content.
        source : str, optional
            Who judged.
        target_decision : bool
            For a decision: True judges that decision alone, False every decision of its trace.
        event_id : str, optional
            Give the same id to repeats of the same feedback, so that it counts once.

        Returns
        -------
        bool
            Whether the event was taken; if not, `stats` says why.
        """
        record: dict[str, Any] = {
            "kind": Kind.FEEDBACK,
            "metric": metric,
            "value": float(value) if isinstance(value, bool) else value,
            "label": label,
            "comment": comment if self._capture_content else None,
            "source": source,
            "event_id": event_id,
            "span_id": new_span_id(),
        }
        if isinstance(target, Decision):
            target = target.decision_id
        if isinstance(target, Span):
            record["trace_id"], record["target_span_id"] = target.trace_id, target.span_id
        elif (decision := parse_decision_id(target)) is not None:
            record["trace_id"] = decision.trace_id
            record["target_decision_id"] = target if target_decision else None
        elif (position := parse_traceparent(target)) is not None:
            record["trace_id"], record["target_span_id"] = position.trace_id, position.span_id
        elif is_trace_id(target):
            record["trace_id"] = target
        else:
            self._count("bad_target")
            self._throttle.warn("feedback for %.100r was not sent: not a decision id, traceparent or trace id", target)
            return False
        return self.emit(record)

    def end_trace(
        self,
        trace_id: str,
        span_id: str | None = None,
        *,
        status: Status | str = Status.OK,
        session_id: str | None = None,
    ) -> bool:
        """Record that a trace is complete; root spans do this by themselves.

        Parameters
        ----------
        trace_id : str
            The trace.
        span_id : str, optional
            Its root span, where known.
        status : Status
            Outcome of the whole.
        session_id : str, optional
            Conversation the trace belongs to.
        """
        return self.emit(
            {
                "kind": Kind.END,
                "trace_id": trace_id,
                "span_id": span_id or new_span_id(),
                "status": status,
                "session_id": session_id,
            }
        )

    def emit(self, record: dict[str, Any]) -> bool:
        """Send an event given as fields of ``trace_event.avsc``.

        Missing ``event_id``, ``tenant``, ``agent`` and ``ts`` are filled in; a missing ``trace_id`` and
        ``parent_span_id`` come from the current span, or else a new trace begins.

        Parameters
        ----------
        record : dict
            Handed over: do not change it afterwards.

        Returns
        -------
        bool
            Whether it was taken. Never raises, never blocks.
        """
        get = record.get
        if get("event_id") is None:
            record["event_id"] = new_event_id()
        if get("tenant") is None:
            record["tenant"] = self.tenant
        if get("agent") is None:
            record["agent"] = self.agent
        if get("ts") is None:
            record["ts"] = self._clock.now_us()
        if get("trace_id") is None:
            span = CURRENT.get()
            if span is None:
                record["trace_id"] = new_trace_id()
            else:
                record["trace_id"] = span.trace_id
                record.setdefault("parent_span_id", span.span_id)
                record.setdefault("session_id", span.session_id)
        if get("span_id") is None:
            record["span_id"] = new_span_id()
        return self._offer(record)

    def flush(self, timeout_s: float = 5.0) -> int:
        """Wait until all events are delivered, or for `timeout_s`; returns how many still are not."""
        return self._sink.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush and stop; returns how many events were left undelivered. Later events are dropped and counted."""
        return self._sink.close(timeout_s)

    def stats(self) -> dict[str, Any]:
        """The sink's counters, and under ``trouble`` what was wrong with calls of this tracer."""
        with self._lock:
            return {**self._sink.stats(), "trouble": merged(self._trouble)}

    def __enter__(self) -> Tracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def after_fork_in_child(self) -> None:
        """The lock may be held by a thread that the child does not have."""
        self._lock = threading.RLock()
        self._throttle.reset()

    def at_exit(self, timeout_s: float) -> None:
        """Nothing is left to do: the sink looks after itself."""

    def _offer(self, record: dict[str, Any]) -> bool:
        if self._to_price is not None and record.get("kind") in PRICED and record.get("cost_micro_usd") is None:
            record["cost_micro_usd"] = self._to_price
        try:
            return self._sink.offer(record)
        except Exception as error:  # a sink of the application's own; an agent never fails because of its telemetry
            self._count(f"sink:{type(error).__name__}")
            self._throttle.warn("the sink of trace events raised: %r", error)
            return False

    def _count(self, what: str) -> None:
        with self._lock:
            self._trouble[what] += 1

    def _count_unknown(self, name: str) -> None:
        self._count("unknown_field")
        self._throttle.warn("a span has no field %.100r: it was left out (see trace_event.avsc)", name)
