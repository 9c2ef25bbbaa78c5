"""Errors: the classes with what to do about them, exit codes, and the reasons for which a record is refused."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from manual.reference.markdown import code, table
from steersman import Router, errors

ROOT = Path(__file__).resolve().parents[2]
_HEAD = """# Errors

## What is raised

Everything raised on purpose derives from `steersman.SteersmanError`. Constructors raise `ConfigError` for what cannot work; after that `Tracer` and `Router`
raise nothing: they count (`stats()`), warn in the log at most every few seconds, and a decision falls back to the baseline.
"""
_EXITS = """
## Exit codes of commands

| code | means | do |
| --- | --- | --- |
| 0 | ok | |
| 1 | failed | read the message; services: look into the log |
| 2 | wrong usage or setting | the message names the option, variable, or file, line and key |
| 3 | a service does not answer | the message names its address and how to start it |
| 4 | `status`, `doctor`, `verify`, `rebuild`, `policy verify`, `config show` found problems | each is printed with its fix or both numbers |
| 130 | Ctrl-C | |
"""
_REASONS = """
## Why a record becomes a dead letter

The column `reason` of `v_dead_letters`, the label of `steersman_stream_dead_letters_total`, the filter of `steersman dlq list --reason`.
`DecodeError`: the bytes are no record of the contract. `InvalidRecord`: they are, and what they say cannot be right.
"""


def page() -> str:
    """Return the page."""
    classes = []
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if not name.startswith("_"):
            said = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("``", "`")
            classes.append((code(name), said))
    return "\n".join(
        [
            _HEAD,
            table(("error", "means"), classes),
            _EXITS,
            "\n## Why a decision fell back\n\n`Decision.reason`, the column `reason` of `v_decisions`, the keys `FALLBACK:...` of `Router.stats()`:\n",
            ", ".join(code(reason) for reason in fallback_reasons()) + ".",
            _REASONS,
            table(("reason", "error", "found by"), refusals()),
        ]
    )


def fallback_reasons() -> list[str]:
    """Return the reasons that `Router.choose` documents."""
    said = (Router.choose.__doc__ or "").partition("and a reason: ")[2].partition(".\n")[0]
    return re.findall(r"``(.*?)``", said)


def refusals() -> list[tuple[str, str, str]]:
    """Return (reason, class, modules) of every refusal in the code whose reason is written out."""
    found: dict[tuple[str, str], set[str]] = {}
    for package in ("steersman", "columns", "streams", "sinks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                if node.func.id in ("DecodeError", "InvalidRecord") and node.args:
                    for reason in _literals(node.args[0]):
                        place = path.relative_to(ROOT).as_posix()
                        found.setdefault((reason, node.func.id), set()).add(place)
    return [
        (code(reason), code(kind), ", ".join(code(place) for place in sorted(places)))
        for (reason, kind), places in sorted(found.items())
    ]


def _literals(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _literals(node.body) + _literals(node.orelse)
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values]
        return ["".join(parts)]
    return []
