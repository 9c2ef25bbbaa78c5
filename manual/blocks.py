"""The fenced blocks of the pages, with what a comment right above one says about how tests run it.

``python -m manual.blocks`` counts them and lists those that no test runs. In a page's source, right above a block:

- ``<!-- not executed: REASON -->``
- ``<!-- keeps running until: TEXT -->``: a command that stays; the next block is run once it has printed TEXT
- ``<!-- exit code N: REASON -->``, or several, ``N, M``
- ``<!-- before:`` and lines of the block's own language up to ``-->``: what the text around the block has explained

A block with a title (```` ```toml title="my.toml" ````) is a file of that name.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("bash", "sh")
EXECUTED = (*COMMANDS, "python", "sql", "toml")
"""Languages that are run."""
OTHERS = ("text", "yaml")
"""Languages that are shown."""
ELSEWHERE: dict[tuple[str, str], str] = {("docs/sql.md", "sql"): "tests/sinks/test_sql_page.py runs each of them"}
"""Page and language of blocks that have tests of their own."""

_FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?$')
_NOT = re.compile(r"<!-- not executed: (.+?) -->", re.S)
_UNTIL = re.compile(r"<!-- keeps running until: (.+?) -->")
_EXIT = re.compile(r"<!-- exit code ([\d, ]+): .+? -->", re.S)
_BEFORE = re.compile(r"<!-- before:\n(.*?)-->", re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    page : str
        Path of the page below the root.
    line : int
        Line of its opening fence, from 1.
    language, code : str
        As written.
    title : str or None
        Name of the file that it is.
    reason : str or None
        Why it is not executed.
    until : str or None
        What it prints when it is ready; it then stays.
    exit_codes : tuple of int
        Of the last command; any of them will do.
    before : str
        Code to run before it.
    """

    page: str
    line: int
    language: str
    code: str
    title: str | None = None
    reason: str | None = None
    until: str | None = None
    exit_codes: tuple[int, ...] = (0,)
    before: str = ""

    @property
    def executed(self) -> bool:
        """Whether a test of ours is to run it."""
        return self.language in EXECUTED and self.reason is None and (self.page, self.language) not in ELSEWHERE


def pages() -> list[Path]:
    """Return README, CONTRIBUTING and the pages of ``docs/``."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        ROOT / "benchmarks" / "README.md",
        *docs,
    ]


def blocks(path: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    found: list[Block] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    name = path.relative_to(ROOT).as_posix()
    position = 0
    while position < len(lines):
        opening = _FENCE.match(lines[position])
        if opening is None:
            position += 1
            continue
        indent, language, title = opening.groups()
        end = next(i for i in range(position + 1, len(lines)) if lines[i] == f"{indent}```")
        code = "\n".join(line.removeprefix(indent) for line in lines[position + 1 : end]) + "\n"
        said = _comments(lines[:position])
        reason, until, exits, before = (pattern.search(said) for pattern in (_NOT, _UNTIL, _EXIT, _BEFORE))
        found.append(
            Block(
                name,
                position + 1,
                language,
                code,
                title,
                " ".join(reason.group(1).split()) if reason else None,
                until.group(1) if until else None,
                tuple(map(int, exits.group(1).split(","))) if exits else (0,),
                before.group(1) if before else "",
            )
        )
        position = end + 1
    return found


def _comments(above: list[str]) -> str:
    """Return the HTML comments that end where the lines end, blank lines aside."""
    text = "\n".join(above).rstrip()
    kept = ""
    while text.endswith("-->"):
        start = text.rindex("<!--")
        kept = text[start:] + "\n" + kept
        text = text[:start].rstrip()
    return kept


def main() -> int:
    """Print how many blocks there are and which are not executed."""
    found = [block for path in pages() for block in blocks(path)]
    runs = Counter(block.language for block in found if block.executed)
    shown = Counter(block.language or "no language" for block in found if block.language not in EXECUTED)
    print(f"executed: {runs.total()} ({', '.join(f'{n} {language}' for language, n in sorted(runs.items()))})")
    print(f"shown only: {shown.total()} ({', '.join(f'{n} {language}' for language, n in sorted(shown.items()))})")
    for block in found:
        if block.language in EXECUTED and not block.executed:
            print(
                f"not executed: {block.page}:{block.line}: {block.reason or ELSEWHERE.get((block.page, block.language))}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
