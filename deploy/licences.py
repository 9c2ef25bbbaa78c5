"""``python deploy/licences.py``: write ``docs/licences.md``, the licence of every locked dependency, from what is installed.

The list is made from the metadata of the installed packages (PEP 639's expression, else classifiers, else the field License), for
every name in ``requirements/*.txt`` but the tools of release machines. A licence that is not known to be fine fails, and so does a
package whose metadata say nothing, unless `STATED` says what its files say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
LOCKS = ("platform", "demo", "dev", "data")
"""Locks by what they are for: the image, `make demo`, tests and development, the demo's data."""
SHIPPED = ("platform", "demo", "data")
FINE = frozenset(
    {
        "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
        "LicenseRef-Repoze", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
    }
)  # fmt: skip
"""Licences that any dependency may have. MPL-2.0 asks for the source of changes to its own files, of which we make none."""
UNSHIPPED = FINE | {"LicenseRef-NVIDIA-Proprietary"}
"""What only tests need may also have these: torch's CUDA libraries, which nothing of ours contains or hands on."""
STATED: Mapping[str, str] = {
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # a metapackage for the CUDA libraries beside it, without any field
}
_CLASSIFIERS: Mapping[str, str] = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Repoze Public License": "LicenseRef-Repoze",
}
_TEXTS: Mapping[str, str] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
_HEAD = """# Licences of dependencies

Made by `python deploy/licences.py` from the metadata of the installed packages; do not edit. Every package of `requirements/*.txt`, with
its SPDX expression and the locks it is in: `platform` is the image, `demo` what `make demo` installs, `dev` tests and development,
`data` the demo's data. A package with a licence that the script does not allow fails the build (`tests/deploy/test_supply_chain.py`).
Vendored in `page/static/vendor`: uPlot, MIT. Apache Kafka of tests and demo: Apache-2.0.

| package | licence | in |
| --- | --- | --- |
"""


@dataclass(frozen=True)
class Entry:
    """A locked package: normalised name, SPDX expression (empty when unknown), and the locks it is in."""

    name: str
    licence: str
    locks: tuple[str, ...]


def locked(lock: str) -> set[str]:
    """Return the normalised names (PEP 503) in a lock."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    return {
        re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", text, re.M)
    }


def entries() -> list[Entry]:
    """Return every locked package.

    Raises
    ------
    PackageNotFoundError
        One is not installed.
    """
    names = {lock: locked(lock) for lock in LOCKS}
    return [
        Entry(name, licence(name, distribution(name)), tuple(lock for lock in LOCKS if name in names[lock]))
        for name in sorted(set().union(*names.values()))
    ]


def licence(name: str, package: Distribution) -> str:
    """Return the SPDX expression of a package, empty when it says nothing that is understood."""
    if name in STATED:
        return STATED[name]
    metadata = package.metadata
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    if text in FINE or text in _TEXTS:
        return _TEXTS.get(text, text)
    said = [
        str(one).rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or () if one.startswith("License ::")
    ]
    return " OR ".join(_CLASSIFIERS.get(one, "") for one in said)


def not_fine(found: list[Entry]) -> Iterator[str]:
    """Name every package whose licence is unknown or not allowed where it is used."""
    for one in found:
        fine = FINE if set(one.locks) & set(SHIPPED) else UNSHIPPED
        if not allowed(one.licence, fine):
            yield f"{one.name} ({', '.join(one.locks)}): {one.licence or 'no licence that is understood'}"


def allowed(expression: str, fine: frozenset[str]) -> bool:
    """Whether an SPDX expression can be met with licences that are fine: one side of OR, all of AND."""
    expression = expression.strip()
    if expression in fine:
        return True
    for operator, combine in ((" OR ", any), (" AND ", all)):
        parts = _split(expression, operator)
        if len(parts) > 1:
            return combine(allowed(part, fine) for part in parts)
    if expression.startswith("(") and expression.endswith(")"):
        return allowed(expression[1:-1], fine)
    return False


def _split(expression: str, operator: str) -> list[str]:
    """Split at an operator that is in no parentheses."""
    parts, depth, begin = [], 0, 0
    for at, sign in enumerate(expression):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and expression.startswith(operator, at):
            parts.append(expression[begin:at])
            begin = at + len(operator)
    return [*parts, expression[begin:]]


def page(found: list[Entry]) -> str:
    """Return the page."""
    return _HEAD + "".join(f"| {one.name} | {one.licence} | {', '.join(one.locks)} |\n" for one in found)


def main() -> int:
    """Write the page; returns 1 when a licence is not fine."""
    found = entries()
    wrong = list(not_fine(found))
    for said in wrong:
        print(f"not allowed: {said}", file=sys.stderr)
    if wrong:
        print("replace it, or say in deploy/licences.py why it is fine (STATED, FINE)", file=sys.stderr)
        return 1
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(found)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
