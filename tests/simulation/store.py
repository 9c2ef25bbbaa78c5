"""The state store on the simulated log: writing is `streams.state.StateStore` itself, reading is its `StateFold`."""

from __future__ import annotations

from itertools import count

from steersman.errors import Unreachable
from streams.state import StateStore
from streams.state_log import FENCE, META, Recovered, StateFold, fenced_id, writer_id
from tests.simulation.log import Record, SimLog
from tests.simulation.producer import SimProducer

STATE = "sim.state.v1"
_numbers = count()


class SimStore(StateStore):
    """State store of one simulated process."""

    def __init__(self, log: SimLog, producer: SimProducer) -> None:
        super().__init__("", STATE, producer)
        self._log = log

    async def take_over(self, stage: str, partition: int, input_topic: str, generation: int = 0) -> Recovered:
        """As the real one, but for the consumer."""
        owner = writer_id(generation, f"{next(_numbers):032x}")
        await self._outputs.deliver([self._record(stage, partition, FENCE, owner.encode(), owner)])
        recovered = read(self._log, stage, owner)
        self._owners[stage, partition] = fenced_id(owner, recovered.fence)
        if META in recovered.items:
            self._metas[stage, partition] = recovered.items[META]
        return recovered


def read(log: SimLog, stage: str, owner: str | None = None) -> Recovered:
    """What the state topic holds for a stage and partition, up to the owner's fence."""
    tail = StateTail(log, stage, owner)
    tail.advance()
    if owner is not None and not tail.ended:
        raise Unreachable("the end of the state", "compaction has merged the fence with that of a later owner")
    return tail.fold.result()


class StateTail:
    """A reader of the state topic that can go on where it was."""

    def __init__(self, log: SimLog, stage: str, owner: str | None = None) -> None:
        self._log = log
        self._stage = stage
        self._owner = owner
        self._records: list[Record] | None = None
        self.restart()

    def restart(self) -> None:
        """Read from the beginning again."""
        self.fold = StateFold(self._stage, 0, self._owner, f"{STATE}, partition 0")
        self.ended = False
        self._read = 0

    def advance(self) -> StateFold:
        """Read what has come since."""
        records = self._log.records((STATE, 0))
        if records is not self._records:  # compacted
            self.restart()
            self._records = records
        while self._read < len(records) and not self.ended:
            record = records[self._read]
            self._read += 1
            self.ended = self.fold.feed(record.offset, record.timestamp_ms, record.key, record.value, record.headers)
        return self.fold


def unharmed(records: list[Record], clean: int) -> int:
    """How many of the first `clean` records may be compacted without losing a value to a former owner's late record.

    Compaction goes by keys alone: a record that readers ignore, because its writer had lost the partition, replaces the
    value that counts, until the owner saves that key again. Here lies the bound of the guarantee (`streams.state_log`).
    """
    folds = [StateFold(stage, 0, None, STATE) for stage in ("trace", "learn")]
    late: list[int] = []
    valid: dict[bytes | None, list[int]] = {}
    for index, record in enumerate(records[:clean]):
        before = sum(fold._recovered.ignored for fold in folds)
        for fold in folds:
            fold.feed(record.offset, record.timestamp_ms, record.key, record.value, record.headers)
        if sum(fold._recovered.ignored for fold in folds) == before:
            valid.setdefault(record.key, []).append(index)
        elif record.key is not None and not record.key.endswith(b"/@fence"):
            late.append(index)
    for index in reversed(late):
        if index < clean and not any(index < other < clean for other in valid.get(records[index].key, ())):
            clean = index
    return clean
