"""Secrets and personal data are found in whatever holds them, and nothing else is."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from steersman.content import MAX_NODES, arguments, message_of, parameter_names
from steersman.errors import ConfigError
from steersman.events import STRING_CAPS, Kind
from steersman.finalize import finalize
from steersman.redaction import KIND_NAMES, MAX_DEPTH, RedactionFailed, Redactor, is_secret_key
from steersman.secret_kinds import is_card
from steersman.sink import MemorySink
from steersman.tracer import Tracer

BASE = {"trace_id": "1" * 32, "span_id": "2" * 16, "kind": "TOOL_CALL"}
MAIL = "alice@example.com"


def cleaned(redactor: Redactor | None = None, **fields: Any) -> tuple[dict[str, Any], Counter[str]]:
    problems: Counter[str] = Counter()
    return finalize({**BASE, **fields}, problems, redactor or Redactor()), problems


@pytest.mark.parametrize(
    ("text", "out"),
    [
        (f"mail {MAIL}, please", "mail [EMAIL], please"),
        ("a@b.co;c%40d.org", "[EMAIL];[EMAIL]"),
        (f"{MAIL}-1 {MAIL}_2 id_{MAIL}", "[EMAIL]-1 [EMAIL]_2 [EMAIL]"),
        ("KEY_AKIAIOSFODNN7EXAMPLE_1", "KEY_[AWS_ACCESS_KEY]_1"),
        ("card 12 4111 1111 1111 1111 99", "card 12 [CREDIT_CARD] 99"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),
        ("loss 0.4111111111111111", "loss 0.4111111111111111"),
        ("iban DE89 3704 0044 0532 0130 00.", "iban [IBAN]."),
        ("AB12 DE89370400440532013000", "AB12 [IBAN]"),
        ("DE88370400440532013000", "DE88370400440532013000"),
        ("at 2001:db8::1. and fe80::1ff:fe23:4567:890a: up", "at [IPV6_ADDRESS]. and [IPV6_ADDRESS]: up"),
        ("at 12:30:45, a::b, std::vector, x[1::2]", "at 12:30:45, a::b, std::vector, x[1::2]"),
        ("http://127.0.0.1:80 from 10.1.2.3", "http://127.0.0.1:80 from [IP_ADDRESS]"),
        ("postgres://u:p@ss@h/db", "postgres://[URL_CREDENTIALS]@ss@h/db"),
        ("password=hunter2&x=1", "password=[PASSWORD]&x=1"),
        ("the password is hunter2!", "the password is [PASSWORD]"),
        ("the password is required", "the password is required"),
        ('{"password": null}', '{"password": null}'),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ cut off", "[PRIVATE_KEY]"),
        ('{"a":"x","a":"y"}', '{"a":"x","a":"y"}'),
        (f'{{"a":"{MAIL}","a":"y"}}', '{"a": "y"}'),
        ('{"a":"alice\\u0040example.com"}', '{"a": "[EMAIL]"}'),
    ],
)
def test_texts(text: str, out: str) -> None:
    assert Redactor().text(text) == out


def test_nested_values_keys_and_json_within_json() -> None:
    inner = json.dumps({"note": json.dumps([f"<{MAIL}>"])})
    value = {
        "to": [{"who": (MAIL, 7)}],
        MAIL: 1,
        "Authorization": "abc",
        "max_tokens": 5,
        "card": 4111111111111111,
        "j": inner,
    }
    out = Redactor().value(value)
    assert out["to"] == [{"who": ["[EMAIL]", 7]}]
    assert out["[EMAIL]"] == 1
    assert (out["Authorization"], out["max_tokens"], out["card"]) == ("[SECRET]", 5, "[CREDIT_CARD]")
    assert json.loads(json.loads(out["j"])["note"]) == ["<[EMAIL]>"]
    deep: Any = MAIL
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    assert MAIL not in json.dumps(Redactor().value(deep))
    text = json.dumps(MAIL)
    for _ in range(12):
        text = json.dumps([text])
    assert MAIL not in Redactor().text(text)


@pytest.mark.parametrize(
    "name", ["password", "userPassword", "X-Api-Key", "client_secret", "refreshToken", "Set-Cookie", "CVV"]
)
def test_keys_that_name_secrets(name: str) -> None:
    assert is_secret_key(name)


@pytest.mark.parametrize(
    "name", ["input_tokens", "keyboard", "passenger", "secretary", "tokenizer", "pinned", "x" * 200]
)
def test_keys_that_do_not(name: str) -> None:
    assert not is_secret_key(name)


def test_pseudonyms_join_and_depend_on_the_key() -> None:
    one, other = Redactor(pseudonym_key=b"k" * 16), Redactor(pseudonym_key=b"K" * 16)
    first, second = one.text(f"{MAIL} {MAIL}").split()
    assert first == second
    assert first.startswith("[EMAIL:")
    assert len(first) == len("[EMAIL:]") + 16
    assert first != other.text(MAIL)
    assert one.text(first) == first
    with pytest.raises(ConfigError, match="at least 16"):
        Redactor(pseudonym_key=b"short")


def test_kinds_can_be_left_alone() -> None:
    assert Redactor(without=["EMAIL"]).text(f"{MAIL} 10.1.2.3") == f"{MAIL} [IP_ADDRESS]"
    assert len(KIND_NAMES) >= 20
    with pytest.raises(ConfigError, match="EMAIL"):
        Redactor(without=["MAIL"])


def test_a_secret_that_the_cap_would_cut_is_found_whole() -> None:
    cap = STRING_CAPS["comment"]
    for before in range(cap - len(MAIL) - 2, cap + 2):
        out, _ = cleaned(comment="x" * before + " " + MAIL + " " + "y" * 100)
        assert "alice" not in out["comment"]
        assert "example" not in out["comment"]
        assert len(out["comment"]) <= cap
    out, _ = cleaned(attributes={"a": "x" * 9000 + MAIL, "b": 1})
    assert json.loads(out["attributes"]) == {"b": 1}
    assert out["truncated"]


def test_names_that_come_again_are_looked_at_once_and_ids_stay_ids() -> None:
    calls: list[str] = []

    def hook(text: str) -> str:
        calls.append(text)
        return text.replace("Bob", "[NAME]")

    redactor = Redactor(hook=hook)
    for _ in range(50):
        out, _ = cleaned(redactor, operation="ask Bob")
    assert out["operation"] == "ask [NAME]"
    assert calls == ["ask Bob"]
    one, two = (cleaned(event_id=f"{MAIL}-1")[0]["event_id"] for _ in range(2))
    assert one == two
    assert MAIL not in one
    assert len(one) == 32
    assert cleaned(event_id="0af7651916cd43dd8448eb211c80319c")[0]["event_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert cleaned(arm=f"to={MAIL}")[0]["arm"] == f"to={MAIL}", "the operator's own names are left alone"


@pytest.mark.parametrize("hook", [lambda text: 1 / 0, lambda text: None, lambda text: exec_recursion()])
def test_it_fails_closed(hook: Any) -> None:
    redactor = Redactor(hook=hook)
    with pytest.raises(RedactionFailed) as shown:
        redactor.text(f"to {MAIL}")
    assert MAIL not in str(shown.value)
    assert shown.value.__cause__ is None
    out, problems = cleaned(redactor, comment=f"to {MAIL}", attributes={"a": MAIL}, event_id=MAIL, cost_micro_usd=3)
    assert MAIL not in json.dumps(out)
    assert "comment" not in out
    assert out["cost_micro_usd"] == 3
    assert len(out["event_id"]) == 32
    assert problems["redaction_failed:comment"] == problems["redaction_failed:attributes"] == 1


def exec_recursion() -> str:
    return exec_recursion()


def test_content_stays_in_the_process_unless_asked_for() -> None:
    def call(tracer: Tracer) -> dict[str, Any]:
        with pytest.raises(KeyError):
            tracer.observe(Kind.TOOL_CALL, "t")(lambda query: {}[query])(f"mail {MAIL}")
        return tracer._sink.records[0]  # type: ignore[attr-defined, no-any-return]

    assert "attributes" not in call(Tracer("a", sink=MemorySink()))
    shown = json.loads(call(Tracer("a", sink=MemorySink(), capture_content=True))["attributes"])
    assert shown == {"arguments": {"query": "mail [EMAIL]"}, "exception.message": "'mail [EMAIL]'"}
    raw = json.loads(call(Tracer("a", sink=MemorySink(redact=False), capture_content=True))["attributes"])
    assert raw["arguments"] == {"query": f"mail {MAIL}"}


def test_arguments_are_copied_small_and_plain() -> None:
    class Tool:
        def run(self, query: str, *more: Any, **options: Any) -> None: ...

    names = parameter_names(Tool.run)
    options: dict[str, Any] = {"n": 1, "x": float("nan"), "b": b"12", "o": Tool(), "list": list(range(1000))}
    copied = arguments(names, (Tool(), "q", 2), options)
    options["list"].clear()
    assert (copied["query"], copied["2"], copied["x"], copied["b"], copied["o"]) == (
        "q",
        2,
        "nan",
        "<2 bytes>",
        "<Tool>",
    )
    assert "self" not in copied
    assert 0 < len(copied["list"]) <= MAX_NODES

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert message_of(Mute()) == ""


def test_card_numbers_have_their_check_digit() -> None:
    assert is_card("4111111111111111")
    assert not is_card("4111111111111112")
    assert not is_card("1760000000000000")
