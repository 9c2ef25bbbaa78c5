"""One small task, three ways to build an agent: plain Python, LangGraph, OpenAI's Agents SDK. They run against `examples.model_server`.

Each publishes its traces, lets a policy of ``policies.toml`` decide, and reports how it turned out.
"""
