"""What the processes' own entry points change of the interpreter goes back to what it was."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from serving.logs import LIBRARIES


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("steersman")
    before = list(root.handlers), root.level, ours.level, sys.excepthook, threading.excepthook
    yield
    root.handlers[:], level, own, sys.excepthook, threading.excepthook = before
    root.setLevel(level)
    ours.setLevel(own)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    structlog.reset_defaults()
