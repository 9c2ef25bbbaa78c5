"""The sink folds settled traces in the background, on a thread and a connection of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from sinks.clickhouse import connect
from sinks.fold import Folded, fold
from steersman.errors import SteersmanError

log = structlog.get_logger("steersman.sink")

_TIMEOUT_S = 600
_LEAVE_S = 5.0


class FoldLoop:
    """Folds at intervals, one core's worth of the server at a time; rows do not wait for it.

    A round that fails is made again at the next interval. The process may end at any point of a round (`sinks.fold`).

    Parameters
    ----------
    url
        Address of ClickHouse.
    every_s
        Pause between two rounds, and before the first; unit: seconds.
    settle_s
        As `sinks.fold.SETTLE_S`.
    mine
        Whether this process is the one to fold; asked at each round.
    tell
        Told what a round has done, None when it failed.
    """

    def __init__(
        self,
        url: str,
        *,
        every_s: float,
        settle_s: float,
        mine: Callable[[], bool],
        tell: Callable[[Folded | None], object],
    ):
        self._url, self._every_s, self._settle_s = url, every_s, settle_s
        self._mine, self._tell = mine, tell
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fold", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the statement that runs; does not wait long for it, since it may end anywhere."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            if self._mine():
                self._round()

    def _round(self) -> None:
        try:
            client = connect(self._url, timeout_s=_TIMEOUT_S)
            try:
                done = fold(client, settle_s=self._settle_s, threads=1, stopped=self._ending.is_set)
            finally:
                client.close()
        except (ClickHouseError, SteersmanError, OSError) as error:
            log.warning("fold_failed", error=str(error).partition("\n")[0][:300])
            self._tell(None)
            return
        if done.steps or done.put_off:
            log.info("folded", events=done.events, traces=done.traces, steps=done.steps, put_off=done.put_off)
        self._tell(done)
