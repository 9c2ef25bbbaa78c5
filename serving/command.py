"""What the command lines of services share: where the log goes, and how an error becomes a sentence and an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from steersman.errors import ConfigError, SteersmanError, Unreachable


def log_to_stderr(logger: str) -> None:
    """Send the log to standard error: of the loggers below `logger` from INFO on, of others from WARNING on."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING, stream=sys.stderr
    )
    logging.getLogger(logger).setLevel(logging.INFO)


def exit_code(name: str, work: Callable[[], int]) -> int:
    """Do the work of a service; returns its exit code, or says what went wrong: 1 failed, 2 usage, 3 unreachable."""
    try:
        return work()
    except SteersmanError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 3 if isinstance(error, Unreachable) else 2 if isinstance(error, ConfigError) else 1
