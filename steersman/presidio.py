"""Names, places and other personal data that take a language model to find: Microsoft Presidio as a redactor's hook.

Needs the extra ``presidio`` and a spaCy model, which is no package of PyPI: ``pip install 'steersman[presidio]'``, then
``python -m spacy download en_core_web_sm`` (or its wheel, from where you keep your own). Nothing is fetched at run time.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from typing import Any, Final, Protocol

from steersman.errors import ConfigError

ENTITIES: Final = ("PERSON", "LOCATION", "NRP", "ORGANIZATION", "DATE_TIME")
"""What only a language model finds; all else that Presidio knows our own patterns find faster, and in linear time."""


class Result(Protocol):
    """What Presidio found, ``presidio_analyzer.RecognizerResult``."""

    entity_type: str
    start: int
    end: int
    score: float


class Analyzer(Protocol):
    """What finds it, ``presidio_analyzer.AnalyzerEngine``."""

    def analyze(self, *, text: str, language: str, entities: list[str], score_threshold: float) -> Iterable[Result]:
        """Return what is found in a text."""


class Presidio:
    """A hook for `steersman.redaction.Redactor` that replaces what Presidio finds by its kind: ``[PERSON]``.

    Runs after our own patterns, on the sender's thread; a text that Presidio fails on is not sent. It costs milliseconds a
    text, so that a service which traces much content falls behind: then the sender's queue drops events, and counts them.

    Parameters
    ----------
    language : str
        Code of the texts' language, ``en``.
    model : str
        Installed spaCy model of that language.
    entities : collection of str
        Presidio's names of what is to be found.
    threshold : float
        Least score of what is replaced, in 0..1.
    analyzer : Analyzer, optional
        An engine of your own, with recognizers of your own, instead of one made from `language` and `model`.

    Raises
    ------
    ConfigError
        Presidio or the model is not installed, or Presidio knows no such entity.

    Examples
    --------
    ``Tracer("support", capture_content=True, redact=Redactor(hook=Presidio()))``
    """

    def __init__(
        self,
        language: str = "en",
        model: str = "en_core_web_sm",
        *,
        entities: Collection[str] = ENTITIES,
        threshold: float = 0.4,
        analyzer: Analyzer | None = None,
    ) -> None:
        self._analyzer = analyzer or _engine(language, model, entities)
        self._language = language
        self._entities = list(entities)
        self._threshold = threshold

    def __call__(self, text: str) -> str:
        """Return the text without what was found in it."""
        found = self._analyzer.analyze(
            text=text, language=self._language, entities=self._entities, score_threshold=self._threshold
        )
        parts: list[str] = []
        at = 0
        for one in sorted(found, key=lambda one: (one.start, -one.end)):
            if one.end <= at:
                continue  # within what was replaced already
            parts += [text[at : max(at, one.start)], f"[{one.entity_type}]"]
            at = one.end
        return "".join([*parts, text[at:]])


def _engine(language: str, model: str, entities: Collection[str]) -> Analyzer:
    try:
        presidio: Any = importlib.import_module("presidio_analyzer")
        providers: Any = importlib.import_module("presidio_analyzer.nlp_engine")
        spacy: Any = importlib.import_module("spacy")
    except ImportError as error:
        raise ConfigError(f"Presidio is not installed ({error}): pip install 'steersman[presidio]'") from error
    # Presidio would download a model that is not there, unasked and unchecked.
    if not spacy.util.is_package(model):
        raise ConfigError(f"the spaCy model {model} is not installed: python -m spacy download {model}")
    told = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    made = presidio.AnalyzerEngine(
        nlp_engine=providers.NlpEngineProvider(nlp_configuration=told).create_engine(), supported_languages=[language]
    )
    if unknown := sorted(set(entities) - set(made.get_supported_entities(language))):
        raise ConfigError(
            f"Presidio finds no {', '.join(unknown)} in language {language!r}; it knows "
            f"{', '.join(sorted(made.get_supported_entities(language)))}"
        )
    engine: Analyzer = made
    return engine
