"""The neural-linear learner: the linear one, and beside it the same heads over what a trained encoder makes of x.

The encoder is trained anew, from nothing, on the replay buffer: first after `FIRST` rewards, then when there are half as many
again and `PAUSE` has passed. A training that begins at reward t takes effect at a later reward d, an eighth more rewards and
`LAG` on: until then its process has time, and what comes in between neither the encoder nor its heads have seen. At d the
heads' sums are made from the buffer, block by block, so that from the start every reward after t is first predicted, then
learned (`learners.neural.contest`). The policy is published with the encoder while that validation says it is better than
the linear learner, and as the linear learner's otherwise; the snapshot's ``learner_report`` says which, and why.

All of this is a function of the log: when a training begins and takes effect, its data, seed and steps depend on the rewards and
their own times alone, never on a clock. Where its process is late, nothing is published until it is done (`ready`), and saving
waits for it; one that fails or exceeds its time budget is on record in the state (`abandoned`), and the linear learner is
published until the next.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from learners import state
from learners.drift import Alarm
from learners.pending import Rows
from learners.policy_learner import PolicyLearner
from learners.prediction import predict
from learners.protocol import Place
from learners.spec import PolicySpec
from steersman.errors import ConfigError, SnapshotError
from steersman.snapshot import PolicySnapshot

from .contest import MAX_BLOCKS, Block, block_length, judge, squared_errors
from .head import LatentHead, solved
from .job import Job, TrainingError
from .memory import Memory
from .replay import Change, Replay
from .trainer import Abandoned, BackgroundTrainer, Ticket, Trainer

log = logging.getLogger("steersman.learners")

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """How far apart two things are in the log.

    Attributes
    ----------
    rewards : int
        Most rewards that are asked for besides the time.
    us : int
        Time between them; unit: microseconds.
    enough : int
        Rewards that will do whatever the time, so that one reward from a wrong future does not stop everything.
    """

    rewards: int
    us: int
    enough: int

    def is_over(self, rewards: int, wanted: int, us: int) -> bool:
        """Whether so many rewards, of the number wanted, and so much time are enough."""
        return rewards >= self.enough or (us >= self.us and rewards >= max(64, min(wanted, self.rewards)))


FIRST = 256
"""Rewards before the first training."""

PAUSE = Span(rewards=8192, us=15_000_000, enough=16_384)
"""Between the beginnings of two trainings: half as many rewards as there were, and these at most; time by the rewards'."""

LAG = Span(rewards=4096, us=5_000_000, enough=8192)
"""From the beginning of a training until it takes effect: an eighth of the rewards that there were, and these at most."""

STEPS = 600
"""Gradient steps of a training: the work it may take."""


def check(spec: PolicySpec) -> None:
    """Raise ConfigError when a policy cannot have this learner here."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'policy {spec.key} asks for learner = "neural", which needs {" and ".join(missing)}: install the extra '
            "with pip install 'steersman[neural]' where the workers run (agents do not need it), or set learner = \"linear\""
        )
    if spec.shards > 1:
        raise ConfigError(
            f'policy {spec.key} has learner = "neural" and shards = {spec.shards}: encoders trained apart do not add up; set '
            'shards = 1, or learner = "linear"'
        )
    if spec.peers:
        raise ConfigError(
            f'policy {spec.key} has learner = "neural" and quality_credit = "difference", which this learner does not know; set '
            'quality_credit = "shared" or "own", or learner = "linear"'
        )


@dataclass
class _Training:
    """A training under way, of the rewards before number `at`, and since which number its result is due (-1: not yet)."""

    at: int
    due: int
    ticket: Ticket


class NeuralLearner(PolicyLearner):
    """Learns one policy; parameters and attributes as of `PolicyLearner`.

    Attributes
    ----------
    trainer : Trainer
        Where trainings run; of the class.
    abandoned : list of int
        Trainings that came to nothing, by the number of rewards when they began.

    Raises
    ------
    ConfigError
        When torch or safetensors are not installed, or the policy asks for shards or for the credit rule ``difference``.
    """

    TAKES_PEERS: ClassVar[bool] = False
    TAKES_SHARDS: ClassVar[bool] = False
    TAKES_TOOL_CALLS: ClassVar[bool] = False
    DEFERS: ClassVar[bool] = False  # when a training begins must not depend on who asks for the sums
    trainer: ClassVar[Trainer] = BackgroundTrainer()

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, Place] | None = None) -> None:
        check(spec)
        super().__init__(spec, epoch, began)
        self.abandoned: list[int] = []
        self._replay = Replay(spec.features.dim)
        self._clock = 0  # highest time of a reward; unit: microseconds since 1970-01-01 UTC
        self._times: list[int] = []  # of rewards that are accepted but not applied yet
        self._began = (0, 0)  # rewards and clock when the last training began
        self._block = 0  # number of the present block's first reward
        self._blocks: list[Block] = []
        self._linear_theta: Float | None = None  # as solved when the present block began
        self._head: LatentHead | None = None
        self._head_at = (0, 0)  # when its training began, and took effect
        self._training: _Training | None = None

    # -- learning

    def _unfit(self, reward: Mapping[str, Any]) -> str:
        reason = super()._unfit(reward)
        if not reason:
            self._times.append(reward.get("ts", 0))
        return reason

    def _apply(self, rows: Rows) -> None:
        start = 0
        while start < len(rows.arms):
            turn = self._block + block_length(self._block)
            end = min(start + turn - self._replay.end, len(rows.arms))
            part = rows.part(start, end)
            super()._apply(part)
            self._take(end - start, part)
            if self._replay.end == turn:
                self._turn()
            start = end

    def _take(self, n: int, rows: Rows) -> None:
        self._clock = max(self._clock, *self._times[:n])
        del self._times[:n]
        end = self._replay.end
        self._replay.add(rows)
        if self._head is not None:
            # As the buffer holds them, so that sums made from it are the same.
            self._head.add(self._replay.rows(end, end + n))

    def _forget(self, factors: Float) -> None:
        super()._forget(factors)
        self._change(Change(self._replay.end, False, factors))

    def _forget_for(self, alarm: Alarm) -> None:
        super()._forget_for(alarm)
        end = self._replay.end
        known = self._replay.as_of(max(0, end - self._replay.capacity), end)
        counts = np.bincount(known.arms, known.weights, len(self.spec.arms)).astype(np.float64)
        self._change(Change(end, False, self.control.shortened(counts, alarm)))

    def _reprice(self, factors: Float) -> None:
        super()._reprice(factors)
        self._change(Change(self._replay.end, True, factors))

    def _change(self, change: Change) -> None:
        self._replay.changes.append(change)
        if self._head is not None:
            self._head.change(change)

    def _take_settings(self, before: PolicySpec, spec: PolicySpec) -> None:
        self._take_up()  # a training that is due is taken up under the settings of that time, whenever it is done
        super()._take_settings(before, spec)
        if self._head is not None:
            self._head.take_settings(spec)

    def _turn(self) -> None:
        """End the present block and begin the next."""
        start, end = self._block, self._replay.end
        if self._linear_theta is not None:
            rows = self._replay.rows(start, end)
            each = squared_errors(predict(self.layout, self._linear_theta, rows.x, rows.arms), rows)
            block = Block(start, end, each)
            if self._head is not None:
                block.compare(self._head.errors(rows))
            self._blocks.append(block)
        self._block = end
        at, clock = self._began
        rewards, us, training = end - at, self._clock - clock, self._training
        if training is not None and training.due < 0 and LAG.is_over(rewards, at // 8, us):
            training.due = end
            self._head = None  # its successor's turn
        begins = PAUSE.is_over(rewards, at // 2, us) if at else end >= FIRST
        if begins or self.ready:
            self._take_up()
        if begins:
            self._began = end, self._clock
            self._begin_training(end)
        try:
            if end >= FIRST:
                self._linear_theta = solved(self)
            if self._head is not None:
                self._head.solve()
        except FloatingPointError:  # a snapshot cannot be made either, which says so
            self._linear_theta, self._head = None, None
        self._tidy()

    def _tidy(self) -> None:
        """Drop what is no longer needed."""
        training = self._training
        if training is None:
            del self._blocks[:-MAX_BLOCKS]
        for block in self._blocks:
            if training is None or block.start < training.at:
                block.each = None
        at = self._block if training is None else training.at
        self._replay.forget_before(at - self._replay.capacity)

    # -- trainings

    def _begin_training(self, at: int) -> None:
        if at in self.abandoned:
            self._training = _Training(at, -1, Abandoned())
            return
        rows = self._replay.as_of(max(0, at - self._replay.capacity), at)
        seed = zlib.crc32(f"{self.spec.key}/{self.epoch}/{at}".encode())
        level_of, pair_of = (array.astype(np.float32) for array in (self.layout.level_of, self.layout.pair_of))
        job = Job(*rows, level_of, pair_of, seed, STEPS)
        self._training = _Training(at, -1, self.trainer.start(job))

    @property
    def ready(self) -> bool:
        """Whether a snapshot can be made at once: no training that is due is still running."""
        return self._training is None or self._training.due < 0 or self._training.ticket.done()

    def _take_up(self) -> None:
        """Take up a training that is due, waiting for it if need be."""
        training = self._training
        if training is None or training.due < 0:
            return
        try:
            self._head = self._made(training)
            self._head_at = training.at, training.due
        except (TrainingError, FloatingPointError) as error:
            self._head = None
            if training.at not in self.abandoned:
                self.abandoned.append(training.at)
            log.warning("%s: the training at %d rewards was abandoned: %s", self.spec.key, training.at, error)
        self._training = None
        self._blocks = [block for block in self._blocks if block.start >= training.at]
        self._tidy()

    def _made(self, training: _Training) -> LatentHead:
        """The heads over the new encoder: sums from the buffer, every reward since the training first predicted."""
        head = LatentHead(self.spec, training.ticket.result())
        head.add(self._replay.as_of(max(0, training.due - self._replay.capacity), training.at))
        head.solve()
        for block in self._blocks:
            if block.start >= training.at:
                block.compare(head.errors(self._replay.rows(block.start, block.end)))
                self._follow(head, block.start, block.end)
                head.solve()
        self._follow(head, self._block, self._replay.end)
        for change in self._replay.changes_within(self._replay.end, self._replay.end + 1):
            head.change(change)
        return head

    def _follow(self, head: LatentHead, start: int, end: int) -> None:
        """Give it the rewards number `start` to `end` - 1, and what changed before each of them, as they came."""
        for change in self._replay.changes_within(start, end):
            head.add(self._replay.rows(start, change.number))
            head.change(change)
            start = change.number
        head.add(self._replay.rows(start, end))

    def merge(self, shard: PolicyLearner) -> None:
        """Add what another learner has learned, while neither has trained an encoder; ValueError from then on."""
        if (
            not isinstance(shard, NeuralLearner)
            or self.version + shard.version >= FIRST
            or self._replay.changes
            or shard._replay.changes
        ):
            raise ValueError("learners with encoders do not add up")
        super().merge(shard)
        self._replay.add(shard._replay.rows(0, shard._replay.end))
        self._block = self.version - self.version % block_length(0)
        self._clock = max(self._clock, shard._clock)

    # -- what is published

    def snapshot(self, now_us: int) -> PolicySnapshot:
        """Make the policy as of now, of the better of the two models; waits for a training that is overdue.

        Parameters and errors as of `PolicyLearner.snapshot`.
        """
        self._take_up()
        return super().snapshot(now_us)

    def _chosen(self, made: PolicySnapshot) -> PolicySnapshot:
        verdict = judge(self._blocks, self._factors)
        report: dict[str, Any] = {"model": "linear"}
        tensors = made.tensors
        if self.version < FIRST:
            report["why"] = f"the first encoder is trained at {FIRST} rewards"
        elif self._head is None and self._training is not None:
            report["why"] = "an encoder is being trained"
        elif self._head is None:
            report["why"] = "the last training was abandoned"
        elif not verdict.better:
            report["why"] = "the encoder is not better by progressive validation"
        else:
            try:
                tensors = {**self._head.linear.snapshot(made.created_at).tensors, **self._head.tensors}
                report["model"] = "neural"
                report["why"] = "the encoder is better by progressive validation"
            except SnapshotError as error:
                report["why"] = f"the encoder's heads cannot be solved: {error}"
        if self._head is not None:
            at, due = self._head_at
            report["encoder"] = {"trained_at": at, "in_use_since": due, "trained_on": min(at, self._replay.capacity)}
        if self._head is not None and verdict.rewards:
            loss = {"linear": float(f"{verdict.linear:.6g}"), "neural": float(f"{verdict.neural:.6g}")}
            report["validation"] = {"rewards": verdict.rewards, "squared_error_of_utility": loss}
        text = json.dumps(report, sort_keys=True, separators=(",", ":"))
        return replace(made, tensors=tensors, learner_report=text)

    # -- state

    def to_state(self) -> bytes:
        """All that is needed to go on after a restart; waits for a training that is overdue. See `learners.neural.memory`."""
        self._take_up()
        training, head = self._training, self._head
        memory = Memory(
            clock=self._clock,
            began=self._began,
            block=self._block,
            training=-1 if training is None else training.at,
            head_at=self._head_at,
            abandoned=self.abandoned,
            blocks=self._blocks,
            linear_theta=self._linear_theta,
            head=head,
            replay=self._replay,
        )
        return state.attach(super().to_state(), memory.to_bytes())

    def _resume(self, data: bytes) -> None:
        """Take up the rest of a state; a training that was under way begins again, with the same data."""
        memory = Memory.from_bytes(state.attachment_of(data), self.spec)
        self._clock, self._began = memory.clock, memory.began
        self._block, self._head_at = memory.block, memory.head_at
        self.abandoned, self._blocks = memory.abandoned, memory.blocks
        self._linear_theta, self._head, self._replay = memory.linear_theta, memory.head, memory.replay
        if self._replay.end != self.version:
            raise state.StateError(f"the replay buffer ends at {self._replay.end} rewards, the state at {self.version}")
        if memory.training >= 0:
            self._begin_training(memory.training)

    def heed(self, data: bytes, revision: int | None = None) -> None:
        """As of `PolicyLearner`; and which trainings were abandoned."""
        super().heed(data, revision)
        self.abandoned = Memory.from_bytes(state.attachment_of(data), self.spec).abandoned
        self.trainer.end_none()
