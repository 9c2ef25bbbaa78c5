"""The doors over HTTP: OTLP (``/v1/traces``, ``/v1/logs``) by its specification, and ``/v1/feedback``.

An answer of 200 means that Kafka has acknowledged every event. 429 and 503 come with Retry-After: nothing was kept that a repeat
would double. All other 4xx name what is wrong, and the same body will never be taken.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status as RpcStatus
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from doors.counting import Counting
from doors.intake import Intake, Taken
from doors.otlp import to_json
from doors.publisher import Publisher
from doors.refused import Refused
from doors.tenancy import HEADER_NAME, TenantMismatch
from serving import codecs
from serving.access import Tokens, foreign_host
from serving.rate import RateLimit

log = logging.getLogger("steersman.doors")

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}
"""HTTP status -> google.rpc.Code, as OTLP's error bodies carry it."""
_RETRY_BUSY_S = 1
_FAILURES_PER_S, _FAILURES = 1.0, 20
"""Requests without a token of this door that one address may send: in the long run, and at once."""
_MAX_FRAMES = 16
"""Frames of a compressed body; clients send one."""


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes
    ----------
    body, inflated
        Largest body as sent, and decompressed; unit: bytes.
    requests
        Requests answered at the same time.
    timeout_s
        Longest wait for a body; unit: seconds.
    per_s
        Requests that a tenant may send in the long run, and twice as many at once; unit: per second. 0 for no limit.
    """

    body: int
    inflated: int
    requests: int
    timeout_s: float
    per_s: float = 0.0


@dataclass(frozen=True)
class Sent:
    """A body, and what goes with it.

    Attributes
    ----------
    body
        Decompressed.
    tenant
        Of whoever sent it.
    named
        Tenant that a header names; empty when none does.
    as_json
        Whether it is JSON.
    """

    body: bytes
    tenant: str
    named: str
    as_json: bool


Take = Callable[[Sent], Taken]
Reply = Callable[[Taken, bool], web.Response]


class Doors:
    """The web application.

    Parameters
    ----------
    intake
        What to make of bodies.
    publisher
        Where events go.
    tokens
        Who may ask.
    hosts
        Host names that the Host and Origin headers may name.
    limits
        What a request may cost.
    counting
        What is counted.
    """

    def __init__(
        self,
        intake: Intake,
        publisher: Publisher,
        tokens: Tokens,
        hosts: frozenset[str],
        limits: Limits,
        counting: Counting,
    ) -> None:
        self._intake = intake
        self._publisher = publisher
        self._tokens = tokens
        self._hosts = hosts
        self._limits = limits
        self._counting = counting
        self._in_flight = 0
        self._rate = RateLimit(limits.per_s, int(2 * limits.per_s))
        self._failures = RateLimit(_FAILURES_PER_S, _FAILURES)
        # Two, so that one body of the largest size does not hold up the small ones.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="doors")

    def application(self) -> web.Application:
        """Build it. The runner must not decompress: aiohttp's decompression has no cap."""
        app = web.Application(client_max_size=self._limits.body, middlewares=[self._middleware()])
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/logs", self._logs)
        app.router.add_post("/v1/feedback", self._feedback)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        self._threads.shutdown(wait=True)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            """Whatever happens, there is an answer, it says why, and it is counted."""
            door = request.path.rpartition("/")[2] if request.match_info.http_exception is None else ""
            started = time.perf_counter()
            try:
                reply = await handler(request)
            except Refused as error:
                reply = _refusal(request, error)
                self._counting.refused(door, error.reason)
            except web.HTTPException as error:
                reply = _refusal(request, Refused(error.status, "http", error.reason))
                if "Allow" in error.headers:
                    reply.headers["Allow"] = error.headers["Allow"]
            except Exception:
                log.exception("a request to %s failed", request.path)
                reply = _refusal(request, Refused(500, "internal", "the door failed; its log says why"))
                self._counting.refused(door, "internal")
            if door:
                self._counting.answered(door, reply.status, time.perf_counter() - started)
            return reply

        return answer

    async def _traces(self, request: web.Request) -> web.StreamResponse:
        def reply(taken: Taken, as_json: bool) -> web.Response:
            answer = ExportTraceServiceResponse()
            if taken.mapped.problems:
                answer.partial_success.rejected_spans = taken.mapped.refused
                answer.partial_success.error_message = _problems(taken)
            return _message(answer, as_json)

        def take(sent: Sent) -> Taken:
            return self._intake.spans(sent.body, sent.tenant, named=sent.named, json=sent.as_json)

        return await self._take(request, "traces", take, reply)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        def reply(taken: Taken, as_json: bool) -> web.Response:
            answer = ExportLogsServiceResponse()
            if taken.mapped.problems:
                answer.partial_success.rejected_log_records = taken.mapped.refused
                answer.partial_success.error_message = _problems(taken)
            return _message(answer, as_json)

        def take(sent: Sent) -> Taken:
            return self._intake.logs(sent.body, sent.tenant, named=sent.named, json=sent.as_json)

        return await self._take(request, "logs", take, reply)

    async def _feedback(self, request: web.Request) -> web.StreamResponse:
        def reply(taken: Taken, as_json: bool) -> web.Response:
            return web.json_response({"accepted": len(taken.ids), "event_ids": taken.ids})

        def take(sent: Sent) -> Taken:
            return self._intake.feedback(sent.body, sent.tenant, named=sent.named)

        return await self._take(request, "feedback", take, reply, accepts=(JSON,))

    async def _take(
        self,
        request: web.Request,
        door: str,
        take: Take,
        reply: Reply,
        accepts: tuple[str, ...] = (PROTOBUF, JSON),
    ) -> web.Response:
        tenant = self._admit(request, accepts)
        self._in_flight += 1
        self._counting.in_flight.set(self._in_flight)
        try:
            raw = await self._read(request)
            as_json = request.content_type == JSON
            encoding = request.headers.get("Content-Encoding", "").strip().lower()

            def work() -> Taken:
                body = self._decompressed(raw, encoding)
                self._counting.read(door, len(body))
                return take(Sent(body, tenant, request.headers.get(HEADER_NAME, ""), as_json))

            try:
                taken = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except TenantMismatch as error:
                await asyncio.wrap_future(self._publisher.publish(error.letters))
                raise
            await asyncio.wrap_future(self._publisher.publish([*taken.records, *taken.letters]))
            if taken.letters:
                self._counting.refused(door, "tenant_mismatch")
            self._counting.published(door, taken)
            return reply(taken, as_json)
        finally:
            self._in_flight -= 1
            self._counting.in_flight.set(self._in_flight)
            self._counting.waiting.set(self._publisher.waiting)

    def _admit(self, request: web.Request, accepts: tuple[str, ...]) -> str:
        """Return the tenant of whoever asks; Refused before any of the body has been read."""
        if (host := foreign_host(request.headers.get("Host"), request.headers.get("Origin"), self._hosts)) is not None:
            raise Refused(
                403,
                "host",
                f"host {host!r} is not served here; add it with --allow-host or STEERSMAN_DOORS_ALLOW_HOSTS",
            )
        tenant = self._tokens.tenant(request.headers.get("Authorization"))
        if tenant is None:
            if wait := self._failures.wait_s(request.remote or ""):
                raise Refused(429, "rate", "too many requests without a token of this door", wait)
            raise Refused(401, "token", "send 'Authorization: Bearer <token>' with a token of this door")
        if request.content_type not in accepts:
            raise Refused(415, "content_type", f"Content-Type {request.content_type!r}: send {' or '.join(accepts)}")
        if (request.content_length or 0) > self._limits.body:
            raise self._too_large(f"{request.content_length} bytes")
        if wait := self._rate.wait_s(tenant):
            raise Refused(429, "rate", f"more than {self._limits.per_s:g} requests a second of tenant {tenant!r}", wait)
        if self._in_flight >= self._limits.requests:
            raise Refused(429, "busy", f"{self._in_flight} requests are being answered", _RETRY_BUSY_S)
        return tenant

    async def _read(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await request.read()
        except TimeoutError as error:
            raise Refused(408, "slow_body", f"the body did not come within {self._limits.timeout_s:g} s") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise self._too_large("more") from error
        except (web.RequestPayloadError, OSError) as error:
            raise Refused(400, "broken_body", f"the body broke off: {error}") from error

    def _decompressed(self, raw: bytes, encoding: str) -> bytes:
        try:
            body = codecs.decompress(raw, encoding, self._limits.inflated, _MAX_FRAMES)
        except codecs.TooLarge as error:
            raise Refused(
                413,
                "too_large",
                f"the body is larger than {self._limits.inflated} bytes decompressed: send smaller batches",
            ) from error
        except codecs.Unsupported as error:
            status = 415 if "is unknown" in str(error) else 400
            raise Refused(status, "encoding", str(error)) from error
        if len(body) > self._limits.inflated:
            raise self._too_large(f"{len(body)} bytes")
        return body

    def _too_large(self, size: str) -> Refused:
        return Refused(
            413, "too_large", f"the body has {size}, {self._limits.body} bytes are taken: send smaller batches"
        )


def _problems(taken: Taken) -> str:
    more = taken.mapped.counters["problems"] - len(taken.mapped.problems)
    return "; ".join(taken.mapped.problems) + (f"; and {more} more" if more > 0 else "")


def _message(message: Message, as_json: bool, status: int = 200) -> web.Response:
    if as_json:
        return web.Response(body=to_json(message), content_type=JSON, status=status)
    return web.Response(body=message.SerializeToString(), content_type=PROTOBUF, status=status)


def _refusal(request: web.Request, error: Refused) -> web.Response:
    """OTLP wants a google.rpc.Status in the request's own encoding; for everybody else it is JSON."""
    if request.content_type == PROTOBUF:
        reply = _message(RpcStatus(code=_RPC_CODES.get(error.status, 13), message=str(error)), False, error.status)
    else:
        body = {"code": _RPC_CODES.get(error.status, 13), "message": str(error), "reason": error.reason}
        reply = web.Response(text=json.dumps(body) + "\n", content_type=JSON, status=error.status)
    if error.retry_after_s is not None:
        reply.headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        reply.headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413):
        reply.force_close()  # the rest of the body is not worth reading
    return reply
