"""Whose events these are: the tenant of whoever was let in. What names another tenant becomes a dead letter.

A dead letter of the doors over HTTP holds the event that would have been published, under the sender's own tenant: neither the
letter nor a replay of it reaches the tenant that was named, and content is left out of it as of every event, and the rest is redacted as an event is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from doors.publisher import Record
from doors.refused import Refused
from steersman.codec import Codec
from steersman.dead_letter import HEADER, failure_headers

HEADER_NAME: Final = "X-Steersman-Tenant"
"""HTTP header by which a request may say whose it is."""
_SHOWN: Final = 80


class TenantMismatch(Refused):
    """A request whose token is of one tenant and which names another; 403, ``tenant_mismatch``.

    Parameters
    ----------
    detail : str
        What named whom.
    letters : sequence of Record
        For the dead-letter topic.
    """

    def __init__(self, detail: str, letters: Sequence[Record] = ()) -> None:
        super().__init__(403, "tenant_mismatch", detail)
        self.letters = letters


def mismatch(what: str, named: str, tenant: str) -> str:
    """Say what names another tenant than that of its sender."""
    return f"tenant_mismatch: {what} names tenant {named[:_SHOWN]!r}, whoever sent it is let in as {tenant!r}"


def letter(topic: str, codec: Codec, event: dict[str, Any], why: str) -> Record:
    """Make the dead letter of an event.

    Parameters
    ----------
    topic
        The dead-letter topic.
    codec
        Of ``trace_event``.
    event
        The event, under the tenant of its sender.
    why
        What `mismatch` says.
    """
    headers = failure_headers("", -1, -1, "VALIDATE", TenantMismatch(why), connector="doors")
    # There is no record that failed: without these, the letter counts as its own place.
    place = {HEADER + name for name in ("topic", "partition", "offset", "task.id")}
    kept = [(name, value) for name, value in headers if name not in place]
    return Record(topic, event["trace_id"].encode(), codec.encode(event), [("tenant", event["tenant"].encode()), *kept])
