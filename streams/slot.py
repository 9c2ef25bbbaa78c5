"""A partition that a worker holds, between two checkpoints."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.edges import EdgeStage
from streams.record_batch import RecordBatch


@dataclass
class Slot:
    """A partition that is ours."""

    partition: int
    generation: int
    stage: EdgeStage
    position: int  # next offset to process
    saved: int  # the same as of the last checkpoint
    saved_at: float
    unsaved: list[RecordBatch] = field(default_factory=list)
    unsaved_records: int = 0
    changed: bool = False  # since the last checkpoint
    urgent: bool = False  # to be saved now
    tick_offset: int = -1  # of the last TICK written
    sending: deque[asyncio.Future[list[int]]] = field(default_factory=deque)  # outputs on their way
    saving: asyncio.Future[None] | None = None  # the checkpoint on its way


@dataclass
class Checkpoint:
    """A partition as it was at an offset."""

    position: int
    sending: deque[asyncio.Future[list[int]]]  # outputs of all before it
    batches: list[RecordBatch]
    dirty: Mapping[str, bytes | None] | None  # None: nothing has changed
    began: float
