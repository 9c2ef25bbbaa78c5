"""A model provider on this machine, so that agents run without a key: ``python -m examples.model_server --port 8600``.

The chat, responses, embedding and message endpoints of OpenAI and Anthropic. It can add up and nothing else: ``small`` is fast and
goes wrong on sums of more than two numbers, ``large`` takes ten times as long and is nearly always right; which sums a model gets wrong is
fixed. Of models by other names ``broken`` answers 429, ``picky`` refuses ``stream_options``, all others answer as ``large`` does, at once.
A request that offers tools is answered with a call of the first one, unless the last message is a tool's answer: then with that.
Token counts are always those of `USAGE`.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

USAGE: Final = {"input": 120, "cached": 64, "cache_write": 16, "output": 30, "reasoning": 12}
"""Tokens of every answer; of the 120 of the input 64 came from the cache, of the 30 of the output 12 were reasoning."""
Answer = Callable[[str, str], str]
"""(model, question) -> the text of the answer."""


@dataclass(frozen=True)
class Skill:
    """What a model is like.

    Attributes
    ----------
    latency_s : float
        Time an answer takes; unit: seconds.
    slips : tuple of (float, float)
        Share of the sums it gets wrong: of two numbers, and of more.
    """

    latency_s: float
    slips: tuple[float, float]


MODELS: Final = {"small": Skill(0.002, (0.0, 0.6)), "large": Skill(0.02, (0.0, 0.05))}


def arithmetic(model: str, question: str) -> str:
    """Add the whole numbers of a question up, as well as the model can."""
    skill = MODELS.get(model, MODELS["large"])
    numbers = [int(digits) for digits in re.findall(r"\d{1,12}", question)]
    slips = skill.slips[len(numbers) > 2]
    slip = zlib.crc32(f"{model} {question}".encode()) % 1000 < 1000 * slips
    return str(sum(numbers) + (10 if slip else 0))


def openai_usage() -> dict[str, Any]:
    return {
        "prompt_tokens": USAGE["input"],
        "completion_tokens": USAGE["output"],
        "total_tokens": USAGE["input"] + USAGE["output"],
        "prompt_tokens_details": {"cached_tokens": USAGE["cached"]},
        "completion_tokens_details": {"reasoning_tokens": USAGE["reasoning"]},
    }


def responses_usage() -> dict[str, Any]:
    return {
        "input_tokens": USAGE["input"],
        "input_tokens_details": {"cached_tokens": USAGE["cached"]},
        "output_tokens": USAGE["output"],
        "output_tokens_details": {"reasoning_tokens": USAGE["reasoning"]},
        "total_tokens": USAGE["input"] + USAGE["output"],
    }


def anthropic_usage(output: int = USAGE["output"]) -> dict[str, Any]:
    """Anthropic leaves cached tokens out of `input_tokens`."""
    return {
        "input_tokens": USAGE["input"] - USAGE["cached"] - USAGE["cache_write"],
        "cache_read_input_tokens": USAGE["cached"],
        "cache_creation_input_tokens": USAGE["cache_write"],
        "output_tokens": output,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Answer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = asked.get("model", "")
        if model == "broken":
            self._json({"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limited"}}, 429)
            return
        if model == "picky" and "stream_options" in asked:
            self._json({"error": {"message": "unknown field stream_options"}}, 400)
            return
        if model in MODELS:
            time.sleep(MODELS[model].latency_s)
        path = self.path.partition("?")[0]
        answer = {
            "/v1/chat/completions": self._chat,
            "/v1/responses": self._responses,
            "/v1/embeddings": self._embeddings,
            "/v1/messages": self._messages,
        }.get(path)
        if answer is None:
            self._json({"error": {"message": f"no {path} here"}}, 404)
        else:
            answer(asked, f"{model}-2026-01-01")

    def _text(self, asked: dict[str, Any]) -> str:
        return type(self).answer(asked.get("model", ""), _last(asked))

    def _chat(self, asked: dict[str, Any], model: str) -> None:
        head = {"id": "chat-1", "created": 1_700_000_000, "model": model}
        text = self._text(asked)
        if asked.get("stream"):
            chunks: list[dict[str, Any]] = [
                {"index": 0, "delta": {"role": "assistant", "content": part}, "finish_reason": None}
                for part in (text[:8], text[8:])
            ]
            chunks.append({"index": 0, "delta": {}, "finish_reason": "stop"})
            parts: list[dict[str, Any]] = [
                {**head, "object": "chat.completion.chunk", "choices": [chunk]} for chunk in chunks
            ]
            if (asked.get("stream_options") or {}).get("include_usage"):
                parts.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": openai_usage()})
            self._events([("", part) for part in parts], done=True)
            return
        message: dict[str, Any] = {"role": "assistant", "content": text}
        finish = "stop"
        if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
            tool = asked["tools"][0]["function"]
            names = tool.get("parameters", {}).get("properties", {})
            arguments = json.dumps(dict.fromkeys(names, _last(asked)))
            call = {"id": "call-1", "type": "function", "function": {"name": tool["name"], "arguments": arguments}}
            message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        self._json({**head, "object": "chat.completion", "choices": [choice], "usage": openai_usage()})

    def _responses(self, asked: dict[str, Any], model: str) -> None:
        text = self._text(asked)
        part = {"type": "output_text", "text": text, "annotations": []}
        output = [{"id": "m-1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}]
        response = {
            "id": "resp-1", "object": "response", "created_at": 1_700_000_000, "model": model, "status": "completed",
            "output": output, "parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "error": None,
            "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
            "usage": responses_usage(),
        }  # fmt: skip
        if asked.get("stream"):
            begun = {**response, "status": "in_progress", "output": [], "usage": None}
            delta = {"type": "response.output_text.delta", "item_id": "m-1", "output_index": 0, "content_index": 0}
            self._events(
                [
                    ("response.created", {"type": "response.created", "sequence_number": 0, "response": begun}),
                    ("response.output_text.delta", {**delta, "sequence_number": 1, "delta": text, "logprobs": []}),
                    ("response.completed", {"type": "response.completed", "sequence_number": 2, "response": response}),
                ],
                done=False,
            )
            return
        self._json(response)

    def _embeddings(self, asked: dict[str, Any], model: str) -> None:
        vector = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]}
        usage = {"prompt_tokens": USAGE["input"], "total_tokens": USAGE["input"]}
        self._json({"object": "list", "data": [vector], "model": model, "usage": usage})

    def _messages(self, asked: dict[str, Any], model: str) -> None:
        head = {"id": "msg-1", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
        text = self._text(asked)
        if asked.get("stream"):
            start: dict[str, Any] = {**head, "content": [], "stop_reason": None, "usage": anthropic_usage(1)}
            delta = {"type": "text_delta", "text": text}
            end = {"stop_reason": "end_turn", "stop_sequence": None}
            events: list[dict[str, Any]] = [
                {"type": "message_start", "message": start},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": delta},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": end, "usage": anthropic_usage()},
                {"type": "message_stop"},
            ]
            self._events([(event["type"], event) for event in events], done=False)
            return
        content = [{"type": "text", "text": text}]
        self._json({**head, "content": content, "stop_reason": "end_turn", "usage": anthropic_usage()})

    def _json(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self, events: list[tuple[str, dict[str, Any]]], *, done: bool) -> None:
        named = [(f"event: {name}\n" if name else "") + f"data: {json.dumps(event)}\n\n" for name, event in events]
        body = "".join([*named, "data: [DONE]\n\n" if done else ""]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _last(asked: dict[str, Any]) -> str:
    """The last thing said to the model, as text: a question, or what a tool answered."""
    said = asked.get("messages") or asked.get("input") or ""
    if isinstance(said, list):
        said = said[-1]["content"] if isinstance(said[-1], dict) else said[-1]
    return said if isinstance(said, str) else json.dumps(said)


class ModelServer:
    """The provider on a loopback port, from `__enter__` to `__exit__`.

    Parameters
    ----------
    port : int
        0 for any free one.
    answer : callable
        (model, question) -> the text of the answer.

    Attributes
    ----------
    url : str
        Its address; OpenAI's clients want ``/v1`` behind it.
    """

    def __init__(self, port: int = 0, answer: Answer = arithmetic) -> None:
        handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser("python -m examples.model_server", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8600, help="loopback port, 0 for any free one (default: 8600)")
    server = ModelServer(parser.parse_args(arguments).port)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with server:
        print(f"models small and large at {server.url}/v1. Ctrl-C stops them.", flush=True)
        stopped.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
