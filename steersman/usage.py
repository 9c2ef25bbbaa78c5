"""Token counts as providers report them, in the terms of the trace event contract.

Providers count differently, and a cost that mixes their ways up is wrong by a factor. In the contract ``input_tokens`` holds
everything in the request, tokens read from and written to a prompt cache included, and ``output_tokens`` everything in
the response, reasoning included.

==========================  ===================================  ==========================================
provider                    its input count                      its output count
==========================  ===================================  ==========================================
openai, azure.ai.openai     includes cached tokens               includes reasoning
anthropic                   leaves cache reads and writes out    includes thinking
gcp.gemini, gcp.vertex_ai   includes cached tokens, leaves the   leaves thoughts out
                            prompts of built-in tools out
aws.bedrock (Converse)      leaves cache reads and writes out    includes reasoning
deepseek                    includes cache hits                  includes reasoning
==========================  ===================================  ==========================================

Sources: OpenTelemetry's GenAI conventions (``gen_ai.usage.*``), and the providers' API references of the usage objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

WRITES: Final = "cache_write_tokens"
"""Attribute of an event (in its JSON ``attributes``) that splits its ``cache_write_tokens`` by duration: {"5m": 100, "1h": 20}."""


def usage_fields(provider: str, usage: object) -> dict[str, Any]:
    """Turn a provider's usage object into fields of a trace event.

    Parameters
    ----------
    provider : str
        Name as in ``gen_ai.provider.name``, e.g. ``openai``, ``anthropic``, ``gcp.gemini``. Others are read as ``openai``:
        that is what OpenAI-compatible servers report.
    usage : mapping or object
        ``response.usage`` of the provider's client, or the same as a mapping.

    Returns
    -------
    dict
        For `steersman.Span.set`: ``provider``, the token counts that were reported (unit: tokens), and, where
        cache writes of several durations were, ``attributes``. Counts that are no whole numbers of 0 or more are left out.

    Examples
    --------
    >>> usage_fields("anthropic", {"input_tokens": 100, "cache_read_input_tokens": 900, "output_tokens": 5})["input_tokens"]
    1000
    """
    fields = _RULES.get(provider, _openai)(usage)
    return {"provider": provider, **{name: value for name, value in fields.items() if value is not None}}


def _get(usage: object, *path: str) -> Any:
    """Value at a path of keys or attributes, None where there is none."""
    at: Any = usage
    for name in path:
        at = at.get(name) if isinstance(at, Mapping) else getattr(at, name, None)
        if at is None:
            return None
    return at


def _count(usage: object, *path: str) -> int | None:
    value = _get(usage, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _either(usage: object, *paths: tuple[str, ...]) -> int | None:
    for path in paths:
        count = _count(usage, *path)
        if count is not None:
            return count
    return None


def _sum(*counts: int | None) -> int | None:
    """Sum of what was reported; None when the first, which says that anything was, is missing."""
    return None if counts[0] is None else sum(count or 0 for count in counts)


def _openai(usage: object) -> dict[str, Any]:
    return {
        "input_tokens": _either(usage, ("prompt_tokens",), ("input_tokens",)),
        "cached_input_tokens": _either(
            usage, ("prompt_tokens_details", "cached_tokens"), ("input_tokens_details", "cached_tokens")
        ),
        "output_tokens": _either(usage, ("completion_tokens",), ("output_tokens",)),
        "reasoning_tokens": _either(
            usage, ("completion_tokens_details", "reasoning_tokens"), ("output_tokens_details", "reasoning_tokens")
        ),
    }


def _anthropic(usage: object) -> dict[str, Any]:
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    fields: dict[str, Any] = {
        "input_tokens": _sum(_count(usage, "input_tokens"), read, written),
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": _count(usage, "output_tokens"),
    }
    split = {name: _count(usage, "cache_creation", f"ephemeral_{name}_input_tokens") for name in ("5m", "1h")}
    if written and any(split.values()):
        fields["attributes"] = {WRITES: {name: count for name, count in split.items() if count}}
    return fields


def _gemini(usage: object) -> dict[str, Any]:
    thoughts = _either(usage, ("thoughts_token_count",), ("thoughtsTokenCount",))
    return {
        "input_tokens": _sum(
            _either(usage, ("prompt_token_count",), ("promptTokenCount",)),
            _either(usage, ("tool_use_prompt_token_count",), ("toolUsePromptTokenCount",)),
        ),
        "cached_input_tokens": _either(usage, ("cached_content_token_count",), ("cachedContentTokenCount",)),
        "output_tokens": _sum(_either(usage, ("candidates_token_count",), ("candidatesTokenCount",)), thoughts),
        "reasoning_tokens": thoughts,
    }


def _bedrock(usage: object) -> dict[str, Any]:
    read, written = _count(usage, "cacheReadInputTokens"), _count(usage, "cacheWriteInputTokens")
    return {
        "input_tokens": _sum(_count(usage, "inputTokens"), read, written),
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": _count(usage, "outputTokens"),
    }


def _deepseek(usage: object) -> dict[str, Any]:
    return {**_openai(usage), "cached_input_tokens": _count(usage, "prompt_cache_hit_tokens")}


_RULES: Final[dict[str, Callable[[object], dict[str, Any]]]] = {
    "anthropic": _anthropic,
    "gcp.gemini": _gemini,
    "gcp.vertex_ai": _gemini,
    "gcp.gen_ai": _gemini,
    "aws.bedrock": _bedrock,
    "deepseek": _deepseek,
}
