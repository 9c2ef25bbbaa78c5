"""The policies file: its format, and that of the detectors' table, as their modules document them."""

from __future__ import annotations

from learners import detector_settings, policies_file
from manual.reference.markdown import from_rst


def page() -> str:
    """Return the page."""
    head, _, body = from_rst(policies_file.__doc__ or "").partition("\n")
    detectors = from_rst(detector_settings.__doc__ or "")
    return f"# The policies file\n\n{head}\n{body}\n## Detectors\n\n{detectors}"
