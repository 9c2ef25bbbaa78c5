"""Addresses that hold a password, as they may be shown."""

from __future__ import annotations

import re

# To the last @ without a space before it: whoever writes a password with / or @ into an address forgets to encode it.
_PASSWORD = re.compile(r"(//[^/@:\s]*|^(?!(?:https?|ftp|chdb)://)[^/@:\s]*):\S*@")


def without_passwords(text: str) -> str:
    """Return a text, an address or an error that quotes one, with ``***`` for the password of every address in it."""
    return _PASSWORD.sub(r"\1:***@", text)
