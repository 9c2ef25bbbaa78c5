"""How an error of a service becomes a sentence in its log and an exit code."""

from __future__ import annotations

import logging
from collections.abc import Callable

from steersman.errors import ConfigError, SteersmanError, Unreachable


def exit_code(name: str, work: Callable[[], int]) -> int:
    """Do the work of a service; returns its exit code, or logs what went wrong: 1 failed, 2 usage, 3 unreachable."""
    try:
        return work()
    except SteersmanError as error:
        logging.getLogger(f"steersman.{name}").critical("%s", error)
        return 3 if isinstance(error, Unreachable) else 2 if isinstance(error, ConfigError) else 1
