"""Scripts as names of agents, tools, arms and policies, as comments, labels, errors and alerts: through Kafka and the sink to the page.

A headless Chromium opens every view that shows them. None may open a dialog, ask any address but the page's, set a variable,
or become an element or an attribute that runs something. Every one must be seen as the text it is. A control, a page that does not
escape, must be caught at it by most of them, or the watching proves nothing.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.page.browser import Tab, browse
from tests.trust.part import Found, Say
from tests.trust.running import running
from tests.trust.scripts import payloads

MIN_CAUGHT = 15
"""Payloads that the page without escaping must be caught by: the others need a browser or a place that it is not."""
FOREIGN = """
(() => {
  const bad = [];
  for (const one of document.querySelectorAll('*')) {
    const name = one.localName;
    if (name === 'script' && !one.src.startsWith(location.origin + '/static/')) bad.push('script');
    if (['iframe', 'object', 'embed', 'img', 'base', 'math', 'video', 'audio', 'style', 'body svg script'].includes(name)) bad.push(name);
    if (name === 'meta' && one.httpEquiv) bad.push('meta');
    if (name === 'link' && !one.href.startsWith(location.origin + '/static/')) bad.push('link');
    for (const a of one.attributes) {
      if (a.name.startsWith('on')) bad.push(name + ' ' + a.name);
      if (/^(href|src|action|data|srcdoc|formaction)$/.test(a.name) && /^\\s*(javascript|data|vbscript):/i.test(a.value)) bad.push(name + ' ' + a.name);
    }
  }
  if (window.xss) bad.push('window.xss');
  return bad;
})()
"""
"""What on a page does not belong there."""


class Evil:
    """An address that hears of scripts that ran, and serves the page that does not escape."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, str] = {}
        evil = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = evil.pages.get(self.path)
                if page is None:
                    evil.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the browser is on its way to somewhere else
                    self.wfile.write((page or "").encode())

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Evil:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def records(texts: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What an agent and the workers would have written: for each text a trace, a policy, rewards, and an alert."""
    now = time.time_ns() // 1000
    for i, text in enumerate(texts):
        trace, level = f"{i + 1:032x}", text.replace(";", ",")  # no knob has a level with a ";"
        common = {"tenant": "default", "trace_id": trace, "agent": text, "session_id": text}
        for n, span in enumerate(
            (
                {"kind": "AGENT", "duration_us": 900_000, "ts": now},
                {"kind": "TOOL_CALL", "operation": text, "status": "ERROR", "error": text, "duration_us": 1000, "ts": now},
                {"kind": "MODEL_CALL", "operation": text, "provider": text, "duration_us": 1000, "ts": now, "output_tokens": 3},
                {"kind": "FEEDBACK", "metric": text, "label": text, "comment": text, "source": text, "value": 0.5, "ts": now},
                {
                    "kind": "DECISION", "decision_id": f"d{i}", "policy": f"team/{text}", "policy_epoch": 1, "policy_version": 1,
                    "arm": f"model={level}", "propensity": 0.5, "explored": False, "mode": "LIVE", "reason": text,
                    "features": [0.5], "context": json.dumps({"text": text}), "ts": now,
                },
            )
        ):  # fmt: skip
            yield "trace_event", {**common, "event_id": f"{i:016x}{n:016x}", "span_id": f"{n + 1:016x}", **span}
        yield "policy_snapshot", {
            "tenant": "default", "policy": f"team/{text}", "epoch": 1, "version": 1, "stage": "LIVE", "baseline": f"model={level}",
            "learner": text, "created_at": now, "knobs": [{"name": "model", "levels": [json.dumps(level), '"b"']}],
        }  # fmt: skip
        for n in range(2):
            yield "reward", {
                "tenant": "default", "policy": f"team/{text}", "decision_id": f"d{i}" if n == 0 else f"d{i}.{n}",
                "trace_id": trace, "agent": text, "ts": now, "decided_at": now, "arm": f"model={level}", "mode": "LIVE",
                "quality": 0.5, "utility": 0.5, "cost_micro_usd": 1, "latency_us": 1,
            }  # fmt: skip
        yield "alert", {
            "tenant": "default", "alert_id": f"a{i}", "ts": now, "detector": text, "severity": "CRITICAL", "policy": text,
            "agent": text, "trace_id": trace, "message": text, "value": 1.0, "threshold": 0.5,
        }  # fmt: skip


def run(quick: bool, seed: int, say: Say) -> Found:
    """Send the texts through Kafka, look at every page that shows them, and count what ran."""
    problems: list[str] = []
    hits: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, Evil() as evil:
        folder = Path(name)
        texts = payloads(evil.url)
        caught = _control(folder / "control", evil, texts)
        say(f"xss: a page that does not escape is caught by {caught} of {len(texts)}")
        if caught < MIN_CAUGHT:
            problems.append(f"the control was caught by {caught} only, so the watching proves little")
        evil.asked.clear()
        with running(
            folder, lambda step: say(f"xss: {step}"), kafka=not quick, page={"STEERSMAN_PAGE_MAX_PER_S": "0"}
        ) as loop:
            made = list(records(texts))
            loop.produce(made)
            for table, contract in (("v_events", "trace_event"), ("v_rewards", "reward"), ("v_alerts", "alert"),
                                    ("v_policies", "policy_snapshot")):  # fmt: skip
                count = sum(kind == contract for kind, _ in made)
                if not loop.await_rows(f"SELECT count() FROM {table}", count):
                    problems.append(f"not all of {table} reached the store")
            say("xss: looking at every view")
            seen = _look(folder / "browser", loop.page, texts, hits)
        problems += [f"{text!r} is not seen on the page as what it is" for text in texts if text not in seen]
        if evil.asked:
            hits["foreign request"] += len(evil.asked)
    problems += [f"{what}: {count} times" for what, count in sorted(hits.items())]
    return Found(
        {"xss_payloads": len(texts), "xss_hits": sum(hits.values())}, problems,
        {"caught_without_escaping": caught, "views": 1 + 3 * len(texts), "hits": dict(hits)},
    )  # fmt: skip


def _look(folder: Path, url: str, texts: list[str], hits: Counter[str]) -> set[str]:
    """Open the overview, every policy and every trace; returns the texts that are seen."""
    seen: set[str] = set()

    async def note(tab: Tab, where: str) -> None:
        for what in await tab.js(FOREIGN):
            hits[f"{what} on {where}"] += 1

    async def work(tab: Tab) -> None:
        await tab.open(url, f"document.querySelectorAll('#policies button').length >= {len(texts)}")
        for i in range(len(texts)):
            await tab.js(f"document.querySelectorAll('#policies button')[{i}].click()")
            await tab.until("document.querySelectorAll('#plots canvas').length >= 5")
        await note(tab, "overview")
        overview = await tab.js("document.body.textContent")
        for i, text in enumerate(texts):
            await tab.open(f"{url}/trace/{i + 1:032x}", "document.querySelector('.flow') !== null")
            await note(tab, "trace")
            shown = await tab.js("document.body.textContent")
            await tab.js("document.querySelector('.decision h3 a').click()")
            await tab.until("location.pathname.startsWith('/policy/') && document.querySelector('main') !== null")
            await note(tab, "policy")
            policy = await tab.js("document.body.textContent")
            if all(" ".join(text.split()) in " ".join(page.split()) for page in (overview, shown, policy)):
                seen.add(text)
        hits["dialog"] += len(tab.dialogs)
        own = url.removeprefix("http://")
        hits["foreign request"] += sum(
            asked.startswith(("http", "ws")) and f"//{own}/" not in asked for asked in tab.requests
        )

    folder.mkdir(parents=True, exist_ok=True)
    browse(folder, work)
    for none in [what for what, count in hits.items() if not count]:
        del hits[none]
    return seen


def _control(folder: Path, evil: Evil, texts: list[str]) -> int:
    """Show the texts on pages that do not escape them, and return how many are caught at it."""
    caught: set[int] = set()
    for i, text in enumerate(texts):
        evil.pages[f"/control/{i}"] = f"<!doctype html><title>{text}</title><p title='{text}'>{text}</p>"

    async def work(tab: Tab) -> None:
        for i in range(len(texts)):
            before = len(tab.dialogs), len(evil.asked)
            with contextlib.suppress(AssertionError, TimeoutError):
                await tab.open(f"http://127.0.0.1:{evil.port}/control/{i}")
                if await tab.js(FOREIGN) or (len(tab.dialogs), len(evil.asked)) != before:
                    caught.add(i)

    folder.mkdir(parents=True, exist_ok=True)
    browse(folder, work)
    return len(caught)
