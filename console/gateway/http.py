"""The HTTP side: ClickHouse's URL parameters, headers, encodings and error replies."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO

from aiohttp import BodyPartReader, web

from console.gateway.engine import Engine
from console.gateway.login import LoginRefused, login
from console.gateway.outside import outside
from console.gateway.query import Query, Result, SqlError
from console.gateway.reading import ReadingRefused, as_reader
from console.gateway.statements import parse, parse_in_two
from console.gateway.users import User, Users
from serving import codecs
from serving.access import foreign_host
from serving.rate import RateLimit

# Parameters that the HTTP interface itself consumes; the engine would call them unknown settings.
_TRANSPORT = frozenset(
    {
        "query", "database", "default_format", "user", "password", "quota_key", "role", "query_id", "stacktrace",
        "session_id", "session_timeout", "session_check", "close_session", "buffer_size", "compress", "decompress",
        "wait_end_of_query", "client_protocol_version", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "enable_http_compression",
        "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip
# HTTP status of an error code, as src/Server/HTTP/exceptionCodeToHTTPStatus.cpp maps them; all others are 500.
_STATUS = {
    62: 400, 27: 400, 26: 400, 38: 400, 41: 400, 43: 400, 44: 400, 46: 400, 53: 400, 115: 400, 386: 400, 456: 400,
    457: 400, 472: 400, 497: 403, 60: 404, 81: 404, 47: 404, 16: 404, 36: 400, 48: 501, 344: 501, 394: 500, 159: 408, 164: 403,
}  # fmt: skip
_UNSUPPORTED = {
    "compress": "ClickHouse's own block compression (compress=1); use enable_http_compression=1 and Accept-Encoding",
    "decompress": "ClickHouse's own block compression (decompress=1); use Content-Encoding",
    "session_check": "sessions: each statement stands alone",
    "role": "roles: what a user may do stands in the users file",
}
"""Parameters whose effect a client would rely on, and what to do instead."""
_FAILURES_PER_S, _FAILURES = 1.0, 20
"""Requests without a right password that one address may send: in the long run, and at once; then they are not even told so."""
_FILE_FORMATS = frozenset({"Parquet", "ORC", "Arrow"})
"""Formats of results that are sent from a file when they are to be complete first: exports do not fit into memory."""
_CHUNK = 1 << 20
_MAX_READER_BODY = 1 << 20
"""Largest body of a user who only reads, compressed and decompressed: it holds a statement. Unit: bytes."""
_MAX_READER_FRAMES = 16
"""Compressed frames of such a body; each costs time that grows with what comes after it."""
_FIELD_BYTES = 64  # of memory, for a field of a form without content
_MIN_COMPRESSED = 1024  # bytes; below, a frame costs more than it saves


def application(
    engine: Engine,
    *,
    users: Users,
    hosts: frozenset[str],
    max_body: int,
    per_s: float = 0.0,
    workers: int = 4,
    before: Callable[[web.Application], None] | None = None,
) -> web.Application:
    """Build the web application.

    Parameters
    ----------
    engine
        What runs the statements; closed with the application.
    users
        Who may ask.
    hosts
        Host names that the Host and Origin headers may name, lower case, without port.
    max_body
        Largest request body of who writes, compressed and decompressed; readers have less. Unit: bytes.
    per_s
        Requests that a user may send in the long run, and four times as many at once; unit: per second. 0 for no limit.
    workers
        Threads, that is statements that run at the same time: so many of readers, and so many of writers.
    before
        Adds routes of its own, which come before ours.
    """
    return _Gateway(engine, users, hosts, max_body, per_s, workers).application(before)


class _Gateway:
    def __init__(self, engine: Engine, users: Users, hosts: frozenset[str], max_body: int, per_s: float, workers: int):
        self._engine = engine
        self._users = users
        self._rate, self._failures = RateLimit(per_s, int(4 * per_s)), RateLimit(_FAILURES_PER_S, _FAILURES)
        self._hosts = hosts
        self._max_body = max_body
        self._writers = ThreadPoolExecutor(workers, thread_name_prefix="chdb")
        self._readers = ThreadPoolExecutor(workers, thread_name_prefix="chdb-read")

    def application(self, before: Callable[[web.Application], None] | None) -> web.Application:
        # auto_decompress is off at the runner: aiohttp knows no lz4, and its decompression has no cap.
        app = web.Application(client_max_size=self._max_body)
        if before is not None:
            before(app)
        app.router.add_get("/ping", self._ping)
        app.router.add_get("/", self._serve)
        app.router.add_post("/", self._serve)
        app.router.add_route("*", "/{path:.*}", self._nothing)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.close()

    async def _ping(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.Response(text="Ok.\n")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        query_id = _query_id(request)
        if "query" not in request.query and request.method == "GET":
            return web.Response(text="Ok.\n")
        try:
            user = login(self._users, request.headers, request.query)
            if wait := self._rate.wait_s(user.name):
                return _too_often(wait, query_id)
            params, query = await self._read(request, user)
            if query is None:
                return web.Response(text="Ok.\n")
            threads = self._writers if user.writes else self._readers
            ran, result = await asyncio.get_running_loop().run_in_executor(threads, self._run, user, query)
            if result.file is not None:
                return await _stream(request, ran, result, result.file, query_id)
            return _reply(request, params, ran, result, query_id)
        except LoginRefused as e:
            if wait := self._failures.wait_s(request.remote or ""):
                return _too_often(wait, query_id)
            reply = _error(e.status, e.code, str(e), query_id)
            if e.status == 401:
                reply.headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
            return reply
        except ReadingRefused as e:
            return _error(_STATUS.get(e.code, 403), e.code, str(e), query_id)
        except web.HTTPRequestEntityTooLarge:
            reply = _error(413, 307, "the request body is larger than this user may send (TOO_MANY_BYTES)", query_id)
            reply.force_close()  # the rest of the body is not worth reading
            return reply
        except UnicodeDecodeError:
            return _error(400, 62, "the statement is not UTF-8 (SYNTAX_ERROR)", query_id)
        except codecs.TooLarge:
            return _error(413, 307, "the body is too large once decompressed (TOO_MANY_BYTES)", query_id)
        except codecs.Unsupported as e:
            return _error(400, 432, f"{e} (UNKNOWN_COMPRESSION_METHOD)", query_id)
        except _Refused as e:
            return _error(_STATUS.get(e.code, 500), e.code, str(e), query_id)
        except SqlError as e:
            text = e.text if "(version " in e.text else f"{e.text} (version {self._engine.version})"
            return _failure(_STATUS.get(e.code, 500), e.code, text, query_id)

    def _run(self, user: User, query: Query) -> tuple[Query, Result]:
        if not user.writes:
            statement = parse(self._engine.canonical(query.statement.sql))
            query = as_reader(replace(query, statement=statement), user, self._engine.catalogue())
        return query, self._engine.run(query)

    async def _nothing(self, request: web.Request) -> web.Response:
        return self._refusal(request) or _error(
            404, 48,
            f"there is no {request.path[:80]!r} here: this endpoint serves SQL at / and says at /ping that it is up; no /play, no "
            "/dashboard, no native protocol, no custom handlers (NOT_IMPLEMENTED)", "",
        )  # fmt: skip

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Refuse what a page in a browser could send: another Host (DNS rebinding), another Origin (forged forms)."""
        host = foreign_host(request.headers.get("Host"), request.headers.get("Origin"), self._hosts)
        if host is None:
            return None
        return _error(
            403, 195, f"host {host!r} is not served here; add it with --allow-host (IP_ADDRESS_NOT_ALLOWED)", ""
        )

    async def _read(self, request: web.Request, user: User) -> tuple[Mapping[str, str], Query | None]:
        """Read the request's parameters and its statement, None for no statement at all."""
        params: dict[str, str] = dict(request.query)
        text = params.get("query", "").encode()
        cap, frames = (
            (self._max_body, None) if user.writes else (min(_MAX_READER_BODY, self._max_body), _MAX_READER_FRAMES)
        )
        if request.content_type == "multipart/form-data":
            params.update(await _form(request, cap))
            body = b""
            text = params.get("query", "").encode()
        else:
            body = await (request.read() if user.writes else _body(request, cap))
            encoding = request.headers.get("Content-Encoding", "").lower()
            body = codecs.decompress(body, encoding, cap, frames)
        for name, what in _UNSUPPORTED.items():
            if params.get(name, "0") not in ("0", ""):
                raise _Refused(48, f"not supported here: {what} (NOT_IMPLEMENTED)")
        if not text.strip() and (not body or body.isspace()):
            return params, None
        statement = parse_in_two(text, body)
        if statement.uses_files:
            raise _Refused(
                344, "INFILE and OUTFILE are refused: the files would be this server's (SUPPORT_IS_DISABLED)"
            )
        if request.method != "POST" and not statement.reads:
            raise _Refused(164, f"{statement.verb or 'this'} needs POST, GET only reads (READONLY)")
        parameters = {k[6:]: v for k, v in params.items() if k.startswith("param_")}
        if user.writes and (reaching := outside(statement, self._engine.table_functions, parameters)) is not None:
            raise _Refused(48, f"{reaching} (NOT_IMPLEMENTED)")
        settings = {k: v for k, v in params.items() if k not in _TRANSPORT and not k.startswith("param_")}
        if request.method != "POST" and user.writes:
            settings.setdefault("readonly", "2")
        default_format = params.get("default_format") or request.headers.get("X-ClickHouse-Format") or "TabSeparated"
        return params, Query(
            statement,
            database=params.get("database") or request.headers.get("X-ClickHouse-Database") or "default",
            settings=settings,
            parameters=parameters,
            default_format=default_format,
            to_file=statement.reads
            and "readonly" not in settings  # it is made by an insert
            and params.get("wait_end_of_query") == "1"
            and (statement.result_format or default_format) in _FILE_FORMATS,
        )


class _Refused(Exception):
    """The gateway itself refuses the statement; `code` is the ClickHouse error code that says so best."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


async def _body(request: web.Request, cap: int) -> bytes:
    """Read the body of who has less than the application allows."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > cap:
            raise web.HTTPRequestEntityTooLarge(cap, len(body))
    return bytes(body)


async def _form(request: web.Request, cap: int) -> dict[str, str]:
    """Read a form; aiohttp bounds each field, and not how many there are."""
    fields: dict[str, str] = {}
    size = 0
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name is None or part.filename is not None:
            raise _Refused(48, "external data in a form is not supported here (NOT_IMPLEMENTED)")
        content = bytearray()
        while chunk := await part.read_chunk():
            content += chunk
            size += len(chunk)
            if size > cap:
                raise web.HTTPRequestEntityTooLarge(cap, size)
        size += len(part.name) + _FIELD_BYTES
        fields[part.name] = content.decode()
    return fields


async def _stream(
    request: web.Request, query: Query, result: Result, body: IO[bytes], query_id: str
) -> web.StreamResponse:
    """Send a result that lies in a file."""
    with body as file:
        response = web.StreamResponse(headers=_headers(query, result, query_id))
        response.content_type = "application/octet-stream"
        response.content_length = int(result.summary["result_bytes"])
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        while chunk := await loop.run_in_executor(None, file.read, _CHUNK):
            await response.write(chunk)
        await response.write_eof()
    return response


def _reply(
    request: web.Request, params: Mapping[str, str], query: Query, result: Result, query_id: str
) -> web.Response:
    headers = _headers(query, result, query_id)
    body = result.body
    if params.get("enable_http_compression") == "1" and len(body) >= _MIN_COMPRESSED:
        encoding = codecs.choose(request.headers.get("Accept-Encoding", ""))
        if encoding:
            headers["Content-Encoding"] = encoding
            body = codecs.compress(body, encoding)
    return web.Response(body=body, headers=headers, content_type="application/octet-stream")


def _query_id(request: web.Request) -> str:
    """The client's own, where it can stand in a header."""
    given = request.query.get("query_id", "")
    return given if 0 < len(given) <= 200 and given.isascii() and given.isprintable() else str(uuid.uuid4())


def _too_often(wait_s: int, query_id: str) -> web.Response:
    reply = _error(429, 202, f"too many requests; come again in {wait_s} s (TOO_MANY_SIMULTANEOUS_QUERIES)", query_id)
    reply.headers["Retry-After"] = str(wait_s)
    return reply


def _headers(query: Query, result: Result, query_id: str) -> dict[str, str]:
    headers = {
        "X-ClickHouse-Summary": json.dumps(result.summary),
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Timezone": "UTC",
        "X-ClickHouse-Server-Display-Name": "steersman-gateway",
    }
    if query.statement.reads:
        headers["X-ClickHouse-Format"] = query.statement.result_format or query.default_format
    return headers


def _error(status: int, code: int, text: str, query_id: str) -> web.Response:
    return _failure(status, code, f"Code: {code}. DB::Exception: {text}", query_id)


def _failure(status: int, code: int, text: str, query_id: str) -> web.Response:
    headers = {"X-ClickHouse-Exception-Code": str(code), "X-ClickHouse-Query-Id": query_id}
    return web.Response(status=status, text=text + "\n", headers=headers)
