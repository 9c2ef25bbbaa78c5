"""A policy learned again beside the stream, because who is in quarantine has changed (`learners.quarantine`).

The learner in use goes on learning, and publishes nothing more. A thread reads the partition of the reward topic from its beginning and
teaches a learner of the next epoch what the one in use had read. When it is there, it is handed what has come since, in the order
of the log, and takes the other's place: it has read the same rewards, each once. If too much has come meanwhile, the thread reads on to
where the stream is now; each such round is shorter by as much as reading is faster than what comes in.

Nothing of this is in any state: after a crash it begins anew, and comes to the same.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from learners.lineage import Vector
from learners.protocol import Learner
from learners.quarantine import after, begin_again
from learners.spec import PolicySpec
from steersman.codec import Codec
from steersman.errors import DecodeError, SteersmanError, Unreachable
from streams.partition_log import PartitionLog

log = logging.getLogger("steersman.streams")

CATCH_UP = 2000
"""Rewards that are taken over in one go, between two batches of the stream."""

_CHUNK = 500
_QUIET = 5  # times that nothing came, until the end of the log is believed to be one
_RETRY_S = 1.0
_JOIN_S = 10.0

Rewards = list[Mapping[str, Any]]


class RewardLog:
    """The rewards of a partition, in chunks.

    Parameters
    ----------
    brokers, topic, partition
        Which one.
    codec
        Codec of ``reward``.
    """

    def __init__(self, brokers: str, topic: str, partition: int, codec: Codec) -> None:
        self._log = PartitionLog(brokers, topic, partition)
        self._codec = codec

    @property
    def begin(self) -> int:
        """First offset that the broker still holds; known once the iteration has begun."""
        return self._log.begin

    def chunks(self, stop: threading.Event) -> Iterator[Rewards]:
        """Read on and on until told to stop; an empty chunk when nothing more has come."""
        chunk: Rewards = []
        for record in self._log.follow(stop):
            if record is not None and record.value is not None:
                with contextlib.suppress(DecodeError):  # a dead letter, then as now
                    chunk.append(self._codec.decode(record.value, record.headers))
            if record is None or len(chunk) >= _CHUNK:
                yield chunk
                chunk = []


class Log(Protocol):
    """What is read: a `RewardLog`."""

    @property
    def begin(self) -> int:
        """See `RewardLog`."""

    def chunks(self, stop: threading.Event) -> Iterator[Rewards]:
        """See `RewardLog`."""


OpenLog = Callable[[], Log]
"""Opens the log of rewards anew."""


class Relearning:
    """See the module.

    Parameters
    ----------
    spec
        The policy under the new quarantine.
    state
        Of the learner in use.
    sources
        What that one has read: its provenance vector.
    open_log
        Opens the log of rewards.

    Attributes
    ----------
    spec
        As given.
    """

    def __init__(self, spec: PolicySpec, state: bytes, sources: Vector, open_log: OpenLog) -> None:
        self.spec = spec
        self._state = state
        self._limit = dict(sources)
        self._open = open_log
        self._noted: list[Mapping[str, Any]] = []
        self._overflown = False
        self._learner: Learner | None = None
        self._reached = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"relearn-{spec.key}", daemon=True)
        self._thread.start()

    def note(self, rewards: Sequence[Mapping[str, Any]]) -> None:
        """Take note of what the learner in use was given."""
        if len(self._noted) + len(rewards) > 2 * CATCH_UP:
            self._overflown = True
            self._noted.clear()
        if not self._overflown:
            self._noted += rewards

    def take(self, sources: Vector) -> Learner | None:
        """The learner, if it has read all that the one in use has: `sources`. To be called between two batches, and not again.

        Raises
        ------
        SteersmanError
            When it cannot be made.
        """
        with self._changed:
            if self._failure is not None:
                raise SteersmanError(
                    f"{self.spec.key} could not be learned again: {self._failure!r}"
                ) from self._failure
            if not self._reached or self._learner is None:
                return None
            if self._overflown or len(self._noted) > CATCH_UP:
                self._limit, self._reached = dict(sources), False
                self._noted.clear()
                self._overflown = False
                self._changed.notify_all()
                return None
            self._stop.set()
            self._changed.notify_all()
        learner = self._learner
        learner.learn_many(_own(self.spec, self._noted))
        learner.settle()
        return learner

    def close(self) -> None:
        """Stop reading."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except Unreachable as error:
                log.warning("%s is not learned again yet: %s", self.spec.key, error)
                self._stop.wait(_RETRY_S)
            except Exception as error:
                with self._changed:
                    self._failure = error
                log.exception("%s could not be learned again", self.spec.key)
                return

    def _read(self) -> None:
        """Read the log from its beginning, up to where the stream is, as often as that is wanted."""
        source = self._open()
        learner: Learner | None = None
        ahead: Rewards = []
        quiet = 0
        for chunk in source.chunks(self._stop):
            if learner is None:
                learner = begin_again(self.spec, self._state, whole=source.begin == 0)
                if source.begin > 0:
                    log.warning(
                        "the log of rewards begins at offset %d: %s is learned again without those before", source.begin, self.spec.key
                    )  # fmt: skip
            quiet = 0 if chunk else quiet + 1
            ahead += _own(self.spec, chunk)
            while not self._stop.is_set():
                due = [one for one in ahead if not after(self._limit, one)]
                ahead = [one for one in ahead if after(self._limit, one)]
                learner.learn_many(due)
                if not (ahead or self._is_there(learner) or quiet >= _QUIET):
                    break
                self._offer(learner)
                quiet = 0

    def _is_there(self, learner: Learner) -> bool:
        return all(learner.sources.get(partition, (-1, -1)) >= place for partition, place in self._limit.items())

    def _offer(self, learner: Learner) -> None:
        """Wait until it has been taken, or is to read on."""
        with self._changed:
            self._learner, self._reached = learner, True
            self._changed.wait_for(lambda: not self._reached or self._stop.is_set())


def _own(spec: PolicySpec, rewards: Sequence[Mapping[str, Any]]) -> Rewards:
    """Those of the policy; without those of which nobody can tell where they were in the log, as in `learners.lineage.Rebuild`."""
    return [
        reward
        for reward in rewards
        if reward["tenant"] == spec.tenant and reward["policy"] == spec.name and reward["source_partition"] >= 0
    ]


StartRelearning = Callable[[PolicySpec, bytes, Vector], Relearning]
"""Begins to learn a policy again: the parameters of `Relearning`, the log being known."""
