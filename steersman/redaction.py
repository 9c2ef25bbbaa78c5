"""Redaction: secrets and personal data are taken out of texts before they leave the process.

Runs on the sender's thread. It fails closed: a text that cannot be redacted, for whatever reason, is not sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from steersman.errors import ConfigError
from steersman.secret_kinds import KINDS, SECRET_KEYS, Kind, Span, is_card

Hook = Callable[[str], str]
"""The application's own redaction of a text, run after ours, on the sender's thread; if it raises, the text is not sent."""

MAX_TEXT: Final = 1 << 20
"""Longest text looked at; what is beyond is cut off. Unit: characters."""
MAX_NODES: Final = 10_000
"""Most entries of a nested value that are kept; unit: count."""
MAX_DEPTH: Final = 16
"""Deepest nesting of a value, JSON within strings included; what lies deeper is left out. Unit: levels."""
KIND_NAMES: Final = tuple(dict.fromkeys(kind.name for kind in KINDS))
"""Names of the kinds, which are the placeholders."""

_OVERLAP = 8192
_CACHED, _CACHE_LENGTH = 4096, 128
_DIGIT = re.compile("[0-9]")
_HEX = re.compile(r"[0-9a-f]{32}\Z")
_SECRET_KEY = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TOO_DEEP, _SECRET = "[TOO_DEEP]", "SECRET"
_PSEUDONYM_HEX = 16


class RedactionFailed(Exception):
    """A text that could not be redacted and so must not be sent; says nothing about what was in it."""


class Redactor:
    """Takes secrets and personal data out of texts and nested values.

    What is found becomes a placeholder that names its kind, ``[EMAIL]``; with a key it becomes a pseudonym,
    ``[EMAIL:5f2c...]``, the same for the same content, so that it can still be counted and joined. The text under a
    key that names a secret (``password``, ``authorization``, ...) goes as a whole. A redactor may be shared by threads.

    Parameters
    ----------
    pseudonym_key : bytes, optional
        Secret of at least 16 bytes, one per tenant. Pseudonyms are the first 64 bits of HMAC-SHA256 over kind and
        content; whoever has the key can tell whether a pseudonym is that of a given content.
    hook : callable, optional
        The application's own redaction: takes and returns a text.
    without : collection of str
        Kinds that are left alone, of `KIND_NAMES`.

    Raises
    ------
    ConfigError
        When the key is too short or a kind unknown.
    """

    def __init__(
        self, *, pseudonym_key: bytes | None = None, hook: Hook | None = None, without: Collection[str] = ()
    ) -> None:
        if pseudonym_key is not None and len(pseudonym_key) < 16:
            raise ConfigError(f"the key of the pseudonyms has {len(pseudonym_key)} bytes, at least 16 are needed")
        if unknown := set(without) - set(KIND_NAMES):
            raise ConfigError(f"no such kinds: {', '.join(sorted(unknown))}; there are {', '.join(KIND_NAMES)}")
        self._key = pseudonym_key
        self._hook = hook
        self._kinds = tuple(kind for kind in KINDS if kind.name not in without)
        self._seen: dict[str, str] = {}

    def text(self, text: str, limit: int = MAX_TEXT) -> str:
        """Redact a text, of which only the first `limit` characters are wanted.

        A secret that the limit would cut in two is found as a whole. JSON inside the text is redacted as a value.

        Raises
        ------
        RedactionFailed
            When that is not possible.
        """
        return str(self._guarded(lambda: self._text(text, limit, 0)))

    def short(self, text: str) -> str:
        """Redact a name or label; those that come again and again cost nothing. Raises as `text`."""
        if len(text) > _CACHE_LENGTH:
            return self.text(text)
        found = self._seen.get(text)
        if found is None:
            found = self.text(text)
            if len(self._seen) >= _CACHED:
                self._seen = {}
            self._seen[text] = found
        return found

    def value(self, value: Any) -> Any:
        """Redact a JSON-like value: texts, keys, numbers that are card numbers, at any depth. Raises as `text`."""
        budget = [MAX_NODES]
        return self._guarded(lambda: self._value(value, 0, budget))

    def name_of(self, text: str) -> str:
        """Redact an identifier: when anything is found in it, or it cannot be redacted, it becomes a hash, equal for equal ones.

        32 hex digits, of HMAC-SHA256 with the key of the pseudonyms or else of SHA-256: without a key, whoever can guess
        the identifier can tell that it was it.
        """
        if _HEX.match(text):
            return text
        with contextlib.suppress(RedactionFailed):
            if self.text(text) == text:
                return text
        raw = text.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key, raw, "sha256") if self._key else hashlib.sha256(raw).digest()
        return digest.hex()[:32]

    def clean(self, text: str) -> bool:
        """Whether nothing at all is found in a text, keys of JSON included, and no hook asks to see it."""
        return self._hook is None and not _secret_like(text) and not self._spans(text)

    # ---- the work ----------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            # Without the cause: its message may hold what was to be redacted.
            raise RedactionFailed(type(error).__name__) from None

    def _text(self, text: str, limit: int, depth: int) -> str:
        if limit > MAX_TEXT:
            limit = MAX_TEXT
        begin = text[:64].lstrip()[:1]
        if begin in ("{", "[") and begin and len(text) <= limit:
            try:
                parsed = json.loads(text)
            except (ValueError, RecursionError):
                pass
            else:
                return self._json(text, parsed, depth)
        whole = len(text) <= limit
        seen = text if whole else text[: limit + _OVERLAP]
        out = self._replace(seen, self._spans(seen), len(seen) if whole else limit)
        if self._hook is not None:
            out = self._hook(out)
            if not isinstance(out, str):
                raise TypeError("a redaction hook must return a text")
        return out

    def _json(self, text: str, parsed: Any, depth: int) -> str:
        made = self._value(parsed, depth + 1, [MAX_NODES])
        # The same key may come twice in a JSON text, of which the parser keeps one.
        return text if made == parsed and not self._spans(text) else json.dumps(made, ensure_ascii=False)

    def _value(self, value: Any, depth: int, budget: list[int]) -> Any:
        budget[0] -= 1
        if isinstance(value, str):
            return self._text(value, MAX_TEXT, depth) if depth < MAX_DEPTH else _TOO_DEEP
        if isinstance(value, bool) or value is None or isinstance(value, float):
            return value
        if isinstance(value, int):
            digits = str(value) if 10**12 <= value < 10**19 else ""
            return self._placeholder("CREDIT_CARD", digits) if digits and is_card(digits) else value
        if isinstance(value, Mapping):
            return self._mapping(value, depth, budget) if depth < MAX_DEPTH else _TOO_DEEP
        if isinstance(value, list | tuple | set | frozenset):
            if depth >= MAX_DEPTH:
                return _TOO_DEEP
            out = []
            for item in value:
                if budget[0] <= 0:
                    break
                out.append(self._value(item, depth + 1, budget))
            return out
        raise TypeError("not a JSON value")

    def _mapping(self, value: Mapping[Any, Any], depth: int, budget: list[int]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in value.items():
            if budget[0] <= 0:
                break
            name = str(key)
            if isinstance(item, str) and item and is_secret_key(name):
                budget[0] -= 1
                out[self._text(name, MAX_TEXT, MAX_DEPTH)] = self._placeholder(_SECRET, item)
            else:
                out[self._text(name, MAX_TEXT, MAX_DEPTH)] = self._value(item, depth + 1, budget)
        return out

    def _spans(self, text: str) -> list[tuple[Span, Kind]]:
        """What is found, in the order of the kinds."""
        found: list[tuple[Span, Kind]] = []
        folded: str | None = None
        digit: bool | None = None
        for kind in self._kinds:
            if not kind.hints:
                if digit is None:
                    digit = _DIGIT.search(text) is not None
                if not digit:
                    continue
            elif kind.folded:
                if folded is None:
                    folded = text.lower()
                if not any(hint in folded for hint in kind.hints):
                    continue
            elif not any(hint in text for hint in kind.hints):
                continue
            found.extend((span, kind) for span in kind.find(text))
        return found

    def _replace(self, text: str, found: list[tuple[Span, Kind]], limit: int) -> str:
        """Put placeholders in place of all that was found and begins before the limit."""
        if not found:
            return text[:limit]
        order = {id(kind): i for i, kind in enumerate(self._kinds)}
        parts: list[str] = []
        at = 0
        found.sort(key=lambda one: one[0])
        i = 0
        while i < len(found):
            (start, end), kind = found[i]
            i += 1
            while i < len(found) and found[i][0][0] < end:  # what overlaps goes together
                end = max(end, found[i][0][1])
                kind = min(kind, found[i][1], key=lambda one: order[id(one)])
                i += 1
            if start >= limit:
                break
            parts += (text[at:start], self._placeholder(kind.name, text[start:end]))
            at = end
        parts.append(text[at : max(at, limit)] if at < limit else "")
        return "".join(parts)

    def _placeholder(self, kind: str, content: str) -> str:
        if self._key is None:
            return f"[{kind}]"
        message = f"{kind}\0{content}".encode("utf-8", "surrogatepass")
        return f"[{kind}:{hmac.digest(self._key, message, 'sha256').hex()[:_PSEUDONYM_HEX]}]"


def is_secret_key(name: str) -> bool:
    """Whether a key of a mapping says that its text is a secret: one of `SECRET_KEYS`, alone or as the last words."""
    if len(name) > 128:
        return False
    words = [word for word in _SECRET_KEY.split(_CAMEL.sub("_", name).lower()) if word]
    return any("_".join(words[-n:]) in SECRET_KEYS for n in (1, 2, 3) if n <= len(words))


_KEY_HINTS = (
    "pass", "pwd", "secret", "key", "token", "authorization", "cookie", "credential", "connection", "pin", "cvv", "cvc", "ssn",
)  # fmt: skip


def _secret_like(text: str) -> bool:
    """Whether the name of a secret may occur as a key in a JSON text."""
    folded = text.lower()
    return any(hint in folded for hint in _KEY_HINTS)


def redactor_of(redact: bool | Redactor) -> Redactor | None:
    """The redactor that a setting means: the default one for True, none for False."""
    if isinstance(redact, bool):
        return Redactor() if redact else None
    return redact
