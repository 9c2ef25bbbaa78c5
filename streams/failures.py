"""Records of a stage that failed: what becomes of each of them."""

from __future__ import annotations

import logging

from steersman.errors import DecodeError, InvalidRecord
from streams.dead_letters import DeadLetterStage, DlqLimit, dead_letter
from streams.edges import Step
from streams.metrics import Metrics
from streams.record_batch import RecordBatch

log = logging.getLogger("steersman.streams")


class Failures:
    """Turns failed records into dead letters, and brakes when they are too many.

    Parameters
    ----------
    name
        Name of the stage.
    dead_letter_topic
        Where the dead letters go.
    limit
        The brake.
    metrics
        Counts them.
    """

    def __init__(self, name: str, dead_letter_topic: str, limit: DlqLimit, metrics: Metrics) -> None:
        self._name = name
        self._dead_letter_topic = dead_letter_topic
        self._limit = limit
        self._metrics = metrics

    def settle(self, step: Step, batch: RecordBatch, start: int) -> None:
        """Add the dead letters of a batch to what its step delivers.

        Parameters
        ----------
        step
            What the stage made of the batch.
        batch, start
            The batch, and the index of its first record that was processed.

        Raises
        ------
        streams.dead_letters.TooManyDeadLetters
            When the brake says so.
        """
        if not step.failed:
            self._limit.passed(len(batch) - start)
            return
        by_offset: dict[int, list[tuple[DeadLetterStage, Exception]]] = {}
        for offset, stage, error in step.failed:
            by_offset.setdefault(offset, []).append((stage, error))
        for index in range(start, len(batch)):
            why = by_offset.pop(batch.offsets[index], None)
            if why is None:
                self._limit.passed()
                continue
            where = f"{batch.topic}, partition {batch.partition}, offset {batch.offsets[index]}: {_reason(why[0][1])}"
            self._limit.failed(where)
            for stage, error in why:
                step.records.append(
                    dead_letter(self._dead_letter_topic, batch, index, stage, error, connector=self._name)
                )
                step.counters[f"dead_{_reason(error)}"] += 1
                self._metrics.dead_letters.labels(stage.value, _reason(error)).inc()
        for offset, whys in by_offset.items():
            # An output caused by a record of an earlier batch, whose bytes are no longer at hand.
            log.error("%s: output of offset %d lost: %s", self._name, offset, _reason(whys[0][1]))
            step.counters["lost_outputs"] += len(whys)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, DecodeError | InvalidRecord) else type(error).__name__
