"""``python -m schemas.gate``: may these contracts be released?

Exit codes: 0 they may, 4 a rule is broken, 2 wrong usage. With ``--release`` every contract that differs
from its last released version becomes the next one under ``history/<contract>/<n>.avsc``; nothing is written
if any rule is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.compatibility import compare
from schemas.lint import Finding, lint

ROOT = Path(__file__).resolve().parent
FOUND_PROBLEMS = 4


def contracts(root: Path) -> list[str]:
    """Names of the contracts under a folder, sorted."""
    return sorted(file.stem for file in root.glob("*.avsc"))


def history(root: Path, contract: str) -> list[tuple[int, Path]]:
    """Released versions of a contract as (number, file), oldest first."""
    return sorted((int(file.stem), file) for file in (root / "history" / contract).glob("*.avsc"))


def check(root: Path = ROOT) -> list[Finding]:
    """Check every contract under a folder.

    Parameters
    ----------
    root
        Folder with ``<contract>.avsc`` and ``history/<contract>/<n>.avsc``.

    Returns
    -------
    list of Finding
        Broken rules of the current versions, of their compatibility with every released version in both
        directions, and of the history itself (numbers without gaps, no contract that vanished). Empty when
        the contracts may be released.
    """
    found: list[Finding] = []
    names = contracts(root)
    for gone in sorted({folder.name for folder in root.glob("history/*")} - set(names)):
        found.append(Finding(gone, "contract", "vanished", "released once, so its current version must stay"))
    for name in names:
        current = _read(name, root / f"{name}.avsc", found)
        if current is None:
            continue
        broken = lint(name, current)
        found += broken
        released = history(root, name)
        if [number for number, _ in released] != list(range(1, len(released) + 1)):
            found.append(Finding(name, "history", "numbers", "versions must be numbered 1, 2, 3 without gaps"))
        for number, file in released:
            past = _read(name, file, found)
            if past is not None and not broken and not (unfit := lint(name, past)):
                found += compare(name, current, past, f"against version {number}")
            elif past is not None and not broken:
                found += unfit
    return found


def release(root: Path = ROOT) -> list[Path]:
    """Write every current version that differs from its last released one as the next version.

    Returns
    -------
    list of Path
        Files written; empty when nothing is new.

    Raises
    ------
    ValueError
        A rule is broken; nothing was written.
    """
    if found := check(root):
        raise ValueError("\n".join(map(str, found)))
    written = []
    for name in drafts(root):
        released = history(root, name)
        target = root / "history" / name / f"{len(released) + 1}.avsc"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / f"{name}.avsc").read_bytes())
        written.append(target)
    return written


def drafts(root: Path = ROOT) -> list[str]:
    """Contracts whose current version is not the last released one."""
    return [
        name
        for name in contracts(root)
        if not (released := history(root, name))
        or json.loads((root / f"{name}.avsc").read_text(encoding="utf-8"))
        != json.loads(released[-1][1].read_text(encoding="utf-8"))
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gate from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.gate", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--release", action="store_true", help="add what is new to the history")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the contracts (default: this one)")
    options = parser.parse_args(argv)
    if not contracts(options.root):
        parser.error(f"no *.avsc in {options.root}")
    found = check(options.root)
    for finding in found:
        print(finding, file=sys.stderr)
    if found:
        print(f"{len(found)} problems; nothing may be released", file=sys.stderr)
        return FOUND_PROBLEMS
    if options.release:
        for file in release(options.root):
            print(f"released {file.relative_to(options.root)}")
    for name in contracts(options.root):
        released = len(history(options.root, name))
        state = "draft, compatible with" if name in drafts(options.root) else "equals the last of"
        print(f"{name}: {state} {released} released")
    return 0


def _read(name: str, file: Path, found: list[Finding]) -> dict[str, Any] | None:
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        found.append(Finding(name, str(file.name), "json", f"not JSON: {error}"))
        return None
    if not isinstance(loaded, dict) or loaded.get("type") != "record":
        found.append(Finding(name, str(file.name), "record", "a contract is a record"))
        return None
    return loaded


if __name__ == "__main__":
    sys.exit(main())
