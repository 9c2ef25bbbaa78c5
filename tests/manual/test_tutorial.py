"""The tutorial, step by step as it is written."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator

import pytest

from manual.blocks import ROOT, Block, blocks
from tests.manual.terminal import Terminal

STEPS = [block for block in blocks(ROOT / "docs" / "tutorial.md") if block.executed]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with Terminal(tmp_path_factory.mktemp("tutorial")) as opened:
        yield opened


@pytest.fixture(scope="module")
def said(terminal: Terminal) -> dict[str, list[str]]:
    """What each command printed, by the words that tell it apart."""
    found: dict[str, list[str]] = {}
    for step in STEPS:
        started = time.monotonic()
        printed = terminal.play(step)
        if step.title is None and step.until is None:
            found.setdefault(key(step), []).append(printed)
        print(f"{step.page}:{step.line} took {time.monotonic() - started:.1f} s")
    return found


def key(step: Block) -> str:
    words = shlex.split(step.code)
    return next(" ".join(words[i : i + 2]) for i, w in enumerate(words) if not re.search(r"=|python$", w))


def test_the_agent_learns_what_the_page_says(said: dict[str, list[str]], terminal: Terminal) -> None:
    first, second = said["my-agent/agent.py"]
    print(first, second, sep="\n")
    *_, learned = first.splitlines()
    shares = shares_of(learned)
    assert shares["2 numbers: small"] > 0.8
    assert shares["5 numbers: large"] > 0.8
    assert shares_of(first.splitlines()[0])["2 numbers: small"] < shares["2 numbers: small"]
    # The baseline costs 714 a request; between two hundreds of requests, how many are hard says more than what was learned.
    assert int(re.search(r"(\d+) micro-dollars", learned)[1]) < 600  # type: ignore[index]
    *_, cheap = second.splitlines()
    assert shares_of(cheap)["5 numbers: small"] > 0.8


def shares_of(line: str) -> dict[str, float]:
    counts: dict[str, int] = json.loads(line[line.index("{") :].replace("'", '"'))
    of = {size: sum(n for k, n in counts.items() if k.startswith(size)) for size in ("2", "5")}
    return {k: n / of[k[0]] for k, n in counts.items()}


def test_its_queries_answer(said: dict[str, list[str]]) -> None:
    (policy,), (rows,), (ope,) = said["bin/steersman policy"], said["bin/steersman sql"], said["bin/steersman ope"]
    assert "model=small" in policy
    assert rows.count("model=large") == 2
    assert "dr" in ope


def test_nothing_was_lost_and_ctrl_c_ends_it(said: dict[str, list[str]], terminal: Terminal) -> None:
    (proof,) = said["bin/steersman verify"]
    print(proof)
    assert terminal.interrupt() == [0, 0]
    left = terminal.run('bin/steersman sql "SELECT count() AS n FROM v_rewards" --json')
    assert json.loads(left.stdout)["n"] == 800, left.stderr
