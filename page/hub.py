"""One frame a second for all who follow: computed once, and not at all while nobody looks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable


class Full(Exception):
    """As many follow as may."""


class Hub:
    """Computes frames and hands each to every viewer; who is slow gets the newest and misses those between.

    Parameters
    ----------
    compute
        Makes a frame.
    max_viewers
        Most that follow at the same time.
    period_s
        Time from frame to frame; unit: seconds.
    """

    def __init__(self, compute: Callable[[], Awaitable[bytes]], max_viewers: int, period_s: float = 1.0) -> None:
        self._compute, self._max, self._period_s = compute, max_viewers, period_s
        self._viewers: set[asyncio.Event] = set()
        self._wanted = asyncio.Event()
        self._frame: bytes = b""
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many follow."""
        return len(self._viewers)

    @property
    def full(self) -> bool:
        """Whether as many follow as may."""
        return len(self._viewers) >= self._max

    async def run(self) -> None:
        """Make frames until `close`."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            await self._wanted.wait()
            began = loop.time()
            frame = await self._compute()
            self._frame = frame
            for viewer in self._viewers:
                viewer.set()
            await asyncio.sleep(max(0.0, self._period_s - (loop.time() - began)))

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Yield frames as they come, beginning with the next.

        Raises
        ------
        Full
            As many follow as may.
        """
        if self.full:
            raise Full
        news = asyncio.Event()
        self._viewers.add(news)
        self._wanted.set()
        try:
            while True:
                await news.wait()
                if self._closed:
                    return
                news.clear()
                yield self._frame
        finally:
            self._viewers.discard(news)
            if not self._viewers:
                self._wanted.clear()

    def close(self) -> None:
        """End every `follow`."""
        self._closed = True
        for viewer in self._viewers:
            viewer.set()


@contextlib.asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[None]:
    """Run a hub for as long as the block lasts."""
    task = asyncio.create_task(hub.run())
    try:
        yield
    finally:
        hub.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
