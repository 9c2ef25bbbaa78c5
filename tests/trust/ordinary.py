"""Ordinary text: what must not be mistaken for a secret."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_DOCUMENTED = (
    "argparse",
    "asyncio",
    "calendar",
    "collections",
    "csv",
    "datetime",
    "decimal",
    "email",
    "fractions",
    "json",
)
TRICKY = (
    "Release 3.11.14 replaces 3.11.13; build 20251123.4 of 2025-11-23 14:05:59.123456",
    "commit 65137cb0f3a1b2c4d5e6f708192a3b4c5d6e7f80, trace 4bf92f3577b34da6a3ce929d0e0e4736",
    "order 2025-0001-7788 shipped at 12:30:45, 3 of 4 parcels, 1.299,00 EUR",
    "uuid 123e4567-e89b-12d3-a456-426614174000 was retried 3 times in 1234567 us",
    "pages 100-200, ISBN 978-3-16-148410-0, DOI 10.1000/182, RFC 8032, ISO 13616",
    "x[1:2], a::b, std::vector<int>, http://127.0.0.1:8123/ping, key = value, token budget 4096",
    "loss 0.5123456789012345 after 1000000 steps, seed 1760000000000000, 99.9 % of 10 000 000",
    "the password was changed and the secret is safe; see the key points: speed, cost, quality",
    "model=gpt-4o;effort=high;top_k=8 chosen with p=0.0123 (epoch 3, version 1760012)",
    "SELECT count() FROM v_rewards WHERE ts > '2025-11-25 12:00:00' GROUP BY policy",
)


def sentences() -> Iterator[str]:
    """Sentences and lines of this project's pages, of Python's own documentation, and the tricky ones."""
    yield from TRICKY
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]
    texts += [str(text) for text in import_module("pydoc_data.topics").topics.values()]
    for name in _DOCUMENTED:
        module = import_module(name)
        texts += [
            inspect.getdoc(value) or ""
            for value in vars(module).values()
            if inspect.isclass(value) or inspect.isfunction(value)
        ]
    for text in texts:
        for part in re.split(r"(?<=[.!?:])\s+|\n\s*\n", text):
            line = " ".join(part.split())
            if len(line) >= 20:
                yield line
