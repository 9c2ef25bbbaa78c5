"""The HTTP side: ClickHouse's URL parameters, headers, encodings and error replies."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from aiohttp import BodyPartReader, web

from console.gateway.engine import Engine, Query, Result, SqlError
from console.gateway.statements import parse
from serving import codecs
from serving.access import foreign_host

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
    457: 400, 472: 400, 60: 404, 81: 404, 47: 404, 16: 404, 36: 400, 48: 501, 344: 501, 394: 500, 159: 408, 164: 403,
}  # fmt: skip
_FILE_FORMATS = frozenset({"Parquet", "ORC", "Arrow"})
"""Formats of results that are sent from a file when they are to be complete first: exports do not fit into memory."""
_CHUNK = 1 << 20
_MIN_COMPRESSED = 1024  # bytes; below, a frame costs more than it saves


def application(engine: Engine, *, hosts: frozenset[str], max_body: int, workers: int = 4) -> web.Application:
    """Build the web application.

    Parameters
    ----------
    engine
        What runs the statements; closed with the application.
    hosts
        Host names that the Host and Origin headers may name, lower case, without port.
    max_body
        Largest request body, compressed and decompressed; unit: bytes.
    workers
        Threads, that is statements that run at the same time.
    """
    return _Gateway(engine, hosts, max_body, workers).application()


class _Gateway:
    def __init__(self, engine: Engine, hosts: frozenset[str], max_body: int, workers: int):
        self._engine = engine
        self._hosts = hosts
        self._max_body = max_body
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="chdb")

    def application(self) -> web.Application:
        # auto_decompress is off at the runner: aiohttp knows no lz4, and its decompression has no cap.
        app = web.Application(client_max_size=self._max_body)
        app.router.add_get("/ping", self._ping)
        app.router.add_get("/", self._serve)
        app.router.add_post("/", self._serve)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        self._threads.shutdown(wait=True)
        self._engine.close()

    async def _ping(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.Response(text="Ok.\n")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        query_id = request.query.get("query_id") or str(uuid.uuid4())
        try:
            params, query = await self._read(request)
            if query is None:
                return web.Response(text="Ok.\n")
            result = await asyncio.get_running_loop().run_in_executor(self._threads, self._engine.run, query)
            if result.file is not None:
                return await _stream(request, query, result, result.file, query_id)
            return _reply(request, params, query, result, query_id)
        except web.HTTPRequestEntityTooLarge:
            return _error(413, 307, f"the request body exceeds {self._max_body} bytes (TOO_MANY_BYTES)", query_id)
        except codecs.TooLarge:
            return _error(413, 307, f"the body exceeds {self._max_body} bytes decompressed (TOO_MANY_BYTES)", query_id)
        except codecs.Unsupported as e:
            return _error(400, 432, f"{e} (UNKNOWN_COMPRESSION_METHOD)", query_id)
        except _Refused as e:
            return _error(_STATUS.get(e.code, 500), e.code, str(e), query_id)
        except SqlError as e:
            text = e.text if "(version " in e.text else f"{e.text} (version {self._engine.version})"
            return _failure(_STATUS.get(e.code, 500), e.code, text, query_id)

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Refuse what a page in a browser could send: another Host (DNS rebinding), another Origin (forged forms)."""
        host = foreign_host(request.headers.get("Host"), request.headers.get("Origin"), self._hosts)
        if host is None:
            return None
        return _error(
            403, 195, f"host {host!r} is not served here; add it with --allow-host (IP_ADDRESS_NOT_ALLOWED)", ""
        )

    async def _read(self, request: web.Request) -> tuple[Mapping[str, str], Query | None]:
        """Read the request's parameters and its statement, None for no statement at all."""
        params: dict[str, str] = dict(request.query)
        text = params.get("query", "").encode()
        if request.content_type == "multipart/form-data":
            params.update(await _form(request))
            body = b""
            text = params.get("query", "").encode()
        else:
            body = await request.read()
            body = codecs.decompress(body, request.headers.get("Content-Encoding", "").lower(), self._max_body)
        joined = text + b"\n" + body if text and body else text or body
        if not joined.strip():
            return params, None
        statement = parse(joined)
        if statement.uses_files:
            raise _Refused(
                344, "INFILE and OUTFILE are refused: the files would be this server's (SUPPORT_IS_DISABLED)"
            )
        if request.method != "POST" and not statement.reads:
            raise _Refused(164, f"{statement.verb or 'this'} needs POST, GET only reads (READONLY)")
        default_format = params.get("default_format") or request.headers.get("X-ClickHouse-Format") or "TabSeparated"
        return params, Query(
            statement,
            database=params.get("database") or request.headers.get("X-ClickHouse-Database") or "default",
            settings={k: v for k, v in params.items() if k not in _TRANSPORT and not k.startswith("param_")},
            parameters={k[6:]: v for k, v in params.items() if k.startswith("param_")},
            default_format=default_format,
            to_file=statement.reads
            and params.get("wait_end_of_query") == "1"
            and (statement.result_format or default_format) in _FILE_FORMATS,
        )


class _Refused(Exception):
    """The gateway itself refuses the statement; `code` is the ClickHouse error code that says so best."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


async def _form(request: web.Request) -> dict[str, str]:
    fields: dict[str, str] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name is None or part.filename is not None:
            raise _Refused(48, "external data in a form is not supported here (NOT_IMPLEMENTED)")
        fields[part.name] = (await part.read()).decode()
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
