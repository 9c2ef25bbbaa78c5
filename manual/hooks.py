"""Hooks of MkDocs: adds the reference pages, leaves out of the navigation what is not there, links the names of pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# MkDocs loads this file by its path, whatever the working directory is.
sys.path.insert(0, str(ROOT))

from manual.reference import PAGES  # noqa: E402

_MENTION = re.compile(r"(?<!\[)`(?:docs/)?([a-z0-9-]+\.md)`(?!\])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation the pages that do not exist."""
    there = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    config.nav = _present(config.nav or [], there | PAGES.keys())
    return config


def _present(nav: list[Any], there: set[str]) -> list[Any]:
    kept: list[Any] = []
    for entry in nav:
        if isinstance(entry, str):
            kept += [entry] if entry in there else []
            continue
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _present(target, there)})
        elif target in there:
            kept.append(entry)
    return kept


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference pages."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the names of other pages in code (`design.md`, `docs/design.md`) into links, outside of code blocks."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    up = "../" * page.file.src_uri.count("/")

    def link(match: re.Match[str]) -> str:
        name = match.group(1)
        if files.get_file_from_path(name) is None or name == page.file.src_uri:
            return match.group(0)
        return f"[`{name}`]({up}{name})"

    return "".join(part if part.startswith("```") else _MENTION.sub(link, part) for part in parts)
