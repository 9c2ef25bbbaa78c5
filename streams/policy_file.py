"""The policies file of a running worker: read again when it changes, taken over whole or not at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learners.policies import Policies
from learners.policies_file import parse_policies
from steersman.errors import ConfigError

log = logging.getLogger("steersman.streams")


class PolicyFile:
    """Watches the file that a worker's policies came from.

    Parameters
    ----------
    path
        The file.
    policies
        The policies in use, which change in place.
    tenant
        Whose alert it is when the file cannot be used.
    now_us
        Clock of alerts; unit: microseconds since 1970-01-01 UTC.
    """

    def __init__(self, path: Path, policies: Policies, tenant: str, now_us: Callable[[], int]) -> None:
        self._path = path
        self._policies = policies
        self._tenant = tenant
        self._now_us = now_us
        self._stamp = self._look_at()
        self._text = self._read()
        self._doubted = ""

    def look(self) -> dict[str, Any] | None:
        """Take the file over if it has changed; an alert record when it cannot be used, or not all of it."""
        stamp = self._look_at()
        if stamp == self._stamp and not self._doubted:
            return None
        self._stamp = stamp
        text = self._read()
        if text is None or text == self._text:
            self._doubted = ""
            return None
        try:
            refused = self._policies.become(parse_policies(text, str(self._path)))
        except ConfigError as error:
            if self._doubted != text:
                self._doubted = text  # perhaps it is still being written: look once more
                return None
            self._doubted, self._text = "", text
            log.error("the policies file is not used, the policies stay as they are: %s", error)
            return self._alert(text, "CRITICAL", f"The policies stay as they are, for the file cannot be used: {error}")
        self._doubted, self._text = "", text
        log.info("policies of %s taken over", self._path)
        if not refused:
            return None
        log.warning("not all of the policies file could be taken over: %s", "; ".join(refused))
        return self._alert(text, "WARNING", f"Not all of the policies file could be taken over: {'; '.join(refused)}")

    def _look_at(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            log.warning("the policies file %s cannot be read, the policies stay as they are: %s", self._path, error)
            return None

    def _alert(self, text: str, severity: str, message: str) -> dict[str, Any]:
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return {
            "alert_id": digest,
            "tenant": self._tenant,
            "ts": self._now_us(),
            "detector": "policies_file",
            "severity": severity,
            "policy": "",
            "agent": "",
            "trace_id": "",
            "value": None,
            "threshold": None,
            "message": message[:2000],
            "evidence": "{}",
            "source_partition": -1,
            "source_offset": -1,
            "seq": 0,
        }
