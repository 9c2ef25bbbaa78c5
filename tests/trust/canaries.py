"""Secrets and personal data to plant: valid of their kind, belonging to nobody, each with a core to search for."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

ALNUM = string.ascii_letters + string.digits
_CALL = "0123456789"


@dataclass(frozen=True)
class Canary:
    """A planted secret.

    Attributes
    ----------
    kind
        Which of `MAKERS`.
    text
        As it is planted.
    core
        The part of it that must be found nowhere.
    """

    kind: str
    text: str
    core: str


def _some(r: random.Random, n: int, of: str = ALNUM) -> str:
    """Random characters with a digit in the middle: what is all letters is no key."""
    made = [r.choice(of) for _ in range(n)]
    made[n // 2] = r.choice(_CALL)
    return "".join(made)


def _digits(r: random.Random, n: int) -> str:
    return "".join(r.choice(_CALL) for _ in range(n))


def _card(r: random.Random) -> str:
    body = r.choice(("4", "51", "55", "2221", "37", "6011")) + _digits(r, 15)
    body = body[:14] if body.startswith("37") else body[:15]
    for last in _CALL:
        number = body + last
        back = [int(c) for c in reversed(number)]
        if sum(back[::2] + [sum(divmod(2 * d, 10)) for d in back[1::2]]) % 10 == 0:
            break
    if len(number) == 15:
        return r.choice((number, f"{number[:4]} {number[4:10]} {number[10:]}"))
    grouped = [number[i : i + 4] for i in range(0, 16, 4)]
    return r.choice((number, " ".join(grouped), "-".join(grouped)))


def _iban(r: random.Random) -> str:
    country, body = r.choice(
        (
            ("DE", _digits(r, 18)),
            ("GB", "WEST" + _digits(r, 14)),
            ("NL", "ABNA" + _digits(r, 10)),
            ("FR", _digits(r, 23)),
        )
    )
    number = int("".join(str(int(c, 36)) for c in body + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{body}"
    return r.choice((whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))))


def _jwt(r: random.Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': _digits(r, 10), 'n': _some(r, 8)})}.{_some(r, 43)}"


def _pem(r: random.Random) -> tuple[str, str]:
    lines = [_some(r, 64) for _ in range(4)]
    kind = r.choice(("", "RSA ", "EC ", "OPENSSH "))
    body = "\n".join(lines)
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----", lines[0]


def _phone(r: random.Random) -> str:
    return r.choice(
        (
            f"+49 {r.randrange(151, 179)} {_digits(r, 7)}1",
            f"+1-{r.randrange(212, 989)}-555-{_digits(r, 4)}",
            f"({r.randrange(212, 989)}) 555-{_digits(r, 4)}",
            f"+44 20 {_digits(r, 4)} {_digits(r, 4)}",
        )
    )


def _email(r: random.Random) -> str:
    name = f"{r.choice(('anna', 'josé', 'li.wei', 'o.brien', 'sam+news'))}.{_some(r, 6).lower()}"
    return f"{name}@{r.choice(('example.com', 'mail.example.co.uk', 'sub.exämple.de'))}"


MAKERS: dict[str, Callable[[random.Random], str | tuple[str, str]]] = {
    "email": _email,
    "phone": _phone,
    "credit_card": _card,
    "iban": _iban,
    "ssn": lambda r: f"{r.randrange(1, 666):03d}-{r.randrange(1, 100):02d}-{r.randrange(1, 10000):04d}",
    "ipv4": lambda r: f"{r.randrange(1, 126)}.{r.randrange(256)}.{r.randrange(100, 256)}.{r.randrange(100, 255)}",
    "ipv6": lambda r: "2001:db8:" + ":".join(f"{r.randrange(4096, 65536):x}" for _ in range(6)),
    "mac": lambda r: ":".join(f"{r.randrange(16, 256):02x}" for _ in range(6)),
    "jwt": _jwt,
    "pem": _pem,
    "aws_access_key": lambda r: "AKIA" + "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
    "aws_secret_key": lambda r: (lambda s: (f"aws_secret_access_key={s}", s))(_some(r, 40)),
    "google_api_key": lambda r: "AIza" + _some(r, 35),
    "azure_key": lambda r: (lambda s: (f"AccountName=x;AccountKey={s}==;EndpointSuffix=core.windows.net", s))(_some(r, 86)),
    "github_token": lambda r: r.choice(("ghp_", "gho_", "ghs_")) + _some(r, 36),
    "slack_token": lambda r: f"xoxb-{_digits(r, 12)}-{_digits(r, 12)}-{_some(r, 24)}",
    "openai_key": lambda r: r.choice(("sk-", "sk-proj-")) + _some(r, 48),
    "anthropic_key": lambda r: "sk-ant-api03-" + _some(r, 80),
    "stripe_key": lambda r: "sk_live_" + _some(r, 24),
    "gitlab_token": lambda r: "glpat-" + _some(r, 20),
    "huggingface_token": lambda r: "hf_" + _some(r, 34),
    "bearer": lambda r: (lambda s: (f"Authorization: Bearer {s}", s))(_some(r, 40)),
    "password": lambda r: (lambda s: (r.choice((f"password={s}", f'"password": "{s}"', f"DB_PASSWORD: {s}")), s))(_some(r, 14)),
    "api_key": lambda r: (lambda s: (r.choice((f"api_key={s}", f"X-Api-Key: {s}")), s))(_some(r, 32)),
    "url_credentials": lambda r: (lambda s: (f"postgres://svc:{s}@db.example.com:5432/app", s))(_some(r, 16)),
}  # fmt: skip
"""By kind; a pair is the text to plant and its core."""


def make(kind: str, r: random.Random) -> Canary:
    """Make a canary of a kind."""
    made = MAKERS[kind](r)
    text, core = made if isinstance(made, tuple) else (made, made)
    return Canary(kind, text, core)


def forms(canary: Canary) -> set[bytes]:
    """How the core, or its beginning, may stand in a file: as it is, as JSON escapes it, without its separators."""
    core = canary.core[:60]  # fields have caps
    bare = "".join(c for c in core if c.isalnum())
    texts = {core, json.dumps(core)[1:-1], *({bare} if len(bare) >= 9 else ())}
    return {text.encode() for text in texts}
