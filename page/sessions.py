"""Who has shown the token: a cookie that names a session, kept in memory only; and what proves that a form is of this page."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

COOKIE = "steersman_page"
LIFETIME_S = 12 * 3600.0
_MOST = 1000


class Sessions:
    """Sessions of those who gave the token.

    Parameters
    ----------
    token
        The token; None lets everybody in.
    monotonic_s
        Clock; unit: seconds.
    """

    def __init__(self, token: str | None, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._token = None if token is None else token.encode()
        self._now = monotonic_s
        self._until: dict[str, float] = {}
        self._secret = secrets.token_bytes(32)

    @property
    def required(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def open(self, offered: str) -> str | None:
        """Return a new session's id for the token, compared in constant time; None for anything else."""
        if self._token is None or not hmac.compare_digest(self._token, offered.encode("utf-8", "replace")):
            return None
        now = self._now()
        self._until = {name: until for name, until in self._until.items() if until > now}
        while len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        session = secrets.token_urlsafe(32)
        self._until[session] = now + LIFETIME_S
        return session

    def knows(self, session: str | None) -> bool:
        """Whether a session may look."""
        return not self.required or (session is not None and self._until.get(session, 0.0) > self._now())

    def close(self, session: str | None) -> None:
        """End a session."""
        self._until.pop(session or "", None)

    def csrf(self, session: str | None) -> str:
        """Return what the forms of a session carry: nobody else's page can know it, and it is of no use to another session."""
        return hmac.new(self._secret, (session or "").encode("utf-8", "replace"), "sha256").hexdigest()

    def is_csrf(self, session: str | None, offered: object) -> bool:
        """Whether a form carries what `csrf` says, compared in constant time."""
        return isinstance(offered, str) and hmac.compare_digest(
            self.csrf(session).encode(), offered.encode("utf-8", "replace")
        )
