"""The errors this package raises, one class per thing that a caller can do about it."""

from __future__ import annotations


class SteersmanError(Exception):
    """Base of every error raised on purpose by this project."""


class ConfigError(SteersmanError):
    """A setting or a file is wrong: refuse to start, and say which one and what to write instead."""


class _Reasoned(SteersmanError):
    """An error with a short machine-readable reason and a detail for people.

    Parameters
    ----------
    reason : str
        Low-cardinality name, fit for a counter label, e.g. ``"trailing_bytes"``.
    detail : str
        What exactly was wrong with this one record.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class DecodeError(_Reasoned):
    """Bytes that are not a record of the schema expected: dead letter, stage ``DESERIALIZE``."""


class InvalidRecord(_Reasoned):
    """A well-formed record whose content cannot be right: dead letter, stage ``VALIDATE``."""


class SnapshotError(SteersmanError):
    """A policy snapshot that must not be used: keep the last good one."""


class Unreachable(SteersmanError):
    """A service that does not answer.

    Parameters
    ----------
    what : str
        The service and its address, e.g. ``"Kafka at 127.0.0.1:9092"``.
    hint : str
        What to do about it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"cannot reach {what}. {hint}".rstrip())
        self.what = what
        self.hint = hint
