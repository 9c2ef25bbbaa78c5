"""Logs are JSON where no person looks on, and never hold what agents sent."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable

import pytest
import structlog

from serving.logs import configure, described
from steersman.errors import InvalidRecord, SteersmanError, Unreachable

PROMPT = "tell nobody: the password is hunter2"


class Terminal(io.StringIO):
    """A stream with a person behind it."""

    def isatty(self) -> bool:
        return True


def logged(act: Callable[[], object], *, verbose: bool = False) -> list[dict[str, str]]:
    """What a process logs, as whoever collects it reads it."""
    out = io.StringIO()
    configure("sink", verbose=verbose, stream=out)
    act()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def failing(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        try:
            raise error
        except BaseException:
            logging.getLogger("steersman.sink").exception("it failed")

    return act


def test_ours_libraries_and_structlog_s_loggers_write_the_same_lines() -> None:
    def act() -> None:
        logging.getLogger("steersman.streams").info("partition %d restored", 3)
        structlog.get_logger("steersman.sink").info("assigned", partitions=["a/1"])
        logging.getLogger("somebody").warning("hm")
        logging.getLogger("somebody").info("not worth it")
        logging.getLogger("aiokafka").warning("a rebalance")

    lines = logged(act)
    assert [list(line)[:3] for line in lines] == [["ts", "level", "service"]] * 3
    assert all(line["ts"].endswith("Z") for line in lines)
    assert [(line["level"], line["service"], line["logger"], line["event"]) for line in lines] == [
        ("info", "sink", "steersman.streams", "partition 3 restored"),
        ("info", "sink", "steersman.sink", "assigned"),
        ("warning", "sink", "somebody", "hm"),
    ]
    assert lines[1]["partitions"] == ["a/1"]
    assert [line["logger"] for line in logged(act, verbose=True)][-1] == "aiokafka"


def test_an_error_is_logged_with_its_place_and_without_what_it_quotes() -> None:
    for error in (ValueError(PROMPT), KeyError(PROMPT), InvalidRecord("metric", PROMPT)):
        [line] = logged(failing(error))
        assert PROMPT not in json.dumps(line)
        assert line["exception"].startswith(type(error).__name__)
        assert "tests/serving/test_logs.py:" in line["exception"]
    assert "InvalidRecord: metric" in line["exception"]
    [line] = logged(failing(Unreachable("Kafka at k:1", "start it")))
    assert "cannot reach Kafka at k:1. start it" in line["exception"]


def test_what_caused_an_error_is_told_the_same_way() -> None:
    try:
        try:
            int(PROMPT)
        except ValueError as error:
            raise SteersmanError("the batch failed") from error
    except SteersmanError as error:
        said = described(error)
    assert said.splitlines()[0] == "SteersmanError: the batch failed"
    assert "because of\nValueError\n" in said
    assert PROMPT not in said


def test_nobody_s_error_a_thread_s_and_a_warning_are_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        def crash() -> None:
            raise ValueError(PROMPT)

        thread = threading.Thread(target=crash)
        thread.start()
        thread.join()
        try:
            crash()
        except ValueError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("old", DeprecationWarning, stacklevel=1)

    lines = logged(act)
    assert [line["event"] for line in lines[:2]] == ["crashed"] * 2
    assert lines[2]["logger"] == "py.warnings"
    assert PROMPT not in json.dumps(lines)


def test_asyncio_does_not_quote_the_exception_of_a_task() -> None:
    said = f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{PROMPT}')>"
    [line] = logged(lambda: logging.getLogger("asyncio").error(said))
    assert line["event"] == "Task exception was never retrieved"


def test_a_terminal_gets_lines_for_people_without_payloads_either() -> None:
    out = Terminal()
    configure("sink", stream=out)
    failing(ValueError(PROMPT))()
    assert "it failed" in out.getvalue()
    assert "ValueError" in out.getvalue()
    assert PROMPT not in out.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(out.getvalue().splitlines()[0])
