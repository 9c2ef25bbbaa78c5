"""Costs, to the micro-dollar: golden cases of every rule, computed by hand from prices per million tokens."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from steersman.errors import ConfigError
from steersman.events import Kind, Status
from steersman.finalize import finalize
from steersman.prices import EXAMPLE, Priced, PriceTable, prices_from_env
from steersman.sink import MemorySink
from steersman.tracer import Tracer
from steersman.usage import WRITES, usage_fields

MAY_2025 = 1_746_100_000_000_000  # 2025-05-01
NOV_2025 = 1_763_000_000_000_000  # 2025-11-13
TABLE = PriceTable.parse("""
[[model]]
provider = "openai"
names = ["gpt", "gpt-2025-01-01"]
from = 2025-01-01
input = 2.50
cached_input = 1.25
output = 10.00
[[model]]
provider = "openai"
names = ["gpt"]
from = 2025-06-01
input = 1.00
cached_input = 0.10
output = 4.00
[[model]]
provider = "openai"
names = ["thinker"]
from = 2025-01-01
input = 1.10
output = 4.40
reasoning = 6.60
[[model]]
provider = "openai"
names = ["embed"]
from = 2025-01-01
input = 0.02
[[model]]
provider = "anthropic"
names = ["claude"]
from = 2025-01-01
input = 3
cached_input = 0.30
cache_write = { "5m" = 3.75, "1h" = 6.00 }
cache_write_default = "5m"
output = 15
[[model.above]]
input_tokens = 200_000
input = 6
cached_input = 0.60
cache_write = { "5m" = 7.50, "1h" = 12 }
output = 22.50
[[model]]
provider = "anthropic"
names = ["strict"]
from = 2025-01-01
input = 3
cache_write = { "5m" = 3.75, "1h" = 6.00 }
output = 15
[[model]]
provider = "flat"
names = ["call"]
from = 2025-01-01
input = 0
cache_write = 1
output = 0
per_call = 0.0015
[[model]]
provider = "gcp.gemini"
names = ["gemini"]
from = 2025-01-01
input = 1.25
cached_input = 0.125
output = 10
[[model]]
provider = "a"
names = ["twin"]
from = 2025-01-01
input = 1
[[model]]
provider = "b"
names = ["twin"]
from = 2025-01-01
input = 2
[[tool]]
provider = ""
names = ["web_search"]
from = 2025-01-01
per_call = 0.01
[[tool]]
provider = "shop"
names = ["lookup"]
from = 2025-01-01
per_call = 0.0000005
""")


def call(provider: str | None, name: str, ts: int = NOV_2025, **tokens: Any) -> Priced:
    return TABLE.cost({"kind": "MODEL_CALL", "provider": provider, "operation": name, "ts": ts, **tokens})


def of_usage(provider: str, name: str, usage: dict[str, Any]) -> Priced:
    """As an agent does it: a usage object, a span, a finished event."""
    sink = MemorySink()
    tracer = Tracer("agent", sink=sink, prices=TABLE)
    with tracer.span(Kind.MODEL_CALL, name, end=False) as span:
        span.set_usage(provider, usage)
    problems = [reason for reason in sink.stats()["problems"] if reason.startswith("unpriced:")]
    return Priced(sink.records[0].get("cost_micro_usd"), problems[0][9:] if problems else "")


# 1,000 input, 400 of them cached, 50 output at 1.00 / 0.10 / 4.00: 600 + 40 + 200.
GOLDEN: list[tuple[str, Priced, int]] = [
    ("plain", call("openai", "gpt", input_tokens=1000, output_tokens=50), 1200),
    ("cached tokens are part of the input", call("openai", "gpt", input_tokens=1000, cached_input_tokens=400, output_tokens=50), 840),
    ("all of it cached", call("openai", "gpt", input_tokens=1000, cached_input_tokens=1000, output_tokens=0), 100),
    ("earlier price", call("openai", "gpt", MAY_2025, input_tokens=1000, cached_input_tokens=400, output_tokens=50), 2500),
    ("last microsecond of the earlier price", call("openai", "gpt", 1_748_735_999_999_999, input_tokens=1000, output_tokens=0), 2500),
    ("first of the later one", call("openai", "gpt", 1_748_736_000_000_000, input_tokens=1000, output_tokens=0), 1000),
    ("a name that has no later price", call("openai", "gpt-2025-01-01", input_tokens=1000, output_tokens=50), 3000),
    ("reasoning is part of the output", call("openai", "gpt", input_tokens=0, output_tokens=300, reasoning_tokens=200), 1200),
    ("reasoning with a price of its own", call("openai", "thinker", input_tokens=100, output_tokens=300, reasoning_tokens=200), 1870),
    ("input alone", call("openai", "embed", input_tokens=100), 2),
    ("half a micro-dollar goes up", call("openai", "embed", input_tokens=25), 1),
    ("less goes down", call("openai", "embed", input_tokens=24), 0),
    ("nothing at all is a cost", call("openai", "gpt", input_tokens=0, output_tokens=0), 0),
    ("cache writes, default duration", call("anthropic", "claude", input_tokens=1000, cached_input_tokens=500, cache_write_tokens=300, output_tokens=10), 2025),
    ("cache writes by duration", call("anthropic", "claude", input_tokens=1000, cache_write_tokens=300, output_tokens=10, attributes=json.dumps({WRITES: {"5m": 100, "1h": 200}})), 3825),
    ("other attributes do not matter", call("anthropic", "claude", input_tokens=1000, cache_write_tokens=300, output_tokens=10, attributes='{"x": 1}'), 3375),
    ("at the step", call("anthropic", "claude", input_tokens=200_000, output_tokens=1000), 615_000),
    ("above the step all of it costs more", call("anthropic", "claude", input_tokens=200_001, output_tokens=1000), 1_222_506),
    ("cached tokens count for the step", call("anthropic", "claude", input_tokens=200_001, cached_input_tokens=200_000, output_tokens=0), 120_006),
    ("by call", call("flat", "call", input_tokens=10, output_tokens=10), 1500),
    ("cache write of one price", call("flat", "call", input_tokens=10, cache_write_tokens=10, output_tokens=10), 1510),
    ("no provider, one that has the name", call(None, "embed", input_tokens=1000), 20),
    ("tool of any provider", TABLE.cost({"kind": "TOOL_CALL", "operation": "web_search", "ts": NOV_2025}), 10_000),
    ("tool of a provider", TABLE.cost({"kind": "TOOL_CALL", "provider": "shop", "operation": "lookup", "ts": NOV_2025}), 1),
    # Providers' usage objects. OpenAI counts cached tokens in, Anthropic and Bedrock leave them out, Gemini leaves thoughts out.
    ("openai chat", of_usage("openai", "gpt", {"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 400}, "completion_tokens_details": {"reasoning_tokens": 20}}), 840),
    ("openai responses", of_usage("openai", "gpt", {"input_tokens": 1000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 400}, "output_tokens_details": {"reasoning_tokens": 20}}), 840),
    ("anthropic", of_usage("anthropic", "claude", {"input_tokens": 200, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 300, "output_tokens": 10}), 2025),
    ("anthropic, both durations", of_usage("anthropic", "claude", {"input_tokens": 700, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 300, "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}, "output_tokens": 10}), 3825),
    ("anthropic, durations told where none is the default", of_usage("anthropic", "strict", {"input_tokens": 700, "cache_creation_input_tokens": 300, "cache_creation": {"ephemeral_1h_input_tokens": 300}, "output_tokens": 10}), 4050),
    ("gemini", of_usage("gcp.gemini", "gemini", {"prompt_token_count": 900, "tool_use_prompt_token_count": 100, "cached_content_token_count": 400, "candidates_token_count": 30, "thoughts_token_count": 20}), 1300),
]  # fmt: skip


@pytest.mark.parametrize(("priced", "micro_usd"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_golden(priced: Priced, micro_usd: int) -> None:
    assert priced == Priced(micro_usd)


UNKNOWN: list[tuple[str, Priced]] = [
    ("unknown_model", call("openai", "other", input_tokens=1, output_tokens=1)),
    ("unknown_model", call("azure", "gpt", input_tokens=1, output_tokens=1)),
    ("unknown_model", call("openai", "GPT", input_tokens=1, output_tokens=1)),
    ("unknown_model", call(None, "other", input_tokens=1)),
    ("unknown_tool", TABLE.cost({"kind": "TOOL_CALL", "operation": "grep", "ts": NOV_2025})),
    ("unknown_tool", TABLE.cost({"kind": "TOOL_CALL", "provider": "other", "operation": "lookup", "ts": NOV_2025})),
    ("unknown_model", TABLE.cost({"kind": "MODEL_CALL", "operation": "web_search", "ts": NOV_2025})),
    ("before_first_price", call("openai", "gpt", 1_735_689_599_999_999, input_tokens=1, output_tokens=1)),
    ("ambiguous_provider", call(None, "twin", input_tokens=1)),
    ("no_tokens", call("openai", "gpt")),
    ("no_tokens", call("openai", "gpt", output_tokens=5)),
    ("no_tokens", call("openai", "gpt", input_tokens=5)),
    ("inconsistent_tokens", call("openai", "gpt", input_tokens=10, cached_input_tokens=11, output_tokens=1)),
    ("inconsistent_tokens", call("openai", "gpt", input_tokens=10, output_tokens=1, reasoning_tokens=2)),
    ("inconsistent_tokens", call("anthropic", "claude", input_tokens=10, cached_input_tokens=6, cache_write_tokens=5, output_tokens=1)),
    ("inconsistent_tokens", call("anthropic", "claude", input_tokens=10, cache_write_tokens=5, output_tokens=1, attributes=json.dumps({WRITES: {"5m": 4}}))),
    ("no_cached_price", call("openai", "thinker", input_tokens=10, cached_input_tokens=1, output_tokens=1)),
    ("no_cache_write_price", call("openai", "gpt", input_tokens=10, cache_write_tokens=1, output_tokens=1)),
    ("no_cache_write_price", call("anthropic", "strict", input_tokens=10, cache_write_tokens=5, output_tokens=1)),
    ("no_cache_write_price", call("anthropic", "claude", input_tokens=10, cache_write_tokens=5, output_tokens=1, attributes=json.dumps({WRITES: {"1d": 5}}))),
    ("no_output_price", call("openai", "embed", input_tokens=10, output_tokens=1)),
    ("too_large", call("anthropic", "claude", input_tokens=10**13, output_tokens=10**13)),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "priced"), UNKNOWN)
def test_what_is_not_known_is_no_cost_and_never_0(reason: str, priced: Priced) -> None:
    assert priced == Priced(None, reason)


def test_a_broken_attribute_is_passed_over() -> None:
    for attributes in ("{", f'{{"{WRITES}": 5}}', f'{{"{WRITES}": {{"5m": "x"}}}}', "[" * 100_000 + WRITES):
        priced = call(
            "anthropic", "claude", input_tokens=10, cache_write_tokens=4, output_tokens=0, attributes=attributes
        )
        assert priced == Priced(33)


def test_the_tracer_prices_calls_without_a_cost_and_counts_what_it_cannot() -> None:
    sink = MemorySink()
    tracer = Tracer("agent", sink=sink, prices=TABLE)
    fields = {"provider": "openai", "input_tokens": 1000, "output_tokens": 50}
    tracer.emit({"kind": Kind.MODEL_CALL, "operation": "gpt", "ts": NOV_2025, **fields})
    tracer.emit({"kind": Kind.MODEL_CALL, "operation": "gpt", "ts": NOV_2025, "cost_micro_usd": 7, **fields})
    tracer.emit({"kind": Kind.MODEL_CALL, "operation": "gpt", "ts": NOV_2025, "cost_micro_usd": 0, **fields})
    tracer.emit({"kind": Kind.MODEL_CALL, "operation": "nobody's", "ts": NOV_2025, **fields})
    tracer.emit({"kind": Kind.AGENT, "operation": "gpt", "ts": NOV_2025, **fields})
    assert [record.get("cost_micro_usd") for record in sink.records] == [1200, 7, 0, None, None]
    assert sink.stats()["problems"] == {"unpriced:unknown_model": 1}


def test_a_failed_call_costs_what_it_reports() -> None:
    sink = MemorySink()
    tracer = Tracer("agent", sink=sink, prices=TABLE)
    with contextlib.suppress(TimeoutError), tracer.span(Kind.MODEL_CALL, "gpt", end=False) as span:
        span.set(provider="openai", input_tokens=1000, output_tokens=50)
        raise TimeoutError
    (record,) = sink.records
    assert (record["status"], record["cost_micro_usd"]) == (Status.TIMEOUT, 1200)


def test_usage_of_objects_and_of_nonsense() -> None:
    class Usage:
        input_tokens = 5
        output_tokens = True

    assert usage_fields("anthropic", Usage()) == {"provider": "anthropic", "input_tokens": 5}
    assert usage_fields("openai", None) == {"provider": "openai"}
    assert usage_fields("deepseek", {"prompt_tokens": 9, "prompt_cache_hit_tokens": 4, "completion_tokens": 1}) == {
        "provider": "deepseek", "input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 1,
    }  # fmt: skip
    assert (
        usage_fields("aws.bedrock", {"inputTokens": 1, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 3})[
            "input_tokens"
        ]
        == 6
    )
    assert usage_fields("gcp.gemini", {"promptTokenCount": 7, "candidatesTokenCount": -1}) == {
        "provider": "gcp.gemini",
        "input_tokens": 7,
    }

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    tracer = Tracer("agent", sink=MemorySink())
    tracer.span(Kind.MODEL_CALL).set_usage("openai", Hostile())
    assert tracer.stats()["trouble"] == {"bad_usage": 1}


BAD = [
    ("nothing", "", "holds no price"),
    ("no TOML", "[[model", "not TOML"),
    ("unknown key", '[[model]]\nprovider="p"\nnames=["m"]\nfrom=2025-01-01\ninput=1\ncolour=1', "model\\[0\\].colour: unknown key"),
    ("unknown table", "[[models]]", "models: unknown key"),
    ("no input", '[[model]]\nprovider="p"\nnames=["m"]\nfrom=2025-01-01', "model\\[0\\].input: is required"),
    ("negative", '[[model]]\nprovider="p"\nnames=["m"]\nfrom=2025-01-01\ninput=-1', "model\\[0\\].input"),
    ("too fine", '[[model]]\nprovider="p"\nnames=["m"]\nfrom=2025-01-01\ninput=0.0000001', "six decimals"),
    ("not finite", '[[model]]\nprovider="p"\nnames=["m"]\nfrom=2025-01-01\ninput=nan', "model\\[0\\].input"),
    ("default", '[[model]]\nprovider="p"\nnames=["m"]\nfrom=2025-01-01\ninput=1\ncache_write={"5m"=1}\ncache_write_default="1h"', "no duration"),
    ("twice", '[[tool]]\nprovider="p"\nnames=["m", "m"]\nfrom=2025-01-01\nper_call=1', "two prices from 2025-01-01"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_table_is_refused_with_place_and_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PriceTable.parse(text)


def test_the_shipped_table_loads_and_names_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEERSMAN_PRICES", raising=False)
    assert prices_from_env() is None
    monkeypatch.setenv("STEERSMAN_PRICES", "example")
    table = prices_from_env()
    assert table is not None
    assert all(price.source for price in table.models)
    assert EXAMPLE.read_text().count("[[model]]") == len(table)
    event = {"kind": "MODEL_CALL", "provider": "openai", "operation": "gpt-4.1", "ts": NOV_2025}
    assert table.cost(event | {"input_tokens": 12_033, "cached_input_tokens": 11_904, "output_tokens": 44}) == Priced(
        6562
    )
    monkeypatch.setenv("STEERSMAN_PRICES", "/nowhere.toml")
    with pytest.raises(ConfigError, match="STEERSMAN_PRICES"):
        Tracer("agent", sink=MemorySink())


def test_a_table_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        PriceTable.load(tmp_path / "p.toml")


def test_finalize_leaves_other_costs_alone() -> None:
    record = {"trace_id": "a" * 32, "span_id": "b" * 16, "cost_micro_usd": 5}
    assert finalize(record, Counter())["cost_micro_usd"] == 5
