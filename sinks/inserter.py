"""Attempts one after the other, on a thread of their own: ClickHouse is waited for while the sink reads on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any

from sinks.attempt import Attempt


class Inserter:
    """Runs attempts in the order in which they are given, one at a time, with a connection of its own.

    One thread for all tables, not one for each: inserts take turns at the server's cores anyway, and a table waits for
    one batch of each other table at most, since none has two under way. All methods are for one thread, the sink's.

    Parameters
    ----------
    connect
        Gives a client of ClickHouse; raises Unreachable when there is none. Asked before the first attempt, and again
        after each that failed: a client's connection may be to a server that is gone.
    background
        Whether attempts run on a thread; without one, `begin` runs them.
    """

    def __init__(self, connect: Callable[[], Any], *, background: bool = True):
        self._connect = connect
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="insert") if background else None
        self._given: dict[Future[None], Attempt] = {}
        self._store: Any = None

    def begin(self, attempt: Attempt) -> None:
        """Take an attempt; it runs behind those given before."""
        if self._thread is not None:
            self._given[self._thread.submit(self._run, attempt)] = attempt
        else:
            done: Future[None] = Future()
            self._run(attempt)
            done.set_result(None)
            self._given[done] = attempt

    def finished(self, *, wait_for_one: bool = False) -> list[Attempt]:
        """Return the attempts that have ended since the last call, in their order.

        Parameters
        ----------
        wait_for_one
            Wait for one, where any is under way.

        Raises
        ------
        Exception
            What an attempt raised, which is none of the failures that it reports.
        """
        if wait_for_one and self._given:
            wait(self._given, return_when=FIRST_COMPLETED)
        ended = [future for future in self._given if future.done()]
        for future in ended:
            future.result()
        return [self._given.pop(future) for future in ended]

    def withdraw(self) -> list[Attempt]:
        """Take back the attempts that have not begun; one may still run, or have ended."""
        withdrawn = [future for future in self._given if future.cancel()]
        return [self._given.pop(future) for future in withdrawn]

    def stop(self) -> None:
        """End behind the attempt that runs, and leave the server."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._forget()

    def _run(self, attempt: Attempt) -> None:
        attempt.run(self._client)
        if attempt.error is not None:
            self._forget()

    def _client(self) -> Any:
        if self._store is None:
            self._store = self._connect()
        return self._store

    def _forget(self) -> None:
        if self._store is not None:
            with closing(self._store):
                self._store = None
