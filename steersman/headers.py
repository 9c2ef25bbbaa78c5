"""Headers of a record that confluent-kafka read, whatever somebody wrote into them."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

from confluent_kafka import Message

UNREADABLE = "steersman.headers"
"""Name of the header that stands for those of a record whose names are not UTF-8; says so."""

RULES_HEADER = "steersman.rules"
"""Name of the header of a policy snapshot that says by which rules (`learners.exploring.RULES`) it was made of what was learned."""

# Called from C, which looks whether an error was set beside the result. The interpreter's own fast path, which a line takes
# once it has run a few times, only does so when built for debugging.
_ask: Any = methodcaller("headers")


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """Return the headers of a record; of one with a name that is not UTF-8, one that says so.

    Brokers do not look at names. Of such a record confluent-kafka (2.16) makes a tuple with nothing where the name should be, not
    even None, and whoever touches that takes the process with him: SIGSEGV. It also sets an error, but returns the tuple.

    Parameters
    ----------
    message : confluent_kafka.Message
        As it was read.
    """
    try:
        found = _ask(message)
    except (SystemError, UnicodeDecodeError):
        message.set_headers([(UNREADABLE, b"a name is not UTF-8")])
        found = _ask(message)
    if not isinstance(found, list):
        return []
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in found]
