"""Runs a worker: checks first, then the Faust app, until a signal or a failure."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

from learners.policies import Policies
from learners.policies_file import load_policies
from learners.registry import make_learner
from serving.monitor import Monitor
from steersman.codec import SchemaIds
from steersman.errors import ConfigError, SteersmanError, Unreachable
from steersman.kafka_admin import KafkaAdmin
from streams.app import StreamsApp, create_app
from streams.edges import EdgeStage
from streams.settings import StreamSettings
from streams.topics import check_partitions, create_topics, existing_partitions

log = logging.getLogger("steersman.streams")

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
MakeStage = Callable[[int], EdgeStage]


def run_worker(
    settings: StreamSettings,
    *,
    make_trace: MakeStage | None = None,
    make_learn: MakeStage | None = None,
    policies: Policies | None = None,
) -> int:
    """Run a worker until SIGTERM, SIGINT or a failure, and return the exit code.

    Parameters
    ----------
    settings
        What to do.
    make_trace, make_learn
        Stages other than the platform's own.
    policies
        Policies other than those of the settings' file.

    Returns
    -------
    int
        0 after a signal, 1 after a failure, 2 for a wrong setting or file, 3 when the broker does not answer.
    """
    try:
        policy_file = settings.policies if policies is None else None
        policies = policies if policies is not None else load_policies(settings.policies)
        if "learn" in settings.stages:
            for spec in policies:
                make_learner(spec)  # raises here and now what it lacks
        registry = _registry(settings)
        partitions = _prepare_topics(settings, sharded=any(spec.shards > 1 for spec in policies))
        return asyncio.run(_run(settings, policies, registry, partitions, make_trace, make_learn, policy_file))
    except Unreachable as error:
        return _say(error, UNREACHABLE)
    except ConfigError as error:
        return _say(error, USAGE)
    except SteersmanError as error:
        return _say(error, FAILED)


async def _run(
    settings: StreamSettings,
    policies: Policies,
    registry: SchemaIds | None,
    partitions: int,
    make_trace: MakeStage | None,
    make_learn: MakeStage | None,
    policy_file: Path | None,
) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    app = create_app(
        settings,
        policies,
        registry=registry,
        partitions=partitions,
        make_trace=make_trace,
        make_learn=make_learn,
        policy_file=policy_file,
    )
    monitor: Monitor | None = None
    if settings.metrics_port is not None:
        monitor = Monitor(app.metrics.registry, app.health, settings.metrics_port, settings.metrics_host)
        log.info("metrics at %s/metrics", monitor.url)
    # Modules and schemas stay for good: the collector need not look at them again (a tenth of a second, each time).
    gc.freeze()
    # The state is hundreds of thousands of objects without a cycle among them. By default the collector looks at all of
    # them each time they have grown by a quarter: a fifth of the worker's time, in pauses that grow with the state. The
    # middle generation would show it those of the last seconds once more: a tenth of a second, every few.
    gc.set_threshold(20_000, 1_000, 1)
    log.info("worker of group %s starts: stages %s", settings.group, ", ".join(settings.stages))
    started = asyncio.ensure_future(app.start())
    try:
        await _until(stopping, app, started)
        if app.failure is None and app.crash_reason is not None:
            app.give_up(app.crash_reason)
        deadline = time.monotonic() + settings.shutdown_timeout_s
        if app.failure is None:
            log.info("worker stops: checkpoint")
            await asyncio.wait_for(app.hand_over(), settings.shutdown_timeout_s * 0.6)
    except TimeoutError:
        app.failure = SteersmanError(
            f"the last checkpoint took longer than {settings.shutdown_timeout_s * 0.6:.1f} s; its work will be repeated"
        )
    except Exception as error:
        app.give_up(error)
    finally:
        await _stop(app, started, deadline_s=max(1.0, deadline - time.monotonic()))
        if monitor is not None:
            monitor.close()
    if app.failure is None:
        log.info("worker stopped")
        return OK
    if isinstance(app.failure, SteersmanError):
        raise app.failure
    log.error("worker failed", exc_info=app.failure)
    return FAILED


async def _until(stopping: asyncio.Event, app: StreamsApp, started: asyncio.Future[None]) -> None:
    """Wait for a signal, a failure of ours, or a crash inside Faust."""
    signals = [asyncio.ensure_future(event.wait()) for event in (stopping, app.failed)]
    try:
        while not any(waiter.done() for waiter in signals) and app.crash_reason is None:
            await asyncio.wait(signals, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            if started.done() and started.exception() is not None:
                started.result()
    finally:
        for waiter in signals:
            waiter.cancel()


async def _stop(app: StreamsApp, started: asyncio.Future[None], *, deadline_s: float) -> None:
    """Leave the group and stop; all that matters is safe by now, so time is limited."""
    started.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await started
    try:
        await asyncio.wait_for(app.stop(), deadline_s)
    except TimeoutError:
        log.warning("Faust did not stop within %.1f s; leaving it", deadline_s)
    except Exception as error:
        log.warning("Faust did not stop cleanly: %r", error)
    for watch in app.watches:
        await asyncio.to_thread(watch.close)
    if remaining := await asyncio.to_thread(app.outputs.close, 1.0):
        log.warning("%d outputs were not delivered; their input was not acknowledged", remaining)


def _prepare_topics(settings: StreamSettings, *, sharded: bool) -> int:
    """Create missing topics, check the others, and return the trace topic's partition count."""
    topics = settings.topics
    admin = KafkaAdmin(settings.brokers)
    existing = existing_partitions(admin, settings.brokers)
    try:
        check_partitions(existing, topics, sharded=sharded)
    except ConfigError:
        create_topics(settings.brokers, topics, settings.partitions)
        existing = existing_partitions(admin, settings.brokers)
    return existing[topics.trace]


def _registry(settings: StreamSettings) -> SchemaIds | None:
    if settings.registry_url is None:
        return None
    from steersman.registry import Registry

    return Registry(settings.registry_url, topics=settings.topics)


def _say(error: SteersmanError, code: int) -> int:
    log.critical("%s", error)
    return code
