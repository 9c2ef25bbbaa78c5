"""Reference pages, made from the code when the site is built, so that they cannot say anything else than the code does."""

from __future__ import annotations

from collections.abc import Callable

from manual.reference import api, cli, errors, policies, schemas, settings, tables, topics

PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli.page,
    "reference/services.md": cli.services,
    "reference/settings.md": settings.page,
    "reference/policies-file.md": policies.page,
    "reference/python.md": api.page,
    "reference/schemas.md": schemas.page,
    "reference/topics.md": topics.page,
    "reference/tables.md": tables.page,
    "reference/errors.md": errors.page,
}
"""Path below ``docs/`` -> function that returns the page."""
