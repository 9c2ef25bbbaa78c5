"""Checks of the schema registry, where one is set: is it there, and does it hold every version of every contract."""

from __future__ import annotations

from collections.abc import Iterator

from console.doctor.finding import Finding, fine, problem
from steersman.errors import SteersmanError, Unreachable
from steersman.registry import COMPATIBILITY, Registry
from steersman.topics import Topics


def registry_checks(url: str | None, topics: Topics) -> Iterator[Finding]:
    """Look at a registry; None says that there is none."""
    if not url:
        yield fine("registry", "none is set: records carry the fingerprints of schemas that every service ships")
        return
    try:
        registry = Registry(url, topics=topics, timeout_s=5.0)
    except SteersmanError as error:
        yield problem("registry.address", str(error), "correct STEERSMAN_REGISTRY_URL, or unset it")
        return
    wrong = 0
    try:
        for entry in registry.audit():
            if entry.missing:
                wrong += 1
                yield problem(
                    "registry.schemas",
                    f"{entry.subject} lacks {entry.missing} of {entry.wanted} versions of the contract",
                    "STEERSMAN_REGISTRY_URL=... python -m steersman.registry",
                )
            if entry.compatibility not in ("", COMPATIBILITY):
                wrong += 1
                yield problem(
                    "registry.compatibility",
                    f"{entry.subject} is checked for {entry.compatibility}, not {COMPATIBILITY}",
                    "STEERSMAN_REGISTRY_URL=... python -m steersman.registry sets it",
                )
    except Unreachable as error:
        yield problem("registry.reachable", str(error), "start it, or correct STEERSMAN_REGISTRY_URL")
        return
    finally:
        registry.close()
    if not wrong:
        yield fine("registry.schemas", "every version of every contract is registered")
