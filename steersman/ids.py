"""Random ids as W3C Trace Context wants them, and decision ids made of two of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Mapping
from typing import NamedTuple

# A generator of our own: an application that calls random.seed(0) in every process must not make every
# process produce the same ids. Seeded from the operating system, and again in each forked child.
_rng = random.Random()  # noqa: S311 - ids, not secrets
os.register_at_fork(after_in_child=_rng.seed)
_bits = _rng.getrandbits

_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")
_ZERO_TRACE = "0" * 32
_ZERO_SPAN = "0" * 16


def new_trace_id() -> str:
    """Random W3C trace id: 32 lower-case hex digits, not all zero."""
    return (_bits(128) or 1).to_bytes(16).hex()


def new_span_id() -> str:
    """Random W3C span id: 16 lower-case hex digits, not all zero."""
    return (_bits(64) or 1).to_bytes(8).hex()


def new_event_id() -> str:
    """Random event id: 32 lower-case hex digits."""
    return _bits(128).to_bytes(16).hex()


def is_trace_id(text: object) -> bool:
    """Whether this is a valid W3C trace id."""
    return isinstance(text, str) and _TRACE.fullmatch(text) is not None and text != _ZERO_TRACE


def is_span_id(text: object) -> bool:
    """Whether this is a valid W3C span id."""
    return isinstance(text, str) and _SPAN.fullmatch(text) is not None and text != _ZERO_SPAN


class DecisionId(NamedTuple):
    """A decision id taken apart."""

    trace_id: str
    span_id: str


def parse_decision_id(text: object) -> DecisionId | None:
    """Take ``<trace_id>-<span_id>`` apart; None when it is anything else."""
    if not isinstance(text, str) or len(text) != 49 or text[32] != "-":
        return None
    trace_id, span_id = text[:32], text[33:]
    return DecisionId(trace_id, span_id) if is_trace_id(trace_id) and is_span_id(span_id) else None


def args_hash(args: Mapping[str, object] | list[object] | tuple[object, ...] | str) -> str:
    """Hash of a call's arguments for the event field ``args_hash``: repeated calls show, contents do not.

    Parameters
    ----------
    args : mapping, sequence or str
        The arguments. What JSON cannot hold goes in as its ``repr``.

    Returns
    -------
    str
        16 hex digits (BLAKE2b, 8 bytes, of the JSON text with sorted keys).
    """
    text = json.dumps(args, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
