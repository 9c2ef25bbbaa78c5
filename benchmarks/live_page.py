"""`python -m benchmarks.live_page`: the live page followed by many: how old is what they see, and what does it cost?

The page runs as its own process over chDB behind the local gateway. Viewers follow ``/events``; alerts are inserted one by one, and
each viewer's time from the insert's reply to the frame with the alert is measured. CPU is that of the page's process, and that of the store it asks.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import aiohttp

from benchmarks.measure import Figure, add_out, alone, header, percentile, say, write
from benchmarks.usage import cpu_of
from console.children import Child, free_port, python
from page.store import Store
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.errors import SteersmanError

_ROWS = """
INSERT INTO rewards (decision_id, tenant, policy, trace_id, agent, ts, decided_at, policy_epoch, policy_version, arm, propensity,
    explored, mode, quality, utility, cost_micro_usd, latency_us, kafka_offset)
SELECT toString(number), 'default', concat('team/', toString(number % 6)), lower(hex(MD5(toString(number)))), 'a',
    now64(6) - toIntervalMillisecond(number % 900000), now64(6) - toIntervalMillisecond(number % 900000), 1, number,
    concat('model=m', toString(number % 7), ';effort=', toString(number % 3)), 0.5, number % 9 = 0,
    if(number % 10 = 0, 'HOLDOUT', 'LIVE'), rand() / 4294967295, rand() / 4294967295, rand() % 20000, rand() % 3000000, number
FROM numbers({n:UInt64})
"""
_ALERT = (
    "INSERT INTO alerts (alert_id, tenant, ts, detector, severity, message) VALUES "
    "({id:String}, 'default', now64(6), 'bench', 'INFO', {id:String})"
)


def main() -> None:
    """Measure and write ``results/page.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_page", description=__doc__)
    parser.add_argument("--viewers", type=int, default=50, help="browsers that follow (default 50)")
    parser.add_argument("--alerts", type=int, default=20, help="alerts inserted (default 20)")
    parser.add_argument("--rewards", type=int, default=300_000, help="rewards in the window shown (default 300,000)")
    add_out(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(Path(folder), options.viewers, options.alerts, options.rewards)
    payload = f"{options.viewers} viewers, {options.rewards:,} rewards of 6 policies in the 15 minutes shown, {options.alerts} alerts"
    for f in figures:
        print(f"page     {f.system:12} {f.metric:24} {f.median:10g} {f.unit}")
    head = header(payload, "python -m benchmarks.live_page", {"aiohttp": aiohttp.__version__})
    file = write("page", head, {"figures": [asdict(f) for f in figures]}, options.out)
    say(f"-> {file}")


def _measure(folder: Path, viewers: int, alerts: int, rewards: int) -> list[Figure]:
    port, store = free_port(), free_port()
    url = f"http://127.0.0.1:{store}"
    gateway = Child(
        "gateway", python("console.gateway", "--path", str(folder / "chdb"), "--port", str(store), "--no-login"), folder
    )
    page: Child | None = None
    try:
        gateway.wait_until(lambda: _ready(url), 60, "answering")
        with connect(url) as client:
            migrate(client)
            client.command(_ROWS, parameters={"n": rewards})
            page = Child("page", python("page", "--port", str(port), "--clickhouse", url, "--brokers", ""), folder)
            port_open = f"http://127.0.0.1:{port}"
            page.wait_until(lambda: "page: http" in page.log.read_text() if page else False, 30, "opening")
            return asyncio.run(
                _follow(port_open, Store(url, "default"), {"page": page.pid, "gateway": gateway.pid}, viewers, alerts)
            )
    finally:
        for child in (page, gateway):
            if child is not None:
                child.stop()


def _ready(url: str) -> bool:
    try:
        connect(url).close()
    except SteersmanError:
        return False
    return True


async def _follow(url: str, store: Store, pids: dict[str, int], viewers: int, alerts: int) -> list[Figure]:
    inserted: dict[bytes, float] = {}
    ages: list[float] = []
    gaps: list[float] = []
    sizes: list[int] = []
    connected = asyncio.Semaphore(0)

    async def view(session: aiohttp.ClientSession) -> None:
        seen: set[bytes] = set()
        last: float | None = None
        async with session.get(f"{url}/events") as reply:
            while True:
                frame = await reply.content.readuntil(b"\n\n")
                now = time.monotonic()
                if last is None:
                    connected.release()
                else:
                    gaps.append(now - last)
                last = now
                sizes.append(len(frame))
                for name, at in inserted.items():
                    if name not in seen and name in frame:
                        seen.add(name)
                        ages.append(now - at)

    def add(name: str) -> None:
        store.rows(_ALERT, id=name)
        inserted[name.encode()] = time.monotonic()

    limit = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=limit, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=4 << 20
    ) as session:
        tasks = [asyncio.create_task(view(session)) for _ in range(viewers)]
        for _ in tasks:
            await connected.acquire()
        before, began = cpu_of(pids), time.monotonic()
        for number in range(alerts):
            await asyncio.to_thread(add, f"bench-alert-{number:06d}")
            # Not in step with the frames.
            await asyncio.sleep(1.0 + 0.37 * (number % 3))
        await asyncio.sleep(3)
        wall, after = time.monotonic() - began, cpu_of(pids)
        cores = {name: (after[name] - before[name]) / wall for name in pids}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(ages) != viewers * alerts:
        say(f"{viewers * alerts - len(ages)} of {viewers * alerts} sights are missing")

    def one(metric: str, unit: str, value: float, n: int) -> Figure:
        return Figure("live page", metric, unit, round(value, 4), round(value, 4), round(value, 4), n)

    return [
        one("stored to seen p50", "s", statistics.median(ages), len(ages)),
        one("stored to seen p95", "s", percentile(ages, 0.95), len(ages)),
        one("stored to seen max", "s", max(ages), len(ages)),
        one("frame to frame p95", "s", percentile(gaps, 0.95), len(gaps)),
        one("CPU of the page", "cores", cores["page"], 1),
        one("CPU of ClickHouse (chDB)", "cores", cores["gateway"], 1),
        one("frame", "bytes", statistics.median(sizes), len(sizes)),
    ]


if __name__ == "__main__":
    raise SystemExit(alone(main))
