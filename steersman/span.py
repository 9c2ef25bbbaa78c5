"""One span: a piece of an agent's work that is timed and reported when it ends."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Protocol

from steersman.clock import Clock
from steersman.content import message_of
from steersman.events import SETTABLE, Kind, Status
from steersman.ids import new_event_id, new_span_id, new_trace_id
from steersman.traceparent import SAMPLED, TraceParent
from steersman.usage import usage_fields


class SpanOwner(Protocol):
    """What a span asks of the tracer that made it; called on the thread that ends the span, and must not block."""

    tenant: str
    agent: str
    _clock: Clock
    _capture_content: bool

    def end_trace(
        self, trace_id: str, span_id: str | None = None, *, status: Status | str = ..., session_id: str | None = None
    ) -> bool:
        """Record that a trace is complete."""

    def _offer(self, record: dict[str, Any]) -> bool: ...

    def _count(self, what: str) -> None: ...

    def _count_unknown(self, name: str) -> None: ...


#: The span that the running code belongs to, in this thread or task.
CURRENT: ContextVar[Span | None] = ContextVar("steersman_span", default=None)


class Span:
    """A span of a trace; made by `Tracer.span`, used in a ``with`` or ``async with`` block.

    Leaving the block records one event. An exception passes through untouched and sets the status: ``TIMEOUT`` for a
    timeout, ``CANCELLED`` for a cancellation or interrupt, ``ERROR`` for anything else, with the exception's class name
    as `error`.

    Attributes
    ----------
    trace_id : str
        32 hex digits.
    span_id : str
        16 hex digits.
    parent_span_id : str or None
        The enclosing span's.
    session_id : str or None
        Inherited from the enclosing span of the same process.
    """

    __slots__ = (
        "_end",
        "_fields",
        "_finished",
        "_flags",
        "_kind",
        "_operation",
        "_started_us",
        "_token",
        "_tracer",
        "parent_span_id",
        "session_id",
        "span_id",
        "trace_id",
    )

    def __init__(
        self,
        tracer: SpanOwner,
        kind: Kind,
        operation: str | None,
        parent: Span | TraceParent | None,
        session_id: str | None,
        end: bool,
    ) -> None:
        self._tracer = tracer
        self._kind = kind
        self._operation = operation
        self.span_id = new_span_id()
        if parent is None:
            self.trace_id = new_trace_id()
            self.parent_span_id: str | None = None
            self.session_id = session_id
            self._flags = SAMPLED
            self._end = end
        else:
            self.trace_id = parent.trace_id
            self.parent_span_id = parent.span_id
            self._end = False
            if isinstance(parent, Span):
                self.session_id = session_id or parent.session_id
                self._flags = parent._flags
            else:
                self.session_id = session_id
                self._flags = parent.flags
        self._fields: dict[str, Any] | None = None
        self._token: Token[Span | None] | None = None
        self._started_us = 0
        self._finished = False

    @property
    def traceparent(self) -> str:
        """W3C ``traceparent`` header to send along with a call, so that the callee's spans become children of this."""
        return str(TraceParent(self.trace_id, self.span_id, self._flags))

    @property
    def is_root(self) -> bool:
        """Whether the trace began with this span."""
        return self.parent_span_id is None

    def set(self, **fields: Any) -> None:
        """Set fields of the event that this span will record; the last value of a field holds.

        Parameters
        ----------
        **fields
            Any nullable field of ``trace_event.avsc``, e.g. ``input_tokens``, ``cost_micro_usd``, ``status``, and
            ``duration_us`` to override the measured time. ``attributes`` may be a mapping; repeated ones are merged.
            A name that is no such field is left out and counted in `Tracer.stats`. Never raises.
        """
        if not SETTABLE.issuperset(fields):
            for name in fields.keys() - SETTABLE:
                del fields[name]
                self._tracer._count_unknown(name)
        known = self._fields
        if known is None:
            self._fields = fields
            return
        before, now = known.get("attributes"), fields.get("attributes")
        known.update(fields)
        if isinstance(before, dict) and isinstance(now, dict):
            known["attributes"] = {**before, **now}

    def set_usage(self, provider: str, usage: object) -> None:
        """Set provider and token counts from a provider's usage object, counted as the contract counts them.

        Parameters
        ----------
        provider : str
            As in ``gen_ai.provider.name``: ``openai``, ``anthropic``, ``gcp.gemini``, ``aws.bedrock``, ``deepseek``; others are
            read as OpenAI-compatible.
        usage : mapping or object
            ``response.usage`` of the provider's client. What it does not report stays null. Never raises.
        """
        try:
            self.set(**usage_fields(provider, usage))
        except Exception:  # an object of somebody else's, whose attributes may do anything
            self._tracer._count("bad_usage")

    # ---- life cycle; also used by the decorator, which activates a generator's span only while it runs ----------

    def start(self) -> None:
        """Begin to measure, without becoming the current span."""
        self._started_us = self._tracer._clock.monotonic_us()

    def activate(self) -> None:
        """Become the current span of this thread or task."""
        self._token = CURRENT.set(self)

    def deactivate(self) -> None:
        """Stop being the current span."""
        token, self._token = self._token, None
        if token is None:
            return
        try:
            CURRENT.reset(token)
        except ValueError:
            # Left in another context than entered, e.g. by a finalizer: that context never had this span as its own.
            self._tracer._count("foreign_context")

    def finish(self, error: BaseException | None = None) -> None:
        """Record the event, once; with the exception that ended the span, if one did."""
        if self._finished:
            return
        self._finished = True
        tracer = self._tracer
        clock = tracer._clock
        duration_us = clock.monotonic_us() - self._started_us
        record: dict[str, Any] = {
            "event_id": new_event_id(),
            "tenant": tracer.tenant,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_span_id": self.parent_span_id,
            "session_id": self.session_id,
            "agent": tracer.agent,
            "kind": self._kind,
            "ts": clock.now_us(),
            "duration_us": duration_us,
            "status": Status.OK,
            "operation": self._operation,
        }
        if error is not None:
            record["status"] = status_of(error)
            record["error"] = type(error).__qualname__
            if tracer._capture_content:
                self.set(attributes={"exception.message": message_of(error)})
        if self._fields is not None:
            record.update(self._fields)
        tracer._offer(record)
        if self._end:
            tracer.end_trace(self.trace_id, self.span_id, status=record["status"], session_id=self.session_id)

    def __enter__(self) -> Span:
        self._token = CURRENT.set(self)
        self._started_us = self._tracer._clock.monotonic_us()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deactivate()
        self.finish(error)

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"Span({self._kind.value}, {self._operation!r}, {self.traceparent})"


_CANCELLATIONS = frozenset({"CancelledError", "Cancelled", "KeyboardInterrupt", "GeneratorExit"})


def status_of(error: BaseException) -> Status:
    """Status for an exception that ended a span.

    Timeouts are told by the names of the class and its bases: the clients of model providers have timeout classes of
    their own (``APITimeoutError``, ``ReadTimeout``) that do not derive from `TimeoutError`.
    """
    names = [base.__name__ for base in type(error).__mro__]
    if not _CANCELLATIONS.isdisjoint(names):
        return Status.CANCELLED
    if isinstance(error, SystemExit):
        return Status.OK if error.code in (None, 0) else Status.ERROR
    return Status.TIMEOUT if any("Timeout" in name for name in names) else Status.ERROR
