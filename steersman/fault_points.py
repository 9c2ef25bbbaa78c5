"""Named places at which a test can make a process die, as if the machine had: proof of what survives.

``STEERSMAN_FAULT_POINT=trace.state_delivered:2`` ends the process with exit code 137, without any clean-up, when it
comes by that place for the second time. Without the variable the places do nothing.
"""

from __future__ import annotations

import os

VARIABLE = "STEERSMAN_FAULT_POINT"
EXIT_CODE = 137


def _parse(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    return name, int(count or 1)


_name, _left = _parse(os.environ.get(VARIABLE, ""))


def reach(name: str) -> None:
    """Pass a place; die there when it is the one and the time to."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os._exit(EXIT_CODE)
