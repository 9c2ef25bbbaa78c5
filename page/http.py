"""The page over HTTP: who may ask, the frames, the views of a trace and of a policy."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from page.acts import ACTS, RECORDS, Desk, aim_of, buttons, problem_of, weights_between, word_of
from page.explaining import Explainer
from page.history import diff, parse_version, share_changes
from page.hub import Full, Hub, running
from page.lag import Lags
from page.overview import Overview
from page.sessions import COOKIE, LIFETIME_S, Sessions
from page.store import CHOSEN, EVENTS, HISTORY, REWARDS, SESSION_FEEDBACK, TRACE_ALERTS, Row, Store, Trouble
from page.waterfall import rewards_by_decision, waterfall
from serving.access import foreign_host
from serving.rate import RateLimit
from steersman.held import PolicySource

log = logging.getLogger("steersman.page")
HERE = Path(__file__).resolve().parent
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, the Origin of our own forms would be null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OPEN = ("/login", "/livez", "/readyz", "/static/")
_HEALTH = ("/livez", "/readyz")
CSRF_FIELD, CSRF_HEADER = "csrf", "X-CSRF-Token"
"""Where a write carries `Sessions.csrf`; templates have it as ``csrf``."""
_LOGINS_PER_S, _LOGINS = 0.1, 10
"""Attempts to sign in that one address has: in the long run, and at once."""
_session: ContextVar[str | None] = ContextVar("session", default=None)
_WRITE_TIMEOUT_S = 20.0
_MAX_FORM = 4096
_NO_FORM = frozenset({"multipart/form-data", "multipart/mixed"})
_TRACE_ID = re.compile(r"[0-9a-f]{32}\Z")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Page:
    """The web application.

    Parameters
    ----------
    overview
        What is read once a second; it uses a store of its own.
    store
        For the views of traces and policies.
    policies
        Newest snapshots, for the weights that are not kept yet; None for none.
    sessions
        Who may look.
    hosts
        Host headers that are answered.
    lags
        Lag of the services.
    max_viewers
        Most that follow the frames at the same time.
    per_s
        Requests that one address may send in the long run, and four times as many at once; unit: per second. 0 for no limit.
    desk
        Writes acts; None for a page that only shows. Acts need a token.
    """

    def __init__(
        self,
        overview: Overview,
        store: Store,
        policies: PolicySource | None,
        sessions: Sessions,
        hosts: frozenset[str],
        lags: Lags,
        max_viewers: int = 200,
        per_s: float = 100.0,
        *,
        desk: Desk | None = None,
    ) -> None:
        self._desk = desk
        self._acting = ThreadPoolExecutor(2, "acts")
        self._overview, self._store, self._explainer = overview, store, Explainer(store, policies)
        self._sessions, self._hosts, self._lags = sessions, hosts, lags
        self._frames, self._views = ThreadPoolExecutor(1, "frames"), ThreadPoolExecutor(1, "views")
        self._rate, self._logins = RateLimit(per_s, int(4 * per_s)), RateLimit(_LOGINS_PER_S, _LOGINS)
        self._trouble: str | None = None
        self._last: dict[str, Any] = {}
        self.hub = Hub(self._frame, max_viewers)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(number=_number, usd=_usd, ms=_ms, when=_when)
        self._static = {
            path.relative_to(HERE / "static").as_posix(): (path.read_bytes(), _TYPES[path.suffix])
            for path in (HERE / "static").rglob("*")
            if path.suffix in _TYPES
        }

    def application(self) -> web.Application:
        """Return the application, to be served once. The runner must not decompress: aiohttp would before it counts."""
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_FORM)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/events", self._events),
                web.get("/trace/{trace}", self._trace),
                web.get("/policy/{policy:.+}", self._policy),
                web.post("/policy/{policy:.+}", self._act),
                web.get("/login", self._login_form),
                web.post("/login", self._login),
                web.post("/logout", self._logout),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/static/{name:.+}", self._file),
            ]
        )
        app.cleanup_ctx.append(self._life)
        app.on_shutdown.append(self._end)
        return app

    async def _life(self, app: web.Application) -> AsyncIterator[None]:
        async with running(self.hub):
            yield
        await self._lags.close()
        self._frames.shutdown(wait=False, cancel_futures=True)
        self._views.shutdown(wait=False, cancel_futures=True)
        self._acting.shutdown(wait=False, cancel_futures=True)

    async def _end(self, app: web.Application) -> None:
        self.hub.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            reply = await self._answer(request, handler)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            reply = self._message(error.status, error.reason)
        if not reply.prepared:
            reply.headers.update(HEADERS)
            reply.headers.setdefault("Cache-Control", "no-store")
        return reply

    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if (host := foreign_host(request.headers.get("Host"), origin, self._hosts)) is not None:
            return self._message(403, f"Host {host!r} is not served here; add it with STEERSMAN_PAGE_ALLOW_HOSTS.")
        if request.method == "POST" and (not origin or origin.partition("//")[2] != request.headers.get("Host", "")):
            return self._message(403, "Only forms of this page may write.")
        if (
            request.headers.get("Content-Encoding", "identity").lower() != "identity"
            or request.content_type in _NO_FORM
        ):
            return self._message(415, "Forms come as browsers send them: not compressed, and without files.")
        if request.path not in _HEALTH and (wait := self._rate.wait_s(request.remote or "")):
            return self._too_many(wait)
        session = request.cookies.get(COOKIE)
        _session.set(session)
        if not request.path.startswith(_OPEN) and not self._sessions.knows(session):
            if request.path == "/events":
                return self._message(401, "Sign in first.")
            return web.Response(status=303, headers={"Location": "/login"})
        # Signing in begins a session: there is none yet that somebody else could use.
        if request.method == "POST" and request.path != "/login":
            offered = request.headers.get(CSRF_HEADER) or (await request.post()).get(CSRF_FIELD)
            if not self._sessions.is_csrf(session, offered):
                return self._message(403, "This form is not of this session. Load the page again.")
        try:
            return await handler(request)
        except UnicodeDecodeError:
            return self._message(400, "What was sent is not UTF-8.")
        except Trouble as error:
            return self._message(503, f"{error}. Try again in a moment.")

    def _page(self, template: str, status: int = 200, **values: Any) -> web.Response:
        text = self._templates.get_template(template).render(
            signed_in=self._sessions.required, csrf=self._sessions.csrf(_session.get()), **values
        )
        return web.Response(text=text, content_type="text/html", status=status)

    def _message(self, status: int, text: str) -> web.Response:
        return self._page("message.html", status, title=str(status), text=text)

    def _too_many(self, wait_s: int) -> web.Response:
        reply = self._message(429, f"Too many requests. Try again in {wait_s} s.")
        reply.headers["Retry-After"] = str(wait_s)
        return reply

    async def _index(self, request: web.Request) -> web.Response:
        return self._page("overview.html", tenant=self._store.tenant)

    async def _frame(self) -> bytes:
        """Return the next server-sent event: what was read, or the last of it with what is wrong."""
        loop = asyncio.get_running_loop()
        lags = self._lags.read()
        try:
            self._last, lag = await asyncio.gather(loop.run_in_executor(self._frames, self._overview.read), lags)
            self._trouble = None
        except Trouble as error:
            self._trouble, lag = str(error), []
        except Exception:
            log.exception("a frame could not be made")
            self._trouble, lag = "The page failed; its log says more", []
        data = {**self._last, "lag": lag, "trouble": self._trouble}
        return b"data: " + json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self.hub.full:
            return self._message(503, "As many follow as may; try later.")
        reply = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await reply.prepare(request)
        with contextlib.suppress(Full, ConnectionError, TimeoutError):
            async with contextlib.aclosing(self.hub.follow()) as frames:
                async for frame in frames:
                    async with asyncio.timeout(_WRITE_TIMEOUT_S):
                        await reply.write(frame)
        return reply

    async def _rows(self, sql: str, **parameters: Any) -> list[Row]:
        def read() -> list[Row]:
            return self._store.rows(sql, **parameters)

        return await asyncio.get_running_loop().run_in_executor(self._views, read)

    async def _trace(self, request: web.Request) -> web.Response:
        trace = request.match_info["trace"].lower()
        if not _TRACE_ID.match(trace):
            return self._message(404, "A trace id is 32 hexadecimal digits.")
        events = await self._rows(EVENTS, trace=trace)
        if not events:
            return self._message(
                404, f"There is no trace {trace} for tenant {self._store.tenant}. It may not be stored yet."
            )
        rewards = rewards_by_decision(await self._rows(REWARDS, trace=trace))
        alerts = await self._rows(TRACE_ALERTS, trace=trace)
        flow = waterfall(events)
        made = [bar.row for bar in flow.bars if bar.row["kind"] == "DECISION"]
        whys = await asyncio.get_running_loop().run_in_executor(self._views, self._explainer.explain, made)
        decisions = [
            {"row": row, "reward": rewards.get(row["decision_id"]), "why": why}
            for row, why in zip(made, whys, strict=True)
        ]
        session = next((row["session_id"] for row in events if row["session_id"]), "")
        judged = await self._rows(SESSION_FEEDBACK, session=session) if session else []
        return self._page(
            "trace.html", trace=trace, flow=flow, decisions=decisions, alerts=alerts, session=session, judged=judged
        )

    async def _policy(self, request: web.Request) -> web.Response:
        name = request.match_info["policy"]
        history = await self._rows(HISTORY, policy=name)
        if not history:
            return self._message(404, f"Tenant {self._store.tenant} has no policy of this name.")
        by_version = {(row["epoch"], row["version"]): row for row in reversed(history)}
        ranks = list(dict.fromkeys((row["epoch"], row["version"]) for row in history))
        new = parse_version(request.query.get("new", ""))
        new = new if new in by_version else ranks[0]
        old = parse_version(request.query.get("old", ""))
        old = old if old in by_version else ranks[min(len(ranks) - 1, ranks.index(new) + 10)]
        if old > new:
            old, new = new, old
        since = by_version[old]["created_at"] - dt.timedelta(hours=1)
        chosen = await self._rows(CHOSEN, policy=name, since=since)
        records = await self._rows(RECORDS, policy=name, e1=old[0], v1=old[1], e2=new[0], v2=new[1])
        told = None if self._desk is None else self._desk.told(request.query.get("told", ""))
        word = told.standing if told is not None and told.standing else word_of(history[0])
        return self._page(
            "policy.html",
            name=name, history=history, old=old, new=new,
            changes=diff(by_version[old], by_version[new]),
            shares=share_changes(chosen, old, new),
            weights=await asyncio.get_running_loop().run_in_executor(self._views, weights_between, records, old, new),
            acts=await self._rows(ACTS, policy=name),
            word=word, told=told, operable=self._operable, buttons=buttons(word) if self._operable else [],
        )  # fmt: skip

    @property
    def _operable(self) -> bool:
        """Whether viewers may operate policies: nobody may without having shown the token."""
        return self._desk is not None and self._sessions.required

    async def _act(self, request: web.Request) -> web.Response:
        """Write an act, and show the policy again with what became of it."""
        name = request.match_info["policy"]
        if self._desk is None or not self._operable:
            return self._message(403, "Policies are operated here only with a token (STEERSMAN_PAGE_TOKEN) and Kafka.")
        form = {key: str(value).strip() for key, value in (await request.post()).items()}
        act, why, expected, to = (form.get(key, "") for key in ("act", "why", "expected", "to"))
        at = parse_version(to)
        problem = problem_of(act, why, expected)
        if problem or (to and at is None) or (act == "PIN" and not to):
            return self._message(400, problem or "That is no version.")
        newest = await self._rows(HISTORY, policy=name)
        if not newest:
            return self._message(404, f"Tenant {self._store.tenant} has no policy of this name.")
        aim = None
        if at is not None:
            rows = await self._rows(RECORDS, policy=name, e1=at[0], v1=at[1], e2=at[0], v2=at[1])
            if (aim := aim_of(rows)) is None:
                return self._message(404, f"The weights of version {to} are no longer kept.")
        act_id = await asyncio.get_running_loop().run_in_executor(
            self._acting, self._desk.ask, name, act, why, expected, newest[0]["epoch"], aim
        )
        return web.Response(status=303, headers={"Location": f"{quote(f'/policy/{name}')}?told={act_id}"})

    async def _login_form(self, request: web.Request) -> web.Response:
        if not self._sessions.required:
            raise web.HTTPSeeOther("/")
        return self._page("login.html", wrong=False)

    async def _login(self, request: web.Request) -> web.Response:
        if wait := self._logins.wait_s(request.remote or ""):
            return self._too_many(wait)
        form = await request.post()
        offered = form.get("token", "")
        session = self._sessions.open(offered) if isinstance(offered, str) else None
        if session is None:
            return self._page("login.html", 401, wrong=True)
        reply = web.Response(status=303, headers={"Location": "/"})
        reply.set_cookie(
            COOKIE, session, max_age=int(LIFETIME_S), httponly=True, samesite="Strict", secure=request.secure, path="/"
        )
        return reply

    async def _logout(self, request: web.Request) -> web.Response:
        self._sessions.close(request.cookies.get(COOKIE))
        reply = web.Response(status=303, headers={"Location": "/login"})
        reply.del_cookie(COOKIE, path="/")
        return reply

    async def _livez(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True, "reasons": []})

    async def _readyz(self, request: web.Request) -> web.Response:
        try:
            await self._rows("SELECT 1")
        except Trouble as error:
            return web.json_response({"ready": False, "reasons": [str(error)]}, status=503)
        return web.json_response({"ready": True, "reasons": []})

    async def _file(self, request: web.Request) -> web.Response:
        found = self._static.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        body, content_type = found
        headers = {"Cache-Control": "no-cache"}
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _usd(micro: float | None) -> str:
    return "–" if micro is None else f"${micro / 1e6:.4f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.1f} ms"


def _when(value: dt.datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S")
