"""The decorator: a span around every call of a function, a coroutine function or a generator function of either kind.

A generator's span lasts from its first step to its end, but is the current span only while the generator's own code
runs: between the steps, the consumer's code must not find itself inside it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from steersman.span import Span

F = TypeVar("F", bound=Callable[..., Any])
NewSpan = Callable[[tuple[Any, ...], dict[str, Any]], Span]
"""Makes the span of a call, from its arguments."""


def observed(function: F, new_span: NewSpan) -> F:
    """Wrap `function` so that each call runs in a span that `new_span` makes."""
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, new_span)  # type: ignore[return-value]
    if inspect.isgeneratorfunction(function):
        return _generator(function, new_span)  # type: ignore[return-value]
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, new_span)  # type: ignore[return-value]

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with new_span(args, kwargs):
            return function(*args, **kwargs)

    return plain  # type: ignore[return-value]


def _coroutine(function: Callable[..., Any], new_span: NewSpan) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with new_span(args, kwargs):
            return await function(*args, **kwargs)

    return wrapper


def _generator(function: Callable[..., Any], new_span: NewSpan) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        span = new_span(args, kwargs)
        span.start()

        def step(move: Callable[..., Any], *values: Any) -> Any:
            span.activate()
            try:
                return move(*values)
            finally:
                span.deactivate()

        try:
            value = step(next, inner)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    step(inner.close)
                    span.finish()  # the consumer has had enough: that is not a failure
                    raise
                except BaseException as thrown:  # whatever the consumer throws in is the generator's to answer
                    value = step(inner.throw, thrown)
                else:
                    value = step(inner.send, sent)
        except StopIteration as stop:
            span.finish()
            return stop.value
        except BaseException as error:
            span.finish(error)
            raise

    return wrapper


def _async_generator(function: Callable[..., Any], new_span: NewSpan) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = function(*args, **kwargs)
        span = new_span(args, kwargs)
        span.start()

        async def step(move: Callable[..., Any], *values: Any) -> Any:
            span.activate()
            try:
                return await move(*values)
            finally:
                span.deactivate()

        try:
            value = await step(inner.__anext__)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    await step(inner.aclose)
                    span.finish()  # the consumer has had enough: that is not a failure
                    raise
                except BaseException as thrown:  # whatever the consumer throws in is the generator's to answer
                    value = await step(inner.athrow, thrown)
                else:
                    value = await step(inner.asend, sent)
        except StopAsyncIteration:
            span.finish()
        except BaseException as error:
            span.finish(error)
            raise

    return wrapper
