"""The real openai client against a provider on this machine: every call is a span, and the caller notices nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from examples.model_server import USAGE, ModelServer
from steersman import Kind, MemorySink, Tracer
from steersman.openai import traced

SECRET = "the-secret-of-the-answer"
ASK: Any = [{"role": "user", "content": "the-secret-of-the-question"}]
TOKENS = {
    "input_tokens": USAGE["input"],
    "cached_input_tokens": USAGE["cached"],
    "output_tokens": USAGE["output"],
    "reasoning_tokens": USAGE["reasoning"],
    "context_tokens": USAGE["input"] + USAGE["output"],
}


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(answer=lambda model, question: SECRET) as running:
        yield running


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def client(models: ModelServer, sink: MemorySink) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="none", max_retries=0) as plain:
        yield traced(plain, Tracer("agent", sink=sink))


def call(sink: MemorySink) -> dict[str, Any]:
    """The one model call recorded."""
    (event,) = [event for event in sink.records if event["kind"] == "MODEL_CALL"]
    assert "the-secret" not in json.dumps(event)
    assert event["provider"] == "openai"
    return event


def tokens(event: dict[str, Any]) -> dict[str, int]:
    return {name: event[name] for name in (*TOKENS, "cache_write_tokens") if name in event}


def test_chat(client: openai.OpenAI, sink: MemorySink) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert answer.choices[0].message.content == SECRET
    event = call(sink)
    assert (event["operation"], event["status"]) == ("gpt-4o", "OK")
    assert tokens(event) == TOKENS
    assert json.loads(event["attributes"]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.id": "chat-1",
        "gen_ai.response.model": "gpt-4o-2026-01-01",
        "gen_ai.response.finish_reasons": ["stop"],
    }


def test_a_call_is_a_child_of_the_span_around_it(client: openai.OpenAI, sink: MemorySink) -> None:
    tracer = Tracer("agent", sink=sink)
    with tracer.span(Kind.AGENT, session_id="s") as span:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
        assert tracer.current() is span
    event = call(sink)
    assert (event["trace_id"], event["parent_span_id"], event["session_id"]) == (span.trace_id, span.span_id, "s")


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_streams(client: openai.OpenAI, sink: MemorySink, options: dict[str, Any]) -> None:
    stream = client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True, **options)
    assert not sink.records, "a stream has not ended before it was read"
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SECRET
    # The chunk with the usage is the caller's only where it was the caller who asked for it.
    assert any(not chunk.choices for chunk in chunks) == bool(options)
    event = call(sink)
    assert tokens(event) == TOKENS
    assert json.loads(event["attributes"])["gen_ai.request.stream"] is True


def test_a_stream_without_usage_has_none(client: openai.OpenAI, sink: MemorySink) -> None:
    list(client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True, stream_options={}))
    assert tokens(call(sink)) == {}


@pytest.mark.parametrize("how", ["with", "close", "drop"])
def test_a_stream_that_is_given_up_is_recorded(client: openai.OpenAI, sink: MemorySink, how: str) -> None:
    stream = client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    if how == "with":
        with stream:
            next(iter(stream))
    else:
        next(iter(stream))
        if how == "close":
            stream.close()
        else:
            stream.response.close()
            del stream
            gc.collect()
    assert call(sink)["status"] == "OK"


def test_responses_and_embeddings(client: openai.OpenAI, sink: MemorySink) -> None:
    assert client.responses.create(model="gpt-5", input="x").output_text == SECRET
    assert tokens(call(sink)) == TOKENS
    sink.records.clear()
    events = list(client.responses.create(model="gpt-5", input="x", stream=True))
    assert events[-1].type == "response.completed"
    assert tokens(call(sink)) == TOKENS
    sink.records.clear()
    assert client.embeddings.create(model="embed", input="x").data
    event = call(sink)
    assert tokens(event) == {"input_tokens": USAGE["input"], "context_tokens": USAGE["input"]}


def test_errors_are_the_callers_and_recorded(client: openai.OpenAI, sink: MemorySink) -> None:
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="broken", messages=ASK)
    event = call(sink)
    assert (event["status"], event["error"], event["operation"]) == ("ERROR", "RateLimitError", "broken")


def test_nobody_there(sink: MemorySink) -> None:
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="none", max_retries=0) as plain:
        client = traced(plain, Tracer("agent", sink=sink))
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert call(sink)["error"] == "APIConnectionError"


def test_a_server_that_refuses_the_option_is_asked_without_it(client: openai.OpenAI, sink: MemorySink) -> None:
    for _ in range(2):
        stream = client.chat.completions.create(model="picky", messages=ASK, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream) == SECRET
        assert tokens(call(sink)) == {}
        sink.records.clear()


def test_async(models: ModelServer, sink: MemorySink) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{models.url}/v1", api_key="none", max_retries=0) as plain:
            client = traced(plain, Tracer("agent", sink=sink))
            await client.chat.completions.create(model="gpt-4o", messages=ASK)
            async with await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True) as stream:
                text = "".join([c.choices[0].delta.content or "" async for c in stream])
            assert text == SECRET
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="broken", messages=ASK)
            stream = await client.chat.completions.create(model="picky", messages=ASK, stream=True)
            assert len([chunk async for chunk in stream]) == 3

    asyncio.run(run())
    events = [event for event in sink.records if event["kind"] == "MODEL_CALL"]
    assert [event["status"] for event in events] == ["OK", "OK", "ERROR", "OK"]
    assert [tokens(event) for event in events] == [TOKENS, TOKENS, {}, {}]


def test_helpers_and_raw_responses_go_on_working(client: openai.OpenAI, sink: MemorySink) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK)
    assert raw.parse().choices[0].message.content == SECRET
    assert call(sink)["status"] == "OK"
    sink.records.clear()
    with client.chat.completions.stream(model="gpt-4o", messages=ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == SECRET
    assert tokens(call(sink)) == TOKENS


def test_twice_is_once_and_another_thing_is_refused(client: openai.OpenAI, sink: MemorySink) -> None:
    assert traced(client, Tracer("agent", sink=sink)) is client
    client.chat.completions.create(model="gpt-4o", messages=ASK)
    call(sink)
    with pytest.raises(TypeError, match="no client of the openai package"):
        traced(object(), Tracer("agent", sink=sink))


def test_the_package_does_not_need_openai() -> None:
    code = "import sys; sys.modules['openai'] = None; import steersman, steersman.openai"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
