"""Lag per stage, from the metrics of the services."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

LAG = "steersman_consumer_lag_records"
_CAP = 4 << 20


def read_lag(text: str) -> dict[str, int]:
    """Return topic -> records not committed yet, from a metrics page in Prometheus' text format.

    Raises
    ------
    ValueError
        It is not in that format.
    """
    # Only the lines needed: parsing all of them once a second would be most of this service's work.
    lines = [line for line in text.splitlines() if LAG in line]
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name == LAG:
                found[sample.labels.get("topic", "")] += int(sample.value)
    return dict(found)


class Lags:
    """Asks the services.

    Parameters
    ----------
    endpoints
        Name of a service -> URL of its metrics.
    """

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        self._endpoints = dict(endpoints)
        self._session: aiohttp.ClientSession | None = None

    async def read(self) -> list[dict[str, Any]]:
        """Return per service and topic how many records wait; ``records`` is None for a service that does not answer."""
        if not self._endpoints:
            return []
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.8))
        answers = await asyncio.gather(*(_one(self._session, url) for url in self._endpoints.values()))
        made: list[dict[str, Any]] = []
        for name, answer in zip(self._endpoints, answers, strict=True):
            if answer is None:
                made.append({"service": name, "topic": "", "records": None})
            else:
                made += [{"service": name, "topic": topic, "records": n} for topic, n in sorted(answer.items())]
        return made

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _one(session: aiohttp.ClientSession, url: str) -> dict[str, int] | None:
    try:
        async with session.get(url) as reply:
            if reply.status != 200:
                return None
            return read_lag((await reply.content.read(_CAP)).decode("utf-8", "replace"))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
