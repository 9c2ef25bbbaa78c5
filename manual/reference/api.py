"""The Python package: one section per public name, from its docstring."""

from __future__ import annotations

import steersman

_HEAD = """# The Python package

`pip install .` (or the wheel) in the agent service; needs confluent-kafka, fastavro, numpy and pydantic. Everything below is imported from
`steersman`; what is not here may change without notice.
"""


def page() -> str:
    """Return the page, for mkdocstrings to fill in."""
    parts = [_HEAD]
    for name in [*steersman.__all__, "openai.traced"]:
        parts.append(f"::: steersman.{name}\n")
    return "\n".join(parts)
