"""A small agent under real instrumentation packages: ``python -m tests.doors.emitters MODELS_URL DOOR_URL FOLDER [NAME ...]``.

Its spans go out by OpenTelemetry's own OTLP/HTTP exporter, and into ``FOLDER/NAME.otlp`` as the Collector's kafka exporter would
write them. Prints, as JSON, what spans the SDK ended: the truth to compare with.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# OpenLLMetry and OpenInference send prompts and answers unless told not to; they are left to, so that the door has to drop them.
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

QUESTION = "the-secret-of-the-question"
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]


class Kept(SpanProcessor):
    """Keeps the spans themselves."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Truth(SpanProcessor):
    """Keeps what the SDK ended."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        assert context is not None
        self.spans.append(
            {
                "trace_id": f"{context.trace_id:032x}",
                "span_id": f"{context.span_id:016x}",
                "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else None,
                "name": span.name,
                "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
                "start_us": (span.start_time or 0) // 1000,
                "end_us": (span.end_time or 0) // 1000,
                "attributes": sorted(span.attributes or {}),
            }
        )


def openai_calls(url: str) -> None:
    from openai import OpenAI, OpenAIError

    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": QUESTION}]
    client.chat.completions.create(model="gpt-4o", messages=messages)
    client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)  # type: ignore[call-overload]
    options = {"include_usage": True}
    for _ in client.chat.completions.create(model="gpt-4o", messages=messages, stream=True, stream_options=options):  # type: ignore[call-overload]
        pass
    client.embeddings.create(model="text-embedding-3-small", input=QUESTION)
    client.responses.create(model="gpt-5", input=QUESTION)
    with contextlib.suppress(OpenAIError):
        client.chat.completions.create(model="broken", messages=messages)


def anthropic_calls(url: str) -> None:
    from anthropic import Anthropic, AnthropicError

    client = Anthropic(base_url=url, api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": QUESTION}]
    client.messages.create(model="claude-opus", max_tokens=100, messages=messages)
    for _ in client.messages.create(model="claude-opus", max_tokens=100, messages=messages, stream=True):
        pass
    with contextlib.suppress(AnthropicError):
        client.messages.create(model="broken", max_tokens=100, messages=messages)


def genai_openai() -> Any:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    return OpenAIInstrumentor()


def genai_anthropic() -> Any:
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor

    return AnthropicInstrumentor()


def openllmetry_openai() -> Any:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    return OpenAIInstrumentor()


def openllmetry_anthropic() -> Any:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

    return AnthropicInstrumentor()


def openinference_openai() -> Any:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    return OpenAIInstrumentor()


def openinference_anthropic() -> Any:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor

    return AnthropicInstrumentor()


EMITTERS: dict[str, Callable[[], Any]] = {
    "genai-openai": genai_openai,
    "genai-anthropic": genai_anthropic,
    "openllmetry-openai": openllmetry_openai,
    "openllmetry-anthropic": openllmetry_anthropic,
    "openinference-openai": openinference_openai,
    "openinference-anthropic": openinference_anthropic,
}


def run(name: str, models: str, door: str, folder: Path) -> list[dict[str, Any]]:
    """Run the agent under one emitter; returns the spans that the SDK ended."""
    truth, kept = Truth(), Kept()
    provider = TracerProvider(resource=Resource.create({"service.name": "research", "service.version": "2.1"}))
    provider.add_span_processor(truth)
    provider.add_span_processor(kept)
    exporter = OTLPSpanExporter(endpoint=f"{door}/v1/traces", compression=Compression.Gzip, timeout=20)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("tests.agent")
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner", "gen_ai.conversation.id": "c-7"}
    with tracer.start_as_current_span("invoke_agent planner", kind=SpanKind.INTERNAL, attributes=agent) as root:
        tool = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.arguments": json.dumps({"q": QUESTION}),
        }
        with tracer.start_as_current_span("execute_tool search", attributes=tool):
            pass
        instrumentor = EMITTERS[name]()
        instrumentor.instrument(tracer_provider=provider)
        try:
            (openai_calls if name.endswith("openai") else anthropic_calls)(models)
        finally:
            instrumentor.uninstrument()
        scores: dict[str, Any] = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.75}
        root.add_event("gen_ai.evaluation.result", scores)
    provider.shutdown()
    (folder / f"{name}.otlp").write_bytes(encode_spans(kept.spans).SerializeToString())
    return list(truth.spans)  # what is left of an instrumentation after its end goes on adding to the list


def main(models: str, door: str, folder: str, *names: str) -> int:
    """Run every emitter named, by default all, one after the other."""
    json.dump({name: run(name, models, door, Path(folder)) for name in names or EMITTERS}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
