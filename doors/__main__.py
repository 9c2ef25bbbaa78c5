"""`python -m doors`: serve the doors until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from doors.counting import Counting
from doors.http import Doors, Limits
from doors.intake import Intake
from doors.mapped import Rules
from doors.publisher import Publisher
from doors.settings import DoorSettings, load_settings
from doors.topic import TopicDoor
from serving.command import exit_code
from serving.health import Health
from serving.heap import steady_heap
from serving.logs import configure
from serving.metrics import MetricSet
from serving.monitor import Monitor
from serving.web import announced, listen, stop_signal
from steersman.codec import Codec
from steersman.errors import SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.redaction import redactor_of
from steersman.registry import Registry
from steersman.topics import Topics

log = logging.getLogger("steersman.doors")

_BEAT_S = 0.5
_GRACE_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the doors; returns the exit code: 0 ok, 1 failed, 2 usage, 3 unreachable."""
    args = _parser().parse_args(argv)
    configure("doors")
    steady_heap()

    def serve() -> int:
        settings = load_settings(
            brokers=args.brokers,
            topic_prefix=args.topic_prefix,
            doors_host=args.host,
            doors_port=args.port,
            doors_allow_hosts=",".join(args.allow_host) if args.allow_host else None,
            otlp_topic=args.otlp_topic,
            doors_capture_content=args.capture_content or None,
            metrics_port=args.metrics_port,
        )
        return asyncio.run(_serve(settings, args.port_file))

    return exit_code("doors", serve)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m doors",
        description="OTLP over HTTP, the OpenTelemetry Collector's Kafka topic, and feedback as JSON: all become trace events. "
        "Every setting has an environment variable STEERSMAN_<NAME>; docs/doors.md lists them.",
        epilog="Example: python -m doors --port 4318 --metrics-port 9466",
    )
    parser.add_argument("--brokers", help="comma-separated host:port list (default 127.0.0.1:9092)")
    parser.add_argument("--topic-prefix", help="first part of the topic names (default steersman)")
    parser.add_argument("--host", help="address to bind (default 127.0.0.1); any other needs a token")
    parser.add_argument("--port", type=int, help="port, 0 for any free one (default 4318)")
    parser.add_argument("--port-file", type=Path, help="write the port there once the doors are open")
    parser.add_argument(
        "--allow-host", action="append", metavar="NAME", help="further Host header to accept; repeat it"
    )
    parser.add_argument(
        "--otlp-topic", help="topic of the Collector's kafka exporter (default otlp_spans), '' for none"
    )
    parser.add_argument("--capture-content", action="store_true", help="keep prompts, answers, arguments and comments")
    parser.add_argument(
        "--metrics-port", type=int, help="serve /metrics, /livez and /readyz there, 0 for any free port"
    )
    return parser


async def _serve(settings: DoorSettings, port_file: Path | None) -> int:
    topics = Topics(settings.topic_prefix)
    tokens = settings.tokens()
    _prepare_topic(settings)
    registry = Registry(settings.registry_url, topics=topics) if settings.registry_url else None
    metrics, health = MetricSet("doors"), Health(stall_s=settings.stall_s)
    counting = Counting(metrics)
    publisher = Publisher(settings.brokers, max_waiting=settings.doors_max_waiting, timeout_s=settings.doors_timeout_s)
    health.check(publisher.trouble)
    rules = Rules(
        tenant=settings.tenant,
        capture_content=settings.doors_capture_content,
        end_at_root=settings.doors_end_at_root,
        keep_other=settings.doors_keep_other,
        redactor=redactor_of(settings.doors_redact),
    )
    intake = Intake(
        topics.trace,
        Codec("trace_event", registry=registry),
        rules,
        max_spans=settings.doors_max_spans,
        dead_letter_topic=topics.dead_letter,
    )
    limits = Limits(
        settings.doors_max_body_kib << 10,
        settings.doors_max_inflated_kib << 10,
        settings.doors_max_requests,
        settings.doors_timeout_s,
        settings.doors_max_per_s,
    )
    door = _topic_door(settings, topics, intake, publisher, counting, health)
    app = Doors(intake, publisher, tokens, settings.hosts, limits, counting).application()
    stop = stop_signal()
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=_GRACE_S)
    await runner.setup()
    monitor: Monitor | None = None
    try:
        await listen(
            runner, settings.doors_host, settings.doors_port, perhaps=", perhaps by an OpenTelemetry Collector"
        )
        if settings.metrics_port is not None:
            monitor = Monitor(metrics.registry, health, settings.metrics_port, settings.metrics_host)
            log.info("metrics at %s/metrics", monitor.url)
        if door is not None:
            door.start()
            health.check(door.trouble)
        with announced("doors", runner, settings.doors_host, port_file):
            while not stop.is_set():
                health.tick("http")
                if door is not None and door.failed:
                    raise SteersmanError(door.trouble() or "")
                counting.waiting.set(publisher.waiting)
                try:
                    await asyncio.wait_for(stop.wait(), _BEAT_S)
                except TimeoutError:
                    continue
    finally:
        await runner.cleanup()
        if door is not None:
            await asyncio.to_thread(door.close, _GRACE_S)
        if left := await asyncio.to_thread(publisher.close, _GRACE_S):
            log.warning("%d events were not delivered; whoever sent them was told so", left)
        if monitor is not None:
            monitor.close()
    return 0


def _topic_door(
    settings: DoorSettings,
    topics: Topics,
    intake: Intake,
    publisher: Publisher,
    counting: Counting,
    health: Health,
) -> TopicDoor | None:
    if not settings.otlp_topic:
        return None
    return TopicDoor(
        settings.brokers,
        settings.otlp_topic,
        settings.group,
        dead_letter_topic=topics.dead_letter,
        intake=intake,
        publisher=publisher,
        counting=counting,
        health=health,
        tenant=settings.tenant,
        tenant_header=settings.otlp_tenant_header,
        max_bytes=settings.doors_max_inflated_kib << 10,
    )


def _prepare_topic(settings: DoorSettings) -> None:
    """Find the broker, and create the Collector's topic where that is allowed: it creates none itself on most clusters."""
    admin = KafkaAdmin(settings.brokers)
    try:
        known = admin.list_topics(timeout=5).topics
    except KafkaException as error:
        raise admin.unreachable() from error
    if not settings.otlp_topic or settings.otlp_topic in known:
        return
    wanted = NewTopic(settings.otlp_topic, num_partitions=settings.otlp_partitions, replication_factor=-1)
    for future in admin.create_topics([wanted], request_timeout=10).values():
        try:
            future.result(15)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                log.warning(
                    "topic %s cannot be created here (%s); it will be read once it is there",
                    settings.otlp_topic, error.args[0].str(),
                )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
