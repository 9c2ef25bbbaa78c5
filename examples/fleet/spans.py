"""The spans of one step's work, as an instrumented agent would record them."""

from __future__ import annotations

from collections.abc import Mapping

from examples.fleet.world import CONTEXT_LIMIT, RETRY_US, Level, Outcome
from steersman import Kind, Status, Tracer


def call_of(role: str, arm: Mapping[str, Level]) -> tuple[Kind, str, str] | None:
    """Return kind, operation and provider of the call that `role` makes under `arm`; None when it makes none."""
    if role == "orchestrator":
        return None if arm["plan"] == "none" else (Kind.REASONING, "medium", "example")
    if role == "retrieval":
        return Kind.RETRIEVAL, "reranked" if arm["rerank"] else "index", "example"
    if role == "synthesis":
        return Kind.MODEL_CALL, str(arm["model"]), "example"
    return None if arm["verify"] == "off" else (Kind.TOOL_CALL, f"verify-{arm['model']}", "example")


def record_work(tracer: Tracer, role: str, arm: Mapping[str, Level], outcome: Outcome) -> None:
    """Record the step's call; a first attempt that timed out comes before it as a span of its own.

    A cost without a call (search workers without a plan) is recorded as a reasoning step, so that none is lost.
    """
    call = call_of(role, arm)
    if call is None:
        if not outcome.cost_micro_usd:
            return
        call = Kind.REASONING, "dispatch", "example"
    kind, operation, provider = call
    if outcome.failed:
        with tracer.span(kind, operation=operation) as attempt:
            attempt.set(
                provider=provider, duration_us=RETRY_US, status=Status.TIMEOUT, error="Timeout", cost_micro_usd=0
            )
    with tracer.span(kind, operation=operation) as span:
        span.set(
            provider=provider,
            duration_us=outcome.latency_us - outcome.failed * RETRY_US,
            cost_micro_usd=outcome.cost_micro_usd,
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
        )
        if kind is Kind.MODEL_CALL:
            used = outcome.input_tokens + outcome.output_tokens
            span.set(context_tokens=used, context_limit=CONTEXT_LIMIT)
