"""One line for the openai client: every model call becomes a span with its tokens, its errors and, of streams, its end.

>>> from openai import OpenAI                                                              # doctest: +SKIP
>>> from steersman.openai import traced                                                    # doctest: +SKIP
>>> client = traced(OpenAI(), tracer)                                                      # doctest: +SKIP

Nothing here imports the openai package: what is wrapped is the client that the application made. Neither questions nor answers
are looked at; what is recorded are counts, ids and names. Field meanings: OpenAI's API reference, "usage" of chat completions and
of responses: input includes cached tokens, output includes reasoning.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from steersman.events import Kind
from steersman.span import Span
from steersman.tracer import Tracer

C = TypeVar("C")
_MARK = "_steersman_traced"
_CALLS = (
    ("chat.completions", "create", "chat"),
    ("chat.completions", "parse", "chat"),
    ("responses", "create", "chat"),
    ("responses", "parse", "chat"),
    ("completions", "create", "text_completion"),
    ("embeddings", "create", "embeddings"),
)


def traced(client: C, tracer: Tracer, *, provider: str | None = None, stream_usage: bool = True) -> C:
    """Record every model call of an openai client as a ``MODEL_CALL`` span.

    Covers ``chat.completions``, ``responses``, ``completions`` and ``embeddings``, with their ``parse`` and ``stream`` helpers; of
    calls through ``with_raw_response`` and ``with_streaming_response`` only time and outcome. Clients made from this one by
    ``with_options`` are clients of their own.

    Parameters
    ----------
    client : openai.OpenAI or openai.AsyncOpenAI
        The client; it is changed in place. One that is traced already is left as it is.
    tracer : Tracer
        Where the spans go. A failure in here never reaches the caller: it is counted in ``tracer.stats()``.
    provider : str, optional
        Provider to record; ``openai``, or ``azure.ai.openai`` for Azure's client, unless told otherwise.
    stream_usage : bool
        Ask the server for the token counts of streamed chat completions where the caller did not say; the extra chunk that carries
        them is kept from the caller. A server that refuses the option is asked again without it, and never again with it.

    Returns
    -------
    openai.OpenAI or openai.AsyncOpenAI
        The same client.

    Raises
    ------
    TypeError
        If this is no client of the openai package.
    """
    if not callable(getattr(_resource(client, "chat.completions"), "create", None)):
        raise TypeError(
            f"{type(client).__name__} is no client of the openai package: it has no chat.completions.create"
        )
    if getattr(client, _MARK, False):
        return client
    if provider is None:
        provider = "azure.ai.openai" if "Azure" in type(client).__name__ else "openai"
    wrapper = _Wrapper(tracer, provider, stream_usage)
    for path, name, operation in _CALLS:
        resource = _resource(client, path)
        call = getattr(resource, name, None)
        if callable(call):
            asks = stream_usage and (path, name) == ("chat.completions", "create")
            setattr(resource, name, wrapper.wrap(call, operation, asks))
    setattr(client, _MARK, True)
    return client


def _resource(client: Any, path: str) -> Any:
    for part in path.split("."):
        client = getattr(client, part, None)
    return client


class _Wrapper:
    """Wraps the calls of one client."""

    def __init__(self, tracer: Tracer, provider: str, stream_usage: bool) -> None:
        self._tracer = tracer
        self._provider = provider
        self._stream_usage = stream_usage

    def wrap(self, call: Callable[..., Any], operation: str, asks: bool) -> Callable[..., Any]:
        """Return `call` in a span; `asks`: whether token counts of its streams have to be asked for."""
        if inspect.iscoroutinefunction(inspect.unwrap(call)):
            return self._wrap_async(call, operation, asks)

        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            span = self._begin(operation, kwargs)
            asked = asks and self._ask(kwargs)
            try:
                try:
                    result = call(*args, **kwargs)
                except Exception as error:
                    if not (asked and self._refused(error)):
                        raise
                    asked = False
                    result = call(*args, **_without_options(kwargs))
            except BaseException as error:
                self._end(span, error)
                raise
            if kwargs.get("stream") and hasattr(result, "__iter__"):
                span.deactivate()
                return _Stream(result, _Record(self, span, asked))
            self.note(span, result)
            self._end(span)
            return result

        return wrapped

    def _wrap_async(self, call: Callable[..., Any], operation: str, asks: bool) -> Callable[..., Any]:
        @functools.wraps(call)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            span = self._begin(operation, kwargs)
            asked = asks and self._ask(kwargs)
            try:
                try:
                    result = await call(*args, **kwargs)
                except Exception as error:
                    if not (asked and self._refused(error)):
                        raise
                    asked = False
                    result = await call(*args, **_without_options(kwargs))
            except BaseException as error:
                self._end(span, error)
                raise
            if kwargs.get("stream") and hasattr(result, "__aiter__"):
                span.deactivate()
                return _AsyncStream(result, _Record(self, span, asked))
            self.note(span, result)
            self._end(span)
            return result

        return wrapped

    def note(self, span: Span, result: Any) -> None:
        """Set what a response, or a chunk of one, says about itself; never raises."""
        try:
            fields = _usage(getattr(result, "usage", None))
            names = {
                "gen_ai.response.id": getattr(result, "id", None),
                "gen_ai.response.model": getattr(result, "model", None),
                "gen_ai.response.finish_reasons": _finish_reasons(result),
            }
            attributes = {name: value for name, value in names.items() if isinstance(value, str | list) and value}
            span.set(**fields, **({"attributes": attributes} if attributes else {}))
        except Exception as error:  # a response of another shape than this version knows
            self._tracer._count(f"openai:{type(error).__name__}")

    def _begin(self, operation: str, kwargs: dict[str, Any]) -> Span:
        model = kwargs.get("model")
        span = self._tracer.span(Kind.MODEL_CALL, operation=model if isinstance(model, str) else None)
        attributes: dict[str, Any] = {"gen_ai.operation.name": operation}
        if kwargs.get("stream") is True:
            attributes["gen_ai.request.stream"] = True
        span.set(provider=self._provider, attributes=attributes)
        span.start()
        span.activate()
        return span

    @staticmethod
    def _end(span: Span, error: BaseException | None = None) -> None:
        span.deactivate()
        span.finish(error)

    def _ask(self, kwargs: dict[str, Any]) -> bool:
        """Ask for the usage of a stream where the caller left that open; whether it was."""
        # What the caller did not give may be there as the client's own mark for it, which is no mapping.
        given = isinstance(kwargs.get("stream_options"), dict)
        if not self._stream_usage or kwargs.get("stream") is not True or given:
            return False
        kwargs["stream_options"] = {"include_usage": True}
        return True

    def _refused(self, error: Exception) -> bool:
        """Whether the server may have refused because of what was added to the request."""
        if getattr(error, "status_code", None) not in (400, 422):
            return False
        self._stream_usage = False
        return True


def _without_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "stream_options"}


class _Record:
    """What a stream tells about the call, as it goes by."""

    def __init__(self, wrapper: _Wrapper, span: Span, asked: bool) -> None:
        self._wrapper = wrapper
        self._span = span
        self._asked = asked

    def take(self, chunk: Any) -> bool:
        """Look at a chunk; whether it is the caller's."""
        # The responses API sends events, of which the first and the last carry the response.
        self._wrapper.note(self._span, getattr(chunk, "response", None) or chunk)
        return not (self._asked and getattr(chunk, "usage", None) is not None and not getattr(chunk, "choices", True))

    def end(self, error: BaseException | None = None) -> None:
        """The stream has ended, or was given up, which is no failure."""
        self._span.finish(error)


class _Stream:
    """A stream whose end is the end of its span; everything else is the stream's own."""

    def __init__(self, stream: Any, record: _Record) -> None:
        self._stream = stream
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        try:
            while not self._record.take(chunk := next(self._stream)):
                pass
        except StopIteration:
            self._record.end()
            raise
        except BaseException as error:
            self._record.end(error)
            raise
        return chunk

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close()

    def close(self) -> None:
        """Give the stream up."""
        try:
            self._stream.close()
        finally:
            self._record.end()

    def __del__(self) -> None:
        self._record.end()


class _AsyncStream:
    """The same for an asynchronous stream."""

    def __init__(self, stream: Any, record: _Record) -> None:
        self._stream = stream
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _AsyncStream:
        return self

    async def __anext__(self) -> Any:
        try:
            while not self._record.take(chunk := await self._stream.__anext__()):
                pass
        except StopAsyncIteration:
            self._record.end()
            raise
        except BaseException as error:
            self._record.end(error)
            raise
        return chunk

    async def __aenter__(self) -> _AsyncStream:
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the stream up."""
        try:
            await self._stream.close()
        finally:
            self._record.end()

    def __del__(self) -> None:
        self._record.end()


def _usage(usage: Any) -> dict[str, int]:
    """Token fields of an event; those that a response leaves out stay null."""
    if usage is None:
        return {}
    read = functools.partial(_count, usage)
    found = {
        "input_tokens": read("input_tokens", "prompt_tokens"),
        "output_tokens": read("output_tokens", "completion_tokens"),
        "cached_input_tokens": _count(_details(usage, "input", "prompt"), "cached_tokens"),
        "cache_write_tokens": _count(_details(usage, "input", "prompt"), "cache_write_tokens"),
        "reasoning_tokens": _count(_details(usage, "output", "completion"), "reasoning_tokens"),
    }
    known = {name: count for name, count in found.items() if count is not None}
    if "input_tokens" in known:
        known["context_tokens"] = known["input_tokens"] + known.get("output_tokens", 0)
    return known


def _details(usage: Any, *sides: str) -> Any:
    return next((d for side in sides if (d := getattr(usage, f"{side}_tokens_details", None)) is not None), None)


def _count(holder: Any, *names: str) -> int | None:
    return next((n for name in names if isinstance(n := getattr(holder, name, None), int)), None)


def _finish_reasons(result: Any) -> list[str]:
    choices = getattr(result, "choices", None)
    if isinstance(choices, list):
        return [r for choice in choices if isinstance(r := getattr(choice, "finish_reason", None), str)]
    status = getattr(result, "status", None)
    return [status] if isinstance(status, str) and hasattr(result, "output") else []
