"""The site builds without a warning, has every page, and asks nothing of other hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

import steersman
from console.main import app
from learners.catalog import LEARNERS
from manual.blocks import ROOT
from manual.reference import PAGES
from manual.reference.cli import commands
from manual.reference.settings import described, services


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def text_of(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def test_every_page_is_there(site: Path) -> None:
    wanted = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {Path(name).with_suffix(".html") for name in PAGES} | wanted <= {
        path.relative_to(site) for path in site.rglob("*.html")
    }


def test_the_reference_has_what_there_is(site: Path) -> None:
    cli = text_of(site, "reference/cli.html")
    for path, _ in commands(typer.main.get_command(app)):
        assert f'id="{"-".join(path)}"' in cli
    settings = text_of(site, "reference/settings.html")
    for kind in services().values():
        for name, meaning in described(kind).items():
            assert f"STEERSMAN_{name}".upper() in settings
            assert meaning, f"{kind.__name__}.{name} says nothing about itself"
    api = text_of(site, "reference/python.html")
    for name in steersman.__all__:
        assert f'id="steersman.{name}"' in api, name
    tables = text_of(site, "reference/tables.html")
    for view in ("v_rewards", "v_decisions", "v_ope"):
        assert f'id="{view}"' in tables
    assert "decision_id" in tables
    assert "trailing_bytes" in text_of(site, "reference/errors.html")
    assert "steersman.policy.v1" in text_of(site, "reference/topics.html")


def test_every_learner_is_on_the_page_of_learners(site: Path) -> None:
    page = text_of(site, "learners.html") + text_of(site, "design.html")
    assert not [name for name in LEARNERS if f"<code>{name}</code>" not in page and f'"{name}"' not in page]


class _Loads(HTMLParser):
    """Collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video") and given.get("src"):
            self.urls.append(given["src"] or "")
        if tag == "link" and given.get("rel") != "canonical" and given.get("href"):
            self.urls.append(given["href"] or "")


def test_nothing_comes_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert not [url for url in loads.urls if re.match(r"(https?:)?//", url)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_no_machine_shows(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page
