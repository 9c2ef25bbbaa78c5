"""`python -m benchmarks.soak_visitors`: whoever comes by HTTP, until SIGTERM: OTLP and feedback at the doors, viewers of the live page."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence

import aiohttp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS = 20
"""Spans of a request to the doors."""
_TYPES = {"/v1/traces": "application/x-protobuf", "/v1/feedback": "application/json"}


def spans(rng: random.Random, now_ns: int) -> tuple[bytes, str]:
    """Return a trace of `SPANS` spans under one root as an OTLP body, and its trace id."""
    request, trace = ExportTraceServiceRequest(), rng.getrandbits(128) | 1
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "soak"
    scope = resource.scope_spans.add()
    root = rng.getrandbits(64) | 1
    for number in range(SPANS):
        took = rng.randint(1_000_000, 900_000_000)
        span = scope.spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=(root + number & (1 << 64) - 1 or 1).to_bytes(8, "big"),
            parent_span_id=b"" if number == 0 else root.to_bytes(8, "big"),
            name="invoke_agent soak" if number == 0 else "chat model-small",
            kind=1 if number == 0 else 3,
            start_time_unix_nano=now_ns - took,
            end_time_unix_nano=now_ns,
        )
        said = {
            "gen_ai.operation.name": "invoke_agent" if number == 0 else "chat",
            "gen_ai.request.model": "model-small",
        }
        for key, value in said.items():
            span.attributes.add(key=key).value.string_value = value
        if number:
            span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = rng.randint(1, 4000)
            span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = rng.randint(1, 900)
    return request.SerializeToString(), f"{trace:032x}"


async def _visit(doors: str, rate: float, stop: asyncio.Event, seen: Counter[str]) -> None:
    rng = random.Random(2)  # noqa: S311  (load, no secret)
    async with aiohttp.ClientSession(doors, timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def send(path: str, body: bytes) -> None:
            try:
                async with session.post(path, data=body, headers={"Content-Type": _TYPES[path]}) as reply:
                    seen[f"{path} {reply.status}"] += 1
                    await reply.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                seen[f"{path} {type(error).__name__}"] += 1

        started, done = time.monotonic(), 0
        while not stop.is_set():
            ahead = done / rate - (time.monotonic() - started)
            if ahead > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), ahead)
                continue
            body, trace = spans(rng, time.time_ns())
            await send("/v1/traces", body)
            await send("/v1/feedback", json.dumps({"trace_id": trace, "value": rng.random()}).encode())
            done += 1


async def _view(page: str, stop: asyncio.Event, seen: Counter[str]) -> None:
    """Follow the page's events; begin again when the stream ends."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(page, timeout=timeout, read_bufsize=4 << 20) as session:
        while not stop.is_set():
            try:
                async with session.get("/events") as reply:
                    while not stop.is_set():
                        frame = await reply.content.readuntil(b"\n\n")
                        seen["frames" if b'"trouble":null' in frame else "frames with trouble"] += 1
            except (aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError) as error:
                seen[f"page {type(error).__name__}"] += 1
                await asyncio.sleep(1.0)


async def _run(doors: str, page: str, rate: float, viewers: int) -> dict[str, int]:
    stop, seen = asyncio.Event(), Counter[str]()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    watching = [asyncio.create_task(_view(page, stop, seen)) for _ in range(viewers)]
    print(json.dumps({"ready": True}), flush=True)
    await _visit(doors, rate, stop, seen)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return dict(seen)


def main(argv: Sequence[str] | None = None) -> int:
    """Visit; prints what was answered as one JSON object, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak_visitors", description=__doc__)
    parser.add_argument("--doors", required=True, metavar="URL")
    parser.add_argument("--page", required=True, metavar="URL")
    parser.add_argument("--rate", type=float, required=True, help=f"requests of {SPANS} spans a second")
    parser.add_argument("--viewers", type=int, default=2)
    options = parser.parse_args(argv)
    seen = asyncio.run(_run(options.doors, options.page, options.rate, options.viewers))
    print(json.dumps({"seen": seen}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
