"""Why a request is refused, with the HTTP status that says so."""

from __future__ import annotations

from steersman.errors import SteersmanError


class Refused(SteersmanError):
    """A request, or a record of the Collector's topic, that cannot be taken.

    Parameters
    ----------
    status : int
        HTTP status.
    reason : str
        Low-cardinality name, fit for a counter label.
    detail : str
        What exactly was wrong, for people.
    retry_after_s : int, optional
        When to try again, for what may succeed later; unit: seconds.
    """

    def __init__(self, status: int, reason: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
