"""Text of agents and their users in a terminal: seen, not obeyed."""

from __future__ import annotations

import io

import pytest

from console import output
from console.output import print_rows, visible

HOSTILE = (
    "\x1b]0;title\x07",
    "\x1b]52;c;Y2F0\x07",  # into the clipboard
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "\x08\x08\x7f",
    "\r0 problems",
    "\u202egpj.exe",
    "[/red] [link=file:///etc/passwd]here[/link]",
    "[bold",
)


def printed(monkeypatch: pytest.MonkeyPatch, work: object) -> str:
    file = io.StringIO()
    terminal = output._Terminal(file=file, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(output, "out", terminal)
    work(terminal)  # type: ignore[operator]
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_shows_what_it_holds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = printed(monkeypatch, lambda _: print_rows(["agent", "n"], [[text, 1.5], ["fine", None]], as_json=False))
    said = shown.replace("\x1b[1m", "").replace("\x1b[0m", "")  # bold of the header, ours
    assert all(char.isprintable() or char == "\n" for char in said), shown
    assert visible(text) in said


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_shows_what_it_holds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = printed(monkeypatch, lambda terminal: terminal.print(f"dead: {text}", markup=False, highlight=False))
    assert all(char.isprintable() or char == "\n" for char in shown), shown
    assert f"dead: {visible(text)}" in shown


def test_what_is_no_control_character_stays() -> None:
    text = "größer ≥ 1 µs\n\tüber 東京 🙂"
    assert visible(text) == text
    assert visible("a\x1bb") == "a\\x1bb"
