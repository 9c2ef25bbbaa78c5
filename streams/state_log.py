"""What the records of the state topic mean: their form, their check sums, and what a partition of them adds up to. Pure.

The state of stage *s* for input partition *p* is in partition *p* of the state topic:

======================  ==========================================================================================
record key              value
======================  ==========================================================================================
``s/p/<key>``           what the stage dumped under `key`; a tombstone when the key is gone
``s/p/@marker``         JSON: `next_offset`, the offset of the input to go on from, and the stage's `meta` item
``s/p/@fence``          id of the writer that has just taken the partition over
``s/p/@reset``          everything before it is void
======================  ==========================================================================================

Every record names its writer in the header ``owner`` and carries a digest of key, owner and value in the header
``digest``: a record that was damaged anywhere on its way, tombstones included, is found out.

A checkpoint delivers the dirty keys first and the marker after them. Between the two, keys are newer than the marker:
the stage, which stamps each key with the offset of the last event applied to it, skips what a key has seen.

Taking over writes a fence and reads up to it. That is the end of the partition whatever the broker says its
high watermark is, and it shuts out a former owner that does not know yet that it lost the partition: what another writer
than the fence's wrote after it is ignored. A fence names the generation of the consumer group in which its writer got
the partition, and one of a lower generation is void: it was on its way while its writer hung. (Generations start again
when a group has been empty for days, so a writer that has been silent for `FENCE_HOLDS_S` can be followed by any.)

Compaction merges fences, a void one with the valid one before it as well. So what a writer saves names the offset of its
fence beside the writer, and the order of the fences can still be told when they are gone. The one thing it cannot
give back is a value that a former owner's late record has superseded; the topic's compaction lag is minutes, a group's
session timeout is seconds.
"""

from __future__ import annotations

import base64
import hmac
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from steersman.errors import SteersmanError

META = "meta"
MARKER = "@marker"
FENCE = "@fence"
RESET = "@reset"

_OWNER = "owner"
_DIGEST = "digest"
_LENGTH = struct.Struct("<Q").pack

Headers = Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str | None]] | None


FENCE_HOLDS_S = 3600
"""How long after its last record a writer's fence holds against lower generations; unit: seconds."""


class StateTakenOver(SteersmanError):
    """Another worker took the partition over before this one did."""


class StateDamaged(SteersmanError):
    """Saved state that is not what was written; nothing of it was loaded."""


@dataclass
class Recovered:
    """What the state topic holds for a stage and partition.

    Attributes
    ----------
    items
        Key -> value, `meta` included.
    next_offset
        Offset of the input to go on from; None when nothing was ever saved.
    ignored
        Records of former owners that were ignored; unit: records.
    log_start
        First offset that the input still holds; unit: Kafka offset.
    fence
        Offset of the owner's fence, -1 without one; unit: Kafka offset.
    """

    items: dict[str, bytes] = field(default_factory=dict)
    next_offset: int | None = None
    ignored: int = 0
    log_start: int = 0
    fence: int = -1

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(map(len, self.items.values()))


def record_key(stage: str, partition: int, key: str) -> bytes:
    """Return the key of a state record."""
    return f"{stage}/{partition}/{key}".encode()


def writer_id(generation: int, unique: str) -> str:
    """Return the name under which a writer of a generation of the group signs its records."""
    return f"{generation}-{unique}"


def fenced_id(writer: str, fence: int) -> str:
    """Return the name under which a writer whose fence has this offset signs what it saves."""
    return f"{writer}@{fence}"


def seal(key: bytes, value: bytes | None, owner: str) -> list[tuple[str, bytes]]:
    """Return the headers of a state record."""
    return [(_OWNER, owner.encode()), (_DIGEST, _digest(key, value, owner.encode()))]


class Seal:
    """What `record_key` and `seal` do, for many records of one writer.

    Parameters
    ----------
    stage, partition
        Whose state.
    owner
        The writer.
    """

    def __init__(self, stage: str, partition: int, owner: str) -> None:
        by = owner.encode()
        self._prefix = record_key(stage, partition, "")
        self._owner = (_OWNER, by)
        self._by = _sized(by)

    def __call__(self, key: str, value: bytes | None) -> tuple[bytes, list[tuple[str, bytes]]]:
        """Return key and headers of the record of what the stage dumped under `key`."""
        full = self._prefix + key.encode()
        return full, [self._owner, (_DIGEST, _digest_of(full, value, self._by))]


def marker(next_offset: int, meta: bytes | None) -> bytes:
    """Return the value of a marker."""
    text = None if meta is None else base64.b64encode(meta).decode()
    return json.dumps({"next_offset": next_offset, "meta": text}).encode()


class StateFold:
    """Adds up the records of one partition of the state topic, in their order, to the state of one stage.

    Parameters
    ----------
    stage, partition
        Whose state.
    owner
        The writer whose fence ends the reading; None to read whatever there is.
    where
        Name of topic and partition, for messages.
    """

    def __init__(self, stage: str, partition: int, owner: str | None, where: str) -> None:
        self._stage = stage
        self._partition = partition
        self._prefix = record_key(stage, partition, "")
        self._owner = owner
        self._where = where
        self._writer: str | None = None
        self._fence = -1  # offset of the writer's fence
        self._saved = False  # whether anything that the writer saved has come
        self._written_ms = 0  # Kafka timestamp of the writer's last record
        self._damage: str | None = None
        self._recovered = Recovered()

    def feed(self, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Take the next record; returns True when it is the owner's fence, after which nothing counts.

        Raises
        ------
        StateTakenOver
            When that fence came too late.
        """
        held = dict(headers or ())
        by, digest = _bytes(held.get(_OWNER)), _bytes(held.get(_DIGEST))
        if key is None or not hmac.compare_digest(digest, _digest(key, value, by)):
            # Whose it was cannot be told any more, so it may be anybody's: of any stage, of any key.
            shown = (key or b"")[:80].decode("utf-8", "replace")
            self._damage = self._damage or f"record {shown!r} at offset {offset} does not match its digest"
            return False
        if not key.startswith(self._prefix):
            return False
        try:
            return self._take(offset, timestamp_ms, key, value, by)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            # The digest is no secret: whoever may write the topic can make one. So the content is not trusted either.
            self._damage = self._damage or f"the record at offset {offset} cannot be read: {type(error).__name__}"
            return False

    def _take(self, offset: int, timestamp_ms: int, key: bytes, value: bytes | None, by: bytes) -> bool:
        name = key[len(self._prefix) :].decode()
        writer, _, fence = by.decode().partition("@")
        if name == FENCE:
            return self._fenced(writer, offset, timestamp_ms)
        if name == RESET:
            # An operator's word: valid whoever owns the partition, and any generation may follow.
            self._writer, self._fence, self._saved = writer, offset, True
            self._damage = None
            self._recovered = Recovered()
            return False
        if not self._owns(writer, int(fence or -1)):
            self._recovered.ignored += 1
            return False
        self._saved, self._written_ms = True, timestamp_ms
        self._apply(name, value)
        return False

    def result(self) -> Recovered:
        """Return the state.

        Raises
        ------
        StateDamaged
            When a record since the last reset was damaged.
        """
        if self._damage is not None:
            raise StateDamaged(
                f"the state saved in {self._where} is damaged: {self._damage}. Nothing of it was loaded. Make it anew "
                f"from the log with 'python -m streams reset --stage {self._stage} --partition {self._partition}', "
                "then start the worker again: results that were already published are recognised and not repeated"
            )
        return self._recovered

    def _owns(self, writer: str, fence: int) -> bool:
        """Tell whether what a writer saves counts here, and remember who it is."""
        current = self._writer
        if writer == current:
            return True
        # Nobody saves anything under a fence that was void. So either this writer's own fence has been merged with a later
        # one, or the fence of a lower generation that seemed to shut it out was void after all.
        void = not self._saved and _generation(writer) > _generation(current or "")
        if current is None or fence > self._fence or (fence >= 0 and void):
            self._writer, self._fence = writer, fence
            return True
        return False

    def _fenced(self, writer: str, offset: int, timestamp_ms: int) -> bool:
        current = self._writer
        if (
            current is not None
            and _generation(writer) < _generation(current)
            and timestamp_ms - self._written_ms < FENCE_HOLDS_S * 1000
        ):
            if writer == self._owner:
                raise StateTakenOver(
                    f"{self._where}: stage {self._stage} belongs to a later generation of the group ({current}); this worker "
                    "had lost the partition before it could take it over, and starts again"
                )
            self._recovered.ignored += 1
            return False
        self._writer, self._fence, self._saved, self._written_ms = writer, offset, False, timestamp_ms
        if writer == self._owner:
            self._recovered.fence = offset
            return True
        return False

    def _apply(self, name: str, value: bytes | None) -> None:
        recovered = self._recovered
        if name == MARKER:
            if value is not None:
                held = json.loads(value)
                recovered.next_offset = int(held["next_offset"])
                if held.get("meta") is not None:
                    recovered.items[META] = base64.b64decode(held["meta"])
        elif value is None:
            recovered.items.pop(name, None)
        else:
            recovered.items[name] = value


def _digest(key: bytes, value: bytes | None, owner: bytes) -> bytes:
    return _digest_of(key, value, _sized(owner))


def _digest_of(key: bytes, value: bytes | None, sized_owner: bytes) -> bytes:
    # With its length before each part, no two records look alike.
    held = b"" if value is None else _sized(value)
    return blake2b(_LENGTH(len(key)) + key + sized_owner + held, digest_size=16).digest()


def _sized(part: bytes) -> bytes:
    return _LENGTH(len(part)) + part


def _generation(writer: str) -> int:
    number = writer.partition("-")[0]
    return int(number) if number.isdigit() else 0


def _bytes(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
