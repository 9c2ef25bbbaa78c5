"""Which attribute of an OpenTelemetry span means which field of ours: one table for all generations of names.

Sources: open-telemetry/semantic-conventions-genai (``model/gen-ai/spans.yaml``, the names of today and, in its changelog, those
they replaced), open-telemetry/semantic-conventions 1.28 to 1.41 (``gen_ai.system``, ``prompt_tokens``), OpenLLMetry's
``opentelemetry-semantic-conventions-ai`` (``traceloop.*``, ``llm.usage.*``), Arize's OpenInference (``llm.*``,
``openinference.span.kind``). All of them are still moving, so nothing else in the platform may know these names.
"""

from __future__ import annotations

from typing import Final

from steersman.events import Kind

TENANT: Final = "steersman.tenant"
"""Attribute of a span or of its resource that says whose it is. It decides nothing: it must be the tenant of the sender."""
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "agent": ("gen_ai.agent.name", "agent.name", "graph.node.name"),
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "langfuse.session.id",
    ),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor"),
    "model": (
        "gen_ai.request.model",
        "llm.request.model",
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "gen_ai.response.model",
        "llm.response.model",
    ),
    "tool": ("gen_ai.tool.name", "tool.name", "tool_call.function.name", "mcp.tool.name"),
    "source": ("gen_ai.data_source.id", "gen_ai.memory.store.id", "db.collection.name", "db.namespace"),
    "step": ("gen_ai.workflow.name", "traceloop.entity.name", "gen_ai.agent.name"),
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
        "llm.token_count.prompt",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
    ),
    "cached_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.cached_tokens",
        "llm.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.input_tokens.cache_write",
        "llm.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "cost_usd": ("gen_ai.usage.cost", "gen_ai.usage.total_cost", "llm.cost.total", "gen_ai.cost.total"),
    "arguments": (
        "gen_ai.tool.call.arguments",
        "tool.parameters",
        "tool_call.function.arguments",
        "gen_ai.retrieval.query.text",
        "traceloop.entity.input",
        "input.value",
    ),
    "error": ("error.type", "exception.type"),
}
"""Our name -> theirs, the newest first: of several on one span the first holds."""

OPERATIONS: Final[dict[str, Kind]] = {
    # gen_ai.operation.name
    "chat": Kind.MODEL_CALL,
    "text_completion": Kind.MODEL_CALL,
    "completion": Kind.MODEL_CALL,
    "generate_content": Kind.MODEL_CALL,
    "embeddings": Kind.MODEL_CALL,
    "embedding": Kind.MODEL_CALL,
    "fetch_response": Kind.MODEL_CALL,
    "rerank": Kind.MODEL_CALL,
    "execute_tool": Kind.TOOL_CALL,
    "retrieval": Kind.RETRIEVAL,
    "search_memory": Kind.RETRIEVAL,
    "create_memory": Kind.TOOL_CALL,
    "update_memory": Kind.TOOL_CALL,
    "upsert_memory": Kind.TOOL_CALL,
    "delete_memory": Kind.TOOL_CALL,
    "create_memory_store": Kind.TOOL_CALL,
    "delete_memory_store": Kind.TOOL_CALL,
    "plan": Kind.REASONING,
    "create_agent": Kind.AGENT,
    "invoke_agent": Kind.AGENT,
    "invoke_workflow": Kind.AGENT,
    # openinference.span.kind, traceloop.span.kind
    "llm": Kind.MODEL_CALL,
    "reranker": Kind.MODEL_CALL,
    "tool": Kind.TOOL_CALL,
    "retriever": Kind.RETRIEVAL,
    "chain": Kind.REASONING,
    "task": Kind.REASONING,
    "guardrail": Kind.REASONING,
    "evaluator": Kind.REASONING,
    "prompt": Kind.REASONING,
    "agent": Kind.AGENT,
    "workflow": Kind.AGENT,
}
OPERATION_NAMES: Final = (
    "gen_ai.operation.name",
    "openinference.span.kind",
    "traceloop.span.kind",
    "llm.request.type",
)
"""Attributes that say what kind of work a span is, the most exact first."""

PROVIDERS: Final[dict[str, str]] = {
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gen_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
    "mistralai": "mistral_ai",
    "watsonx": "ibm.watsonx.ai",
}
"""Earlier and other spellings -> the value of ``gen_ai.provider.name``; compared in lower case."""

EVALUATION: Final = "gen_ai.evaluation.result"
"""Name of the event that judges a span."""

_CONTENT: Final = frozenset(
    {
        "prompt", "prompts", "completion", "completions", "message", "messages", "content", "contents", "input", "inputs",
        "output", "outputs", "arguments", "argument", "result", "results", "body", "text", "query", "statement", "documents",
        "document", "instructions", "system_instructions", "definitions", "description", "explanation", "stacktrace",
        "json_schema", "parameters", "input_messages", "output_messages", "invocation_parameters", "vector", "embeddings",
        "prompt_template", "variables", "tool_calls", "choices", "functions", "tools",
    }
)  # fmt: skip
_HARMLESS: Final = frozenset(
    {"gen_ai.output.type", "gen_ai.prompt.name", "gen_ai.prompt.version", "input.mime_type", "output.mime_type"}
)
MAX_UNKNOWN_TEXT: Final = 256
"""Longest text kept of an attribute that no convention names: longer ones are more likely content than a name; unit: characters."""


def is_content(name: str, value: object) -> bool:
    """Tell whether an attribute holds, or may hold, what people and models said.

    Numbers and truth values never do. Texts and lists do when a part of the name says so, or when they are long.
    """
    if name in _HARMLESS or isinstance(value, bool | int | float):
        return False
    if not _CONTENT.isdisjoint(name.lower().split(".")):
        return True
    if isinstance(value, str):
        return len(value) > MAX_UNKNOWN_TEXT
    if isinstance(value, list):
        return any(is_content("", item) for item in value)
    return True
