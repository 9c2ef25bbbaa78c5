"""The Faust app: two agents of a few lines, the settings that keep Faust honest, and the tasks beside them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from faust.types import TP

from learners.lineage import Head
from learners.policies import Policies
from serving.health import Health
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.codec import Codec, SchemaIds
from steersman.kafka_security import kafka_security
from steersman.prices import PriceTable
from steersman.signing import PolicySigner, verifier_for
from streams.control_watch import ControlWatch
from streams.credentials import faust_credentials
from streams.dead_letters import DlqLimit
from streams.edges import EdgeStage, alert_key, make_codecs, tick_event
from streams.learn_edge import LearnEdge
from streams.learning_stage import LearningStage
from streams.metrics import Metrics
from streams.outputs import OutputRecord, Outputs
from streams.own_records import OwnRecords
from streams.policy_ages import PolicyAges
from streams.policy_file import PolicyFile
from streams.policy_watch import PolicyWatch
from streams.rebalance import Rebalance
from streams.record_batch import RecordBatch
from streams.relearning import Relearning, RewardLog
from streams.runner import StageRunner
from streams.settings import StreamSettings
from streams.shard_watch import ShardWatch
from streams.state import StateStore
from streams.topic_watch import TopicWatch
from streams.trace_edge import TraceEdge
from streams.trace_stage import StageSettings, TraceStage
from streams.transport import SCHEME, Batching, BatchingApp, Consumer, RawSchema

Step = Callable[[], Awaitable[None]]

_IDLE_S = 0.02
_LOOK_AT_POLICIES_S = 0.25
_FETCH_BYTES = 4 << 20
_BUFFERED_BATCHES = 64


class StreamsApp(BatchingApp):
    """Faust app with the parts of a worker; made by `create_app`, run by `streams.worker`.

    Attributes
    ----------
    runners
        By input topic.
    watches
        What follows the topics on which learners publish.
    failure
        What made the worker give up, None while all is well.
    failed
        Set together with `failure`.
    health
        What `/livez` and `/readyz` say.
    rebalance
        What is done when partitions come and go.
    """

    settings: StreamSettings
    metrics: Metrics
    health: Health
    outputs: Outputs
    watches: list[TopicWatch]
    runners: dict[str, StageRunner]
    failure: BaseException | None
    failed: asyncio.Event
    rebalance: Rebalance

    @property
    def heads(self) -> Mapping[str, Head]:
        """What is published of each policy, as far as it has been read."""
        return next((watch.heads for watch in self.watches if isinstance(watch, PolicyWatch)), {})

    def unready(self) -> str | None:
        """Return why there is no work done here, None when there is."""
        if self.failure is not None:
            return f"it has failed: {self.failure}"
        if not self.rebalance.settled:
            return "the group has not assigned partitions yet, or their state is being restored"
        return None

    def give_up(self, error: BaseException) -> None:
        """Stop working: whatever is not saved will be repeated by the next worker."""
        if self.failure is None:
            self.failure = error
        for runner in self.runners.values():
            runner.abandon()
        self.failed.set()

    async def take(self, batch: RecordBatch) -> None:
        """Process a batch; an error stops the worker, since going on would skip the batch."""
        try:
            await self.runners[batch.topic].handle(batch)
        except Exception as error:
            self.give_up(error)

    async def hand_over(self) -> None:
        """Checkpoint everything, commit, and give all partitions up: the first half of an orderly shutdown."""
        for runner in self.runners.values():
            await runner.release(runner.partitions)
        await self.consumer.commit()


def create_app(
    settings: StreamSettings,
    policies: Policies,
    *,
    registry: SchemaIds | None = None,
    partitions: int,
    metrics: Metrics | None = None,
    clock: Clock = SYSTEM_CLOCK,
    make_trace: Callable[[int], EdgeStage] | None = None,
    make_learn: Callable[[int], EdgeStage] | None = None,
    policy_file: Path | None = None,
) -> StreamsApp:
    """Make the app of a worker. Call it inside the event loop that will run it.

    Parameters
    ----------
    settings, policies
        What to do.
    registry
        Schema registry, None for none.
    partitions
        Partition count of the trace topic.
    metrics, clock
        Fresh metrics and the system's clock, unless told otherwise.
    make_trace, make_learn
        Make the stage of a partition; the platform's own unless told otherwise.
    policy_file
        Where the policies came from; followed while the worker runs, None for policies that never change.
    """
    app = StreamsApp(
        settings.group,
        broker=[f"{SCHEME}://{host.strip()}" for host in settings.brokers.split(",") if host.strip()],
        broker_credentials=faust_credentials(kafka_security(settings.brokers)),
        autodiscover=False,
        # Nothing of Faust's that listens, elects, creates topics or keeps tables.
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        store="memory://",
        # Faust makes this folder whether it has tables or not; nothing is ever put into it.
        datadir=Path(tempfile.gettempdir()) / f"steersman-faust-{os.getuid()}",
        processing_guarantee="at_least_once",
        # Where the group's offsets are behind or absent, the state topic knows better (streams.state).
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=_BUFFERED_BATCHES,
        broker_max_poll_records=settings.max_poll_records,
        consumer_group_instance_id=settings.group_instance_id,
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_rebalance_timeout=max(30.0, settings.session_timeout_s),
        broker_request_timeout=max(40.0, settings.session_timeout_s + 10.0),
        broker_max_poll_interval=300.0,
        consumer_max_fetch_size=_FETCH_BYTES,
        value_serializer="raw",
        key_serializer="raw",
    )
    topics = settings.topics
    app.settings = settings
    app.metrics = metrics or Metrics()
    app.metrics.expect(settings.stages)
    app.health = Health(stall_s=settings.stall_s)
    app.health.check(app.unready)
    app.outputs = Outputs(settings.brokers, delivery_timeout_s=settings.delivery_timeout_s)
    app.health.check(app.outputs.trouble)
    app.failure, app.failed = None, asyncio.Event()
    signer = PolicySigner(topics.policy, settings.policy_signing_key) if settings.policy_signing_key else None
    codecs = make_codecs(
        ("trace_event", "reward", "rollup", "alert", "policy_snapshot", "ledger", "policy_act"), registry
    )
    verifier = verifier_for(topics.policy, otherwise=signer.public_key if signer else None)
    watch = PolicyWatch(settings.brokers, topics.policy, codec=codecs["policy_snapshot"], verifier=verifier)
    control = ControlWatch(settings.brokers, topics.control, codec=codecs["policy_act"], verifier=verifier)
    shards = ShardWatch(settings.brokers, topics.shard)
    app.watches = [watch, control, *([shards] if any(spec.shards > 1 for spec in policies) else [])]
    app.runners = {}
    app.rebalance = Rebalance(app.runners, app.watches, topics.reward, app.metrics, app.give_up)
    store = StateStore(settings.brokers, topics.state, app.outputs)
    prices = None if settings.prices is None else PriceTable.load(settings.prices)

    def acknowledge(batch: RecordBatch) -> bool:
        return cast(Consumer, app.consumer).acknowledge(batch)

    own = OwnRecords() if len(settings.stages) > 1 else None
    times = StageSettings(horizon_us=int(settings.trace_horizon_s * 1e6), emit_us=int(settings.rollup_interval_s * 1e6))

    def trace_stage(partition: int) -> EdgeStage:
        return TraceEdge(
            TraceStage(policies, partition, times, prices=prices, detectors=policies.detectors),
            topics,
            codecs,
            policies.reward_key,
            own=own,
        )

    def learning_stage(partition: int) -> EdgeStage:
        def open_log() -> RewardLog:
            return RewardLog(settings.brokers, topics.reward, partition, make_codecs(("reward",), registry)["reward"])

        stage = LearningStage(
            policies,
            partition,
            partitions,
            publish_interval_us=int(settings.publish_interval_s * 1e6),
            publish_interval_max_us=int(settings.publish_interval_max_s * 1e6),
            detectors=policies.detectors,
            relearn=partial(Relearning, open_log=open_log),
        )
        return LearnEdge(
            stage,
            topics,
            codecs,
            clock,
            lambda: watch.heads,
            lambda: shards.statistics,
            signer,
            lambda: control.log,
            own,
        )

    plan: dict[str, tuple[str, str, Callable[[int], EdgeStage], float]] = {
        "trace": (topics.trace, "trace_event", make_trace or trace_stage, settings.checkpoint_interval_s),
        "learn": (
            topics.reward, "reward", make_learn or learning_stage, settings.learner_checkpoint_interval_s
        ),
    }  # fmt: skip
    for name in settings.stages:
        topic, contract, make, checkpoint_s = plan[name]
        app.runners[topic] = StageRunner(
            name,
            topic,
            make=make,
            codec=codecs[contract],
            outputs=app.outputs,
            store=store,
            metrics=app.metrics,
            dead_letter_topic=topics.dead_letter,
            limit=DlqLimit(
                settings.dead_letter_max_ratio, settings.dead_letter_window, settings.dead_letter_max_consecutive
            ),
            acknowledge=acknowledge,
            checkpoint_s=checkpoint_s,
            checkpoint_records=settings.checkpoint_events,
        )
    app.batching = Batching(frozenset(app.runners), app.rebalance, settings.fetch_max_wait_ms, settings.fetch_linger_ms)
    _add_agents(app)
    _add_tasks(app, codecs["trace_event"].encode, clock)
    if policy_file is not None:
        _follow(app, PolicyFile(policy_file, policies, settings.tenant, clock.now_us), codecs["alert"])
    return app


def _add_agents(app: StreamsApp) -> None:
    for topic, runner in app.runners.items():

        async def agent(stream: Any) -> None:
            async for batch in stream:
                await app.take(batch)

        app.agent(app.topic(topic, schema=RawSchema()), name=runner.name, concurrency=1)(agent)


def _add_tasks(app: StreamsApp, encode: Callable[[dict[str, Any]], bytes], clock: Clock) -> None:
    """Ticks, and what the stages do as time goes by."""
    settings = app.settings
    trace = app.runners.get(settings.topics.trace)

    async def guarded(step: Step, every_s: float) -> None:
        while not app.should_stop and not app.failed.is_set():
            await asyncio.sleep(every_s)  # Faust's own makes a task, fifty times a second
            try:
                await step()
            except Exception as error:
                app.give_up(error)

    async def idle() -> None:
        for runner in app.runners.values():
            await runner.idle()

    async def tick() -> None:
        now_us = clock.now_us()
        if trace is not None:
            written = await trace.tick(
                lambda partition: encode(tick_event(trace.topic, partition, now_us, settings.tenant)), now_us
            )
            app.metrics.ticks.inc(written)

    versions = PolicyAges(app.metrics)

    async def measure() -> None:
        consumer = cast(Consumer, app.consumer)
        waiting = 0
        for topic, runner in app.runners.items():
            for partition in runner.partitions:
                position = runner.position(partition)
                end = consumer.highwater(TP(topic, partition))
                if position is not None:
                    app.metrics.position.labels(topic, str(partition)).set(position)
                if end is not None:
                    app.metrics.end.labels(topic, str(partition)).set(end)
                saved = runner.saved(partition)
                lag = 0 if end is None or saved is None else max(0, end - saved)
                app.metrics.lag.labels(topic, str(partition)).set(lag)
                waiting += lag
        app.health.beat(lag=waiting, done=sum(runner.checkpoints for runner in app.runners.values()))
        versions.look(app.heads)

    def start(name: str, step: Step, every_s: float) -> None:
        async def task() -> None:
            await guarded(step, every_s)

        task.__name__ = f"steersman_{name}"
        app.task(task)

    start("idle", idle, _IDLE_S)
    start("tick", tick, settings.tick_interval_s)
    start("measure", measure, 1.0)


def _follow(app: StreamsApp, file: PolicyFile, codec: Codec) -> None:
    """Look at the policies file now and then."""

    async def steersman_policies() -> None:
        while not app.should_stop and not app.failed.is_set():
            await app.sleep(_LOOK_AT_POLICIES_S)
            try:
                alert = file.look()
                if alert is not None:
                    record = OutputRecord(app.settings.topics.alert, alert_key(alert).encode(), codec.encode(alert))
                    await app.outputs.send([record])
            except Exception as error:
                app.give_up(error)

    app.task(steersman_policies)
