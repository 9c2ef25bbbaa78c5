"""What redaction costs the sender's thread, and that no text can make it slow."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice

from benchmarks.measure import Figure, per_call_us, say, spread
from steersman.finalize import finalize
from steersman.redaction import Redactor

PAYLOAD = (
    "ordinary prose of 2 KiB; an event with five attributes; one with names only; and hostile texts of 256 KiB and 1 MiB, each a "
    "piece repeated that begins like a secret: the slowest of them, and how much longer four times the text takes"
)
_PROSE = (
    "The fleet asked three sources for the quarterly report and kept the second answer, because it was shorter and cited its "
    "figures. Version 3.11.14 was used on 2025-11-23 at 14:05; the cost was 1,234 micro-dollars, 12 % below the mean. "
)
HOSTILE = (
    "a", "@", "a@", "a@a.", "a%40", "4", "4 ", "123 ", "4111 ", "123-", "001 23 ", "+1", "+1 2", "1.", "1.2.3.4.", "DE89", "DE89 ",
    ":", "a:", "ff::", "aa:", "aa-", "-", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "eyJ", "eyJaaaaaaaa.", "sk-", "ghp_", "AKIA",
    "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ", "://", "://a:", "password=", 'password="a', "password is ", "secret ",
    "secret=a", "token ", "bearer aaaaaaaaaaaaaaaaaaaaaaaa ", "authorization:", "cookie: a=", "&sig=A", "key=", "[", '{"a":', '\\"',
    "_", ".", " ", "\n", "é", "\ud800",
)  # fmt: skip
_SMALL, _LARGE = 1 << 18, 1 << 20
_PER_CALL = 200


def figures() -> Iterator[Figure]:
    """Cost of the usual, then the worst of the hostile."""
    redactor = Redactor()
    prose = "".join(islice(cycle(_PROSE), 2048))
    yield per_call_us("Redactor.text", "prose of 2 KiB", lambda: _repeat(lambda: redactor.text(prose)))
    names: dict[str, object] = {
        "trace_id": "1" * 32,
        "span_id": "2" * 16,
        "kind": "TOOL_CALL",
        "operation": "search",
        "provider": "a",
        "error": "Timeout",
    }
    attributes = {
        "url": "https://example.com/a/b",
        "rows": 12,
        "cache": "hit",
        "reason": "second page asked for",
        "ratio": 0.25,
    }
    for what, event in (("event of names", names), ("event with five attributes", names | {"attributes": attributes})):
        for system, used in (("finalize", None), ("finalize, redacting", redactor)):

            def work(event: dict[str, object] = event, used: Redactor | None = used) -> object:
                return finalize(event, Counter(), used)

            yield per_call_us(system, what, lambda work=work: _repeat(work))  # type: ignore[misc]
    slowest: list[float] = []
    growth: list[float] = []
    for unit in HOSTILE:
        small, large = (_seconds(redactor, (unit * (size // len(unit) + 1))[:size]) for size in (_SMALL, _LARGE))
        slowest.append(large)
        growth.append(large / small)
        say(f"redaction: {json.dumps(unit)}: {large:.3f} s CPU for 1 MiB, {large / small:.2f} times 256 KiB")
    worst, fastest = max(slowest), min(slowest)
    middle = sorted(slowest)[len(slowest) // 2]
    yield Figure(
        "Redactor.text, hostile",
        "CPU for 1 MiB",
        "s",
        round(middle, 4),
        round(fastest, 4),
        round(worst, 4),
        len(HOSTILE),
    )
    yield Figure("Redactor.text, hostile", "1 MiB / 256 KiB", "x", *spread(growth), len(HOSTILE))


def _repeat(work: Callable[[], object]) -> int:
    for _ in range(_PER_CALL):
        work()
    return _PER_CALL


def _seconds(redactor: Redactor, text: str) -> float:
    """CPU time of one redaction, the best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        redactor.text(text)
        best = min(best, time.process_time() - started)
    return best
