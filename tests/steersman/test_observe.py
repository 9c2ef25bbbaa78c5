"""The decorator on every kind of function."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, contextmanager

import pytest

from steersman.events import Kind
from steersman.sink import MemorySink
from steersman.span import Span
from steersman.tracer import Tracer


def test_functions(tracer: Tracer, sink: MemorySink) -> None:
    @tracer.observe(Kind.TOOL_CALL, operation="add")
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert (sink.records[0]["kind"], sink.records[0]["operation"]) == ("TOOL_CALL", "add")

    @tracer.observe()
    def fails() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        fails()
    assert sink.records[-1]["kind"] == "END"
    assert sink.records[-2]["error"] == "LookupError"
    assert sink.records[-2]["operation"].endswith("fails")


def test_coroutine_functions(tracer: Tracer, sink: MemorySink) -> None:
    @tracer.observe(Kind.MODEL_CALL, operation="outer")
    async def outer() -> int:
        return await inner()

    @tracer.observe(Kind.MODEL_CALL, operation="inner")
    async def inner() -> int:
        await asyncio.sleep(0)
        raise TimeoutError

    assert inspect.iscoroutinefunction(outer)
    with pytest.raises(TimeoutError):
        asyncio.run(outer())
    first, second = sink.records[0], sink.records[1]
    assert (first["operation"], first["status"]) == ("inner", "TIMEOUT")
    assert first["parent_span_id"] == second["span_id"]


def test_a_generator_is_in_its_span_only_while_it_runs(tracer: Tracer, sink: MemorySink, clock: object) -> None:
    inside: list[Span | None] = []

    @tracer.observe(Kind.RETRIEVAL, operation="pages")
    def pages() -> Generator[int, str, str]:
        inside.append(tracer.current())
        got = yield 1
        inside.append(tracer.current())
        assert got == "more"
        yield 2
        return "done"

    run = pages()
    assert not sink.records
    assert next(run) == 1
    assert tracer.current() is None, "the consumer is not inside the generator's span"
    with tracer.span(Kind.TOOL_CALL) as other:
        assert run.send("more") == 2
        assert tracer.current() is other
    with pytest.raises(StopIteration) as stop:
        next(run)
    assert stop.value.value == "done"
    assert inside[0] is inside[1] is not None
    assert [e["operation"] for e in sink.records if e["kind"] == "RETRIEVAL"] == ["pages"]


def test_a_generator_abandoned_by_its_consumer_has_not_failed(tracer: Tracer, sink: MemorySink) -> None:
    closed = []

    @tracer.observe(Kind.RETRIEVAL)
    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(tracer.current())

    run = endless()
    next(run)
    del run
    gc.collect()
    assert len(closed) == 1
    assert closed[0] is not None
    assert [(e["kind"], e["status"]) for e in sink.records] == [("RETRIEVAL", "OK"), ("END", "OK")]


def test_exceptions_go_into_and_out_of_a_generator(tracer: Tracer, sink: MemorySink) -> None:
    @contextmanager
    @tracer.observe(Kind.TOOL_CALL)
    def session(swallow: bool) -> Iterator[int]:
        try:
            yield 1
        except ValueError:
            if not swallow:
                raise

    with session(True):
        raise ValueError
    with pytest.raises(ValueError, match="out"), session(False):
        raise ValueError("out")
    assert [e["status"] for e in sink.records if e["kind"] == "TOOL_CALL"] == ["OK", "ERROR"]


def test_async_generators(tracer: Tracer, sink: MemorySink) -> None:
    @tracer.observe(Kind.MODEL_CALL, operation="stream")
    async def stream(n: int) -> AsyncIterator[int]:
        async with tracer.span(Kind.TOOL_CALL, operation="connect"):
            await asyncio.sleep(0)
        for i in range(n):
            yield i
        if n == 3:
            raise RuntimeError("cut off")

    async def main() -> list[int]:
        out = [i async for i in stream(2)]
        assert tracer.current() is None
        async with aclosing(stream(9)) as run:
            async for _ in run:
                assert tracer.current() is None
                break
        with pytest.raises(RuntimeError):
            [i async for i in stream(3)]
        return out

    assert asyncio.run(main()) == [0, 1]
    streams = [e for e in sink.records if e["kind"] == "MODEL_CALL"]
    assert [e["status"] for e in streams] == ["OK", "OK", "ERROR"]
    connects = [e for e in sink.records if e["kind"] == "TOOL_CALL"]
    assert [e["parent_span_id"] for e in connects] == [e["span_id"] for e in streams]


def test_an_async_generator_takes_what_is_sent_and_thrown(tracer: Tracer, sink: MemorySink) -> None:
    @tracer.observe(Kind.MODEL_CALL)
    async def echo():  # type: ignore[no-untyped-def]
        got = None
        while True:
            try:
                got = yield got
            except KeyError:
                got = "thrown"

    async def main() -> None:
        run = echo()
        assert await anext(run) is None
        assert await run.asend("a") == "a"
        assert await run.athrow(KeyError()) == "thrown"
        await run.aclose()

    asyncio.run(main())
    assert sink.records[0]["status"] == "OK"
