"""Commands that pages mention in passing exist, with their options: in the text and in tables, where nothing runs them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from console.main import app
from manual.blocks import ROOT, pages

_CODE = re.compile(r"`((?:bin/)?steersman [^`]+|(?:\.venv/bin/)?python -m [^`]+|make [a-z-]+)`")


def mentioned(page: Path) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    return [" ".join(code.split()) for code in _CODE.findall(text) if not re.search(r"python -m .*NAME", code)]


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_mentioned_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in mentioned(page):
        words = shlex.split(command.replace("\\|", "|"), comments=True)
        if words[0] == "make":
            assert words[1] in targets, command
        elif words[0].endswith("python"):
            assert importlib.util.find_spec(words[2].rstrip(",;")) is not None, command
        else:
            check(words[1:], command)


def check(words: list[str], command: str) -> None:
    """Follow the words of a `steersman` command; alternatives are written a|b."""
    place: Any = typer.main.get_command(app)
    for word in words:
        inner = getattr(place, "commands", None)
        if inner is not None and not word.startswith("-"):
            if not re.fullmatch(r"[a-z|-]+", word):
                continue  # what the reader puts in
            names = word.split("|")
            assert set(names) <= inner.keys(), f"{command}: there is no command {word}"
            place = inner[names[0]]
        elif word.startswith("-"):
            known = {o for p in place.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
            for option in word.split("/"):
                assert option.split("=")[0] in known, f"{command}: there is no option {option}"
