"""How services log: a JSON object a line, or lines for people where standard error is a terminal; never what agents sent.

``{"ts": "2026-03-01T12:00:00.000000Z", "level": "info", "service": "sink", "logger": "steersman.sink", "event": "assigned", ...}``

All loggers of the process go this way, those of libraries from WARNING on. What was raised is logged with its type and the places
of its frames, and with its message only where the message is ours or the operating system's: a ValueError may quote a
prompt. Of a record that was refused the reason is said; the dead letter has the rest.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from confluent_kafka import KafkaException
from structlog.typing import EventDict, Processor

from steersman.errors import DecodeError, InvalidRecord, SteersmanError

LIBRARIES: Final[Mapping[str, int]] = {
    # Reports every refused connection; the sink does so itself, with what it will do about it.
    "clickhouse_connect": logging.CRITICAL,
    # Routine notices: topic declarations Faust may not make, tracebacks of ordinary rebalances.
    "faust.transport.drivers.aiokafka": logging.ERROR,
    "faust.topics": logging.ERROR,
    "aiokafka": logging.ERROR,
}
"""Logger of a library -> its level, where WARNING would be noise; ``verbose`` lifts it."""

_OURS = (SteersmanError, OSError, KafkaException)
_ROOT = Path(__file__).resolve().parent.parent

log = logging.getLogger("steersman")


def configure(service: str, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send all logs of this process to standard error; call it first.

    Parameters
    ----------
    service
        Name in every line.
    verbose
        Our loggers from DEBUG on, and those of libraries without the exceptions of `LIBRARIES`.
    stream
        Instead of standard error.
    """
    out = sys.stderr if stream is None else stream

    def name(_: Any, __: str, event: EventDict) -> EventDict:
        return {"ts": event.pop("ts"), "level": event.pop("level"), "service": service, **event}

    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _one_line,
        _exception,
    ]
    terminal = out.isatty()
    last = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, name, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    for library, level in LIBRARIES.items():
        logging.getLogger(library).setLevel(logging.NOTSET if verbose else level)
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = lambda args: _crashed(args.exc_type, args.exc_value, args.exc_traceback)


def _one_line(_: Any, __: str, event: EventDict) -> EventDict:
    """Keep asyncio from quoting the future, and in it the exception, whose task nobody waited for."""
    if event.get("logger") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _exception(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace what was raised by what may be said of it."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["exception"] = described(error)
    return event


def described(error: BaseException) -> str:
    """Return type and frames of an error, and of what caused it, the innermost last; its message only where it is safe."""
    said = type(error).__name__
    if isinstance(error, DecodeError | InvalidRecord):
        said += f": {error.reason}"
    elif isinstance(error, _OURS):
        said += f": {error}"
    lines = [said, *(f"  {_place(frame)}" for frame in traceback.extract_tb(error.__traceback__))]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join([*lines, *(["because of", described(cause)] if cause is not None else [])])


def _place(frame: traceback.FrameSummary) -> str:
    path = Path(frame.filename)
    shown = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else Path(*path.parts[-2:])
    return f"{shown}:{frame.lineno} {frame.name}"


def _crashed(kind: type[BaseException], error: BaseException | None, frames: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt):
        return
    log.critical("crashed", exc_info=(kind, error, frames))
