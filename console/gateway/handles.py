"""chDB's connections: settings and database of each, and a bounded set of them that statements take turns with."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import chdb

from console.gateway.query import Query, escape


class Handle:
    """A chDB connection, with the database and settings it currently has; a sealed one keeps them for good."""

    def __init__(self, path: str):
        self.connection: Any = chdb.connect(path)  # type: ignore[no-untyped-call]
        self.connection.query("SET implicit_select = 0")  # as on a server: `1` alone is no statement
        self.database = "default"
        self.settings: dict[str, str] = {}
        self.sealed = False

    def fits(self, query: Query) -> bool:
        """Whether a query may run on it."""
        return not self.sealed or (
            query.sealed and self.database == query.database and self.settings == dict(query.settings)
        )

    def seal(self) -> None:
        """Let nothing be written or set any more; there is no way back."""
        if not self.sealed:
            self.connection.query("SET readonly = 1")
            self.sealed = True

    def prepare(self, database: str, settings: Mapping[str, str]) -> None:
        """Take up the database and the settings of a statement, and let go of the last one's."""
        if self.sealed:
            return
        if database != self.database:
            self.connection.query(f"USE `{escape(database, '`')}`")
            self.database = database
        if settings != self.settings:
            changes = [f"{name} = DEFAULT" for name in self.settings if name not in settings]
            changes += [
                f"{name} = '{escape(value, chr(39))}'"
                for name, value in settings.items()
                if self.settings.get(name) != value
            ]
            self.connection.query("SET " + ", ".join(changes))
            self.settings = dict(settings)


class Pool:
    """Connections that statements share, one at a time each; made when first needed."""

    def __init__(self, path: str, size: int):
        self._path = path
        self._free: list[Handle | None] = [None] * size
        self._size = size
        self._changed = threading.Condition()

    def take(self, query: Query) -> Handle:
        """Return a connection on which a query may run: one that fits if there is one, a new one otherwise."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            fits = [i for i, one in enumerate(self._free) if one is not None and one.fits(query)]
            new = [i for i, one in enumerate(self._free) if one is None]
            handle = self._free.pop((fits[-1:] or new[-1:] or [0])[0])
        try:
            if handle is not None and not handle.fits(query):
                handle.connection.close()
                handle = None
            return handle or Handle(self._path)
        except BaseException:
            self.give(None)
            raise

    def give(self, handle: Handle | None) -> None:
        """Take a connection back; None for one that was closed."""
        with self._changed:
            self._free.append(handle)
            self._changed.notify()

    def close(self) -> None:
        """Wait for what runs, and close all of them."""
        for _ in range(self._size):
            with self._changed:
                self._changed.wait_for(lambda: self._free)
                handle = self._free.pop()
            if handle is not None:
                handle.connection.close()
