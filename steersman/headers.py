"""Headers of a record that confluent-kafka read, whatever somebody wrote into them."""

from __future__ import annotations

from confluent_kafka import Message

UNREADABLE = "steersman.headers"
"""Name of the header that stands for those of a record whose names are not UTF-8; says so."""


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """Return the headers of a record; of one with a name that is not UTF-8, one that says so.

    Brokers do not look at names. confluent-kafka fails on such a record when it is asked for the first time, and has kept a list
    with nothing in it by then, not even None: whoever walks through that one takes the process with him.

    Parameters
    ----------
    message : confluent_kafka.Message
        As it was read.
    """
    try:
        found = message.headers()
    except (SystemError, UnicodeDecodeError):
        message.set_headers([(UNREADABLE, b"a name is not UTF-8")])
        found = message.headers()
    if not isinstance(found, list):
        return []
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in found]
