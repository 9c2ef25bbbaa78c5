"""What redaction looks for: secrets and personal data, each kind with the pattern that finds it in a text.

Every search is linear in the text, hostile or not: patterns begin at something rare, their repeats are bounded, and a
pattern is tried only where one of its hints occurs at all. Numbers that only look like a card or an account are told
apart by their check digits.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Span = tuple[int, int]
Check = Callable[[str], bool]

SECRET_KEYS = frozenset(
    {
        "password", "passwd", "pwd", "passphrase", "secret", "secret_key", "secretkey", "client_secret", "api_key", "apikey",
        "x_api_key", "access_key", "private_key", "auth_token", "access_token", "refresh_token", "id_token", "token",
        "session_token", "bearer_token", "authorization", "proxy_authorization", "cookie", "set_cookie", "credentials",
        "account_key", "shared_access_key", "connection_string", "pin", "cvv", "cvc", "ssn",
    }
)  # fmt: skip
"""Keys of a mapping whose text is a secret whatever it looks like; compared in lower case, with ``_`` for ``-`` and blanks."""


@dataclass(frozen=True)
class Kind:
    """A kind of secret.

    Attributes
    ----------
    name
        Its placeholder, without brackets.
    find
        Yields where it occurs in a text, by character positions.
    hints
        Texts of which one must occur for it to be there at all; in lower case and looked up in the lower-case text where
        `folded`. None at all: a digit must occur.
    folded
        See `hints`.
    """

    name: str
    find: Callable[[str], Iterator[Span]]
    hints: tuple[str, ...] = ()
    folded: bool = False


def _pattern(
    regex: str, *, group: int | None = 0, check: Check | None = None, flags: int = 0
) -> Callable[[str], Iterator[Span]]:
    """Finds of a pattern, or of one of its groups; None: of whichever group took part."""
    compiled = re.compile(regex, flags)

    def find(text: str) -> Iterator[Span]:
        for match in compiled.finditer(text):
            part = (match.lastindex or 0) if group is None else group
            if check is None or check(match.group(part)):
                yield match.span(part)

    return find


_AT = re.compile(r"(?<=[\w.%+'-])(?:@|%40)(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}")
_LOCAL = frozenset(".%+-_'")


def _emails(text: str) -> Iterator[Span]:
    """The part after the @ first, which is rare; then as much before it as belongs to the address."""
    floor = 0
    for match in _AT.finditer(text):
        start = match.start()
        least = max(floor, start - 64)
        while start > least and (text[start - 1].isalnum() or text[start - 1] in _LOCAL):
            start -= 1
        if start < match.start():
            floor = match.end()
            yield start, match.end()


_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def _private_keys(text: str) -> Iterator[Span]:
    """From BEGIN to END, or to the end of the text where it has been cut off."""
    at = 0
    while (begin := _BEGIN.search(text, at)) is not None:
        end = _END.search(text, begin.end())
        at = len(text) if end is None else end.end()
        yield begin.start(), at


def luhn(digits: str) -> bool:
    """Whether a number has the check digit of ISO/IEC 7812-1, annex B."""
    back = digits[::-1]
    return (sum(map(int, back[::2])) + sum(_DOUBLED[int(char)] for char in back[1::2])) % 10 == 0


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_ISSUERS = re.compile(r"4|5[1-5]|2[2-7]|3[05689]|37|34|6")


def is_card(digits: str) -> bool:
    """Whether digits are a card number: 13 to 19 of a known issuer's range, with the right check digit."""
    return 13 <= len(digits) <= 19 and _ISSUERS.match(digits) is not None and len(set(digits)) > 1 and luhn(digits)


_DIGIT_RUN = re.compile(r"(?<!\d)(?<!\d\.)[0-9]{3,}(?:[ .\u00a0\u2010-\u2013-][0-9]{3,})*")
_DIGIT_GROUP = re.compile(r"[0-9]+")


def _cards(text: str) -> Iterator[Span]:
    """Groups of three digits and more, as they are written on a card or in one piece, among whatever other numbers."""
    for run in _DIGIT_RUN.finditer(text):
        if run.end() - run.start() < 13:
            continue
        groups = [group.span() for group in _DIGIT_GROUP.finditer(text, run.start(), run.end())]
        first = 0
        while first < len(groups):
            digits, end, last = "", 0, first
            for i in range(first, min(first + 6, len(groups))):
                digits += text[groups[i][0] : groups[i][1]]
                if len(digits) > 19:
                    break
                if is_card(digits):
                    end, last = groups[i][1], i
            if end:
                yield groups[first][0], end
            first = last + 1


_IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[0-9]{2}(?=[ -]?[A-Za-z0-9])")
_IBAN_SIZES: dict[str, int] = {
    country: size
    for size, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Characters of an IBAN by country (SWIFT IBAN registry)."""


def _ibans(text: str) -> Iterator[Span]:
    """Of the length of their country, written together or in groups, remainder 1 modulo 97 (ISO 13616)."""
    for match in _IBAN_START.finditer(text):
        size = _IBAN_SIZES.get(match.group(1).upper())
        if size is None:
            continue
        compact, end = "", match.start()
        while len(compact) < size and end < len(text):
            char = text[end]
            if char.isascii() and char.isalnum():
                compact += char
            elif char not in " -":
                break
            end += 1
        if len(compact) == size and int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1:
            yield match.start(), end


_TAME = re.compile(r"(?:127|0)\.|255\.255\.")


def _is_ipv4(text: str) -> bool:
    return _TAME.match(text) is None


_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{1,40}(?:\.[0-9]{1,3}){0,3}(?!\w)")


def _ipv6(text: str) -> Iterator[Span]:
    """Neither times, nor slices, nor names of C++: of the groups one has three digits or more."""
    for match in _IPV6.finditer(text):
        found = match.group()
        if found.endswith(":") and not found.endswith("::"):
            found = found[:-1]
        groups = [group for group in found.split(":") if group]
        if found.count(":") < 2 or len(groups) < 2 or max(map(len, groups)) < 3:
            continue
        with contextlib.suppress(ValueError):
            ipaddress.IPv6Address(found)
            yield match.start(), match.start() + len(found)


def _is_phone(text: str) -> bool:
    return 8 <= sum(c.isdigit() for c in text) <= 15


def _secret_value(text: str) -> bool:
    """Whether the text after ``password=`` can be one, and is no word of a sentence, placeholder or type."""
    bare = text.strip("\"'\\ ")
    return not bare.startswith(("[", "{", "<", "$", "*")) and bare.lower() not in _NO_SECRETS


def _odd_word(text: str) -> bool:
    return _secret_value(text) and not text.isalpha()


_NO_SECRETS = frozenset(
    {"none", "null", "true", "false", "required", "optional", "string", "undefined", "str", "empty"}
)
_LEFT, _RIGHT = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_ASSIGNED = r"""\\?["']?[ \t]{0,4}(?::=|=>|[:=])[ \t]{0,4}"""
_QUOTED = r"""\\?"[^"\\\n]{1,512}\\?"|\\?'[^'\\\n]{1,512}\\?'"""
_BARE = r"""[^\s"'\\,;&<>]{3,512}"""
_PASSWORDS = r"(?:passwo?r?d|passphrase|passcode|pwd)"
_SECRETS = (
    r"(?:(?:client|app|shared|api)?[_-]?secret(?:[_-]?key)?|(?:api|private|encryption)[_-]?key"
    r"|(?:access|auth|refresh|session|id|bearer|api)[_-]?token)"
)

KINDS: tuple[Kind, ...] = (
    Kind("PRIVATE_KEY", _private_keys, ("PRIVATE KEY",)),
    Kind(
        "JWT",
        _pattern(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,4096})?"),
        ("eyJ",),
    ),
    Kind("URL_CREDENTIALS", _pattern(r"""(?<=://)[^\s/@"'<>]{1,512}(?=@)"""), ("://",)),
    Kind(
        "AWS_ACCESS_KEY",
        _pattern(_LEFT + r"(?:AKIA|ASIA|ABIA|ACCA|AIDA|AROA)[A-Z2-7]{16}" + _RIGHT),
        ("AKIA", "ASIA", "ABIA", "ACCA", "AIDA", "AROA"),
    ),
    Kind(
        "AWS_SECRET_KEY",
        _pattern(
            r"""(?:secret_?(?:access_?)?key|aws_?secret)["'\\ ]{0,4}[:=]["'\\ ]{0,4}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])""",
            group=1,
            flags=re.I,
        ),
        ("secret",),
        folded=True,
    ),
    Kind("GOOGLE_API_KEY", _pattern(_LEFT + r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"), ("AIza",)),
    Kind(
        "GOOGLE_OAUTH_TOKEN",
        _pattern(_LEFT + r"(?:ya29\.[A-Za-z0-9_-]{20,512}|GOCSPX-[A-Za-z0-9_-]{20,64})"),
        ("ya29.", "GOCSPX-"),
    ),
    Kind(
        "AZURE_KEY",
        _pattern(
            r"""(?:account|access)_?key["']?\s{0,4}[:=]\s{0,4}["']?([A-Za-z0-9+/]{43,86}={1,2})"""
            r"|[?&]sig=([A-Za-z0-9%+/=]{40,128})",
            group=None,
            flags=re.I,
        ),
        ("key", "sig="),
        folded=True,
    ),
    Kind(
        "GITHUB_TOKEN",
        _pattern(_LEFT + r"(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{22,255})"),
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    Kind(
        "GITLAB_TOKEN",
        _pattern(_LEFT + r"gl(?:pat|ptt|dt|rt|soat|cbt)-[A-Za-z0-9_.-]{20,255}"),
        ("glpat-", "glptt-", "gldt-", "glrt-", "glsoat-", "glcbt-"),
    ),
    Kind(
        "SLACK_TOKEN",
        _pattern(
            _LEFT
            + r"(?:xox[abeoprs]-|xapp-)[A-Za-z0-9-]{10,255}|hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,255}"
        ),
        ("xox", "xapp-", "hooks.slack.com"),
    ),
    Kind("ANTHROPIC_KEY", _pattern(_LEFT + r"sk-ant-[A-Za-z0-9_-]{16,255}"), ("sk-ant-",)),
    Kind("OPENAI_KEY", _pattern(_LEFT + r"sk-(?!ant-)(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{20,255}"), ("sk-",)),
    Kind(
        "STRIPE_KEY",
        _pattern(_LEFT + r"(?:[sr]k_(?:live|test)_|whsec_)[A-Za-z0-9]{16,255}"),
        ("_live_", "_test_", "whsec_"),
    ),
    Kind("HUGGINGFACE_TOKEN", _pattern(_LEFT + r"(?:hf|api_org)_[A-Za-z0-9]{24,128}"), ("hf_", "api_org_")),
    Kind(
        "VENDOR_TOKEN",
        _pattern(
            _LEFT + r"(?:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{32,512}|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}"
            r"|dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|gsk_[A-Za-z0-9]{32,128}|xai-[A-Za-z0-9]{32,128}|r8_[A-Za-z0-9]{32,64}"
            r"|pplx-[A-Za-z0-9]{32,64}|nvapi-[A-Za-z0-9_-]{32,128}|lsv2_[a-z]{2}_[A-Za-z0-9_]{32,128}|shpat_[a-f0-9]{32}"
            r"|hvs\.[A-Za-z0-9_-]{24,128})"
        ),
        (
            "npm_",
            "pypi-",
            "SG.",
            "dop_v1_",
            "dapi",
            "gsk_",
            "xai-",
            "r8_",
            "pplx-",
            "nvapi-",
            "lsv2_",
            "shpat_",
            "hvs.",
        ),
    ),
    Kind(
        "BEARER_TOKEN",
        _pattern(
            r"""authorization["']?[ \t]{0,4}[:=][ \t]{0,4}["']?(?:[A-Za-z]{1,16}[ \t]{1,4})?([^\s"',;]{4,4096})"""
            r"|\b(?:bearer|basic|token)[ \t]{1,4}((?=[A-Za-z._~+/=-]{0,64}[0-9])[A-Za-z0-9._~+/=-]{16,4096})",
            group=None,
            flags=re.I,
        ),
        ("authorization", "bearer", "basic", "token"),
        folded=True,
    ),
    Kind(
        "COOKIE",
        _pattern(
            r"""\b(?:set-)?cookie["']?[ \t]{0,4}:[ \t]{0,4}["']?([^\s=;"']{1,128}=[^\r\n"]{4,4096})""",
            group=1,
            flags=re.I,
        ),
        ("cookie",),
        folded=True,
    ),
    Kind(
        "PASSWORD",
        _pattern(_PASSWORDS + _ASSIGNED + f"({_QUOTED}|{_BARE})", group=1, check=_secret_value, flags=re.I),
        ("passw", "passp", "passc", "pwd"),
        folded=True,
    ),
    Kind(
        "PASSWORD",
        _pattern(_PASSWORDS + r"[ \t]{1,4}(?:is|was)[ \t]{1,4}(\S{4,128})", group=1, check=_odd_word, flags=re.I),
        ("passw", "passp", "passc", "pwd"),
        folded=True,
    ),
    Kind(
        "SECRET",
        _pattern(_SECRETS + _ASSIGNED + f"({_QUOTED}|{_BARE})", group=1, check=_odd_word, flags=re.I),
        ("secret", "key", "token"),
        folded=True,
    ),
    Kind("EMAIL", _emails, ("@", "%40")),
    Kind("IBAN", _ibans),
    Kind("CREDIT_CARD", _cards),
    Kind("SSN", _pattern(r"(?<![\d-])(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![\d-])")),
    Kind(
        "PHONE",
        _pattern(
            r"(?<![\w.+-])(?:\+[1-9](?:[ .()/-]{0,2}[0-9]){7,14}|00[1-9][0-9]?(?:[ .()/-]{1,2}[0-9]{2,5}){2,5}"
            r"|(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}|0[0-9]{2,4}[ /-][0-9]{3,4}[ -]?[0-9]{3,5})(?![\w-]|\.[0-9])",
            check=_is_phone,
        ),
    ),
    Kind(
        "IP_ADDRESS",
        _pattern(
            r"(?<![\w.-])(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?![\w-]|\.[0-9])",
            check=_is_ipv4,
        ),
    ),
    Kind("IPV6_ADDRESS", _ipv6),
    Kind("MAC_ADDRESS", _pattern(r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")),
)
"""All kinds; where finds overlap, the earlier kind gives the name."""
