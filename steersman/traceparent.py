"""The ``traceparent`` header of W3C Trace Context (https://www.w3.org/TR/trace-context/), in and out."""

from __future__ import annotations

import re
from typing import NamedTuple

from steersman.ids import is_span_id, is_trace_id

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 0x01


class TraceParent(NamedTuple):
    """Position in a trace: the trace, the span that is the parent from here on, and the flags."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(header: object) -> TraceParent | None:
    """Read a ``traceparent`` header.

    Parameters
    ----------
    header : str or bytes
        The header's value; Kafka headers are bytes, HTTP ones are text.

    Returns
    -------
    TraceParent or None
        None for anything that the specification says to ignore: wrong lengths or digits, upper case,
        all-zero ids, version ``ff``, or extra fields in version ``00``. Higher versions may carry more
        fields, which are skipped. Only the flag bits that version ``00`` defines are kept.
    """
    if isinstance(header, bytes):
        header = header.decode("ascii", "replace")
    if not isinstance(header, str):
        return None
    match = _HEADER.fullmatch(header.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not is_trace_id(trace_id) or not is_span_id(span_id):
        return None
    return TraceParent(trace_id, span_id, int(flags, 16) & SAMPLED)
