"""Presidio as a hook. Its engine is another project's: what is ours is what becomes of its findings, and of its absence."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from steersman.errors import ConfigError
from steersman.presidio import ENTITIES, Presidio
from steersman.redaction import RedactionFailed, Redactor

THERE = importlib.util.find_spec("presidio_analyzer") is not None
TEXT = "My name is Ada Lovelace, I live in London; mail ada@example.com"


@dataclass
class Found:
    entity_type: str
    start: int
    end: int
    score: float = 0.9


class Engine:
    """Finds words; remembers how it was asked."""

    def __init__(self, *found: Found) -> None:
        self.found = found
        self.asked: list[dict[str, Any]] = []

    def analyze(self, **asked: Any) -> Iterable[Found]:
        self.asked.append(asked)
        return self.found


def test_what_is_found_is_replaced_by_its_kind() -> None:
    engine = Engine(Found("LOCATION", 35, 41), Found("PERSON", 11, 23), Found("PERSON", 11, 14), Found("NRP", 20, 25))
    hook = Presidio(analyzer=engine, threshold=0.7)
    assert hook(TEXT) == "My name is [PERSON][NRP]I live in [LOCATION]; mail ada@example.com"
    assert engine.asked == [{"text": TEXT, "language": "en", "entities": list(ENTITIES), "score_threshold": 0.7}]
    assert Presidio(analyzer=Engine())(TEXT) == TEXT


def test_it_comes_after_our_own_patterns_and_fails_closed() -> None:
    engine = Engine(Found("PERSON", 11, 23))
    assert Redactor(hook=Presidio(analyzer=engine)).text(TEXT).startswith("My name is [PERSON], ")
    assert "ada@example.com" not in engine.asked[0]["text"]

    class Broken(Engine):
        def analyze(self, **asked: Any) -> Iterable[Found]:
            raise MemoryError(asked["text"])

    with pytest.raises(RedactionFailed) as failed:
        Redactor(hook=Presidio(analyzer=Broken())).text(TEXT)
    assert "Ada" not in repr(failed.value)


@pytest.mark.skipif(THERE, reason="Presidio is installed here")
def test_without_it_the_service_does_not_start_and_says_how_it_would() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'steersman\[presidio\]'"):
        Presidio()


@pytest.mark.skipif(not THERE, reason="the extra presidio is not installed here")
def test_the_engine_itself() -> None:
    with pytest.raises(ConfigError, match="python -m spacy download no_such_model"):
        Presidio(model="no_such_model")
    with pytest.raises(ConfigError, match="finds no UNICORN"):
        Presidio(entities=["UNICORN"])
    told = Redactor(hook=Presidio()).text(TEXT)
    assert told == "My name is [PERSON], I live in [LOCATION]; mail [EMAIL]"
