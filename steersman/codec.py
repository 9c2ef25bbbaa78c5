"""Records to bytes and back, in three framings, with hostile bytes expected.

===================  =======================================================  ==================
framing              bytes of a value                                         names the schema by
===================  =======================================================  ==================
single object        ``C3 01``, 8 bytes, body                                 CRC-64-AVRO, little-endian
Confluent            ``00``, 4 bytes, body                                    registry id, big-endian
header               body; header ``__value_schema_id`` = ``01`` + 16 bytes   registry GUID
===================  =======================================================  ==================

Without a registry records are written as single objects; all three are read.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import fastavro
import fastavro.schema

from steersman import contracts
from steersman.errors import DecodeError
from steersman.record_checks import MAX_ITEMS, MAX_TEXT, number_check, too_long

Headers = Iterable[tuple[str, bytes | str | None]] | None
"""Headers of a Kafka record, as confluent-kafka and aiokafka hand them over."""

SCHEMA_ID_HEADER = "__value_schema_id"
MAX_BYTES = 1 << 20
"""Largest value accepted or produced; unit: bytes."""

_SINGLE_OBJECT = b"\xc3\x01"
_CONFLUENT = 0
_GUID = 1
_ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")


class SchemaIds(Protocol):
    """What a codec asks of a schema registry. `steersman.registry.Registry` is one."""

    def id_for(self, name: str) -> int | None:
        """Id under which the current version of a contract is registered, None when unknown."""

    def schema_by_id(self, name: str, schema_id: int) -> Mapping[str, Any] | None:
        """Writer schema with that id, if it is registered for this contract's topic."""

    def schema_by_guid(self, name: str, guid: str) -> Mapping[str, Any] | None:
        """Writer schema with that GUID (canonical text form), if registered for this contract's topic."""


class Codec:
    """Encode and decode the records of one contract.

    Parameters
    ----------
    name
        One of `steersman.contracts.NAMES`.
    registry
        Where schema ids come from; None for no registry.
    max_bytes
        Largest value accepted or produced; unit: bytes.

    Raises
    ------
    KeyError
        There is no contract of that name.

    Attributes
    ----------
    head : bytes
        What stands before the body of a single object of the current version.
    max_bytes : int
        Largest value accepted or produced; unit: bytes.

    Notes
    -----
    Timestamps are integers (microseconds), enum symbols are text, bytes are bytes. Threads may share a codec.
    """

    def __init__(self, name: str, *, registry: SchemaIds | None = None, max_bytes: int = MAX_BYTES) -> None:
        current = contracts.schema(name)
        self.name = name
        self._registry = registry
        self.max_bytes = max_bytes
        self._reader = _Reader(current)
        self.head = _SINGLE_OBJECT + contracts.fingerprint(current)
        # Keys are 8-byte fingerprints, and as they come up registry ids (5 bytes) and GUIDs (17 bytes).
        self._writers: dict[bytes, _Writer] = {
            contracts.fingerprint(written): _Writer(written, self._reader)
            for written in (*contracts.versions(name), current)
        }

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Encode a record under the current version of the contract.

        With a registry that knows the schema the Confluent framing is used; otherwise, and while the registry
        does not answer, the single-object framing, which every reader of ours accepts as well.

        Raises
        ------
        ValueError
            The record does not fit the contract: a field is missing, unknown, of another type, not finite or
            too long.
        """
        prefix = self.framing()
        if not self._reader.names.issuperset(record):
            unknown = record.keys() - self._reader.names
            raise ValueError(f"{self.name}: no such field: {', '.join(sorted(map(str, unknown)))}")
        buffer = io.BytesIO()
        buffer.write(prefix)
        try:
            fastavro.schemaless_writer(buffer, self._reader.parsed, record)
        except Exception as error:  # fastavro raises whatever the wrong type happened to trip over
            raise ValueError(f"{self.name}: {error}") from error
        value = buffer.getvalue()
        if len(value) > self.max_bytes:
            raise ValueError(f"{self.name}: {len(value)} bytes, {self.max_bytes} allowed")
        if found := self._reader.fault(record, len(value)):
            raise ValueError(f"{self.name}: {found[1]}")
        return value

    def framing(self) -> bytes:
        """Return what `encode` puts before the body of a record now; it may be another once the registry answers."""
        registered = self._registry.id_for(self.name) if self._registry is not None else None
        return self.head if registered is None else b"\x00" + registered.to_bytes(4, "big")

    def decode(self, value: bytes | None, headers: Headers = ()) -> dict[str, Any]:
        """Decode a value, resolving what an older or newer writer wrote to the current version.

        Parameters
        ----------
        value
            Value of a Kafka record; None is a tombstone, for which callers that allow it must look first.
        headers
            Headers of the record.

        Returns
        -------
        dict
            Exactly the fields of the current contract.

        Raises
        ------
        DecodeError
            With the reason ``empty``, ``too_large``, ``magic``, ``unknown_schema``, ``corrupt``,
            ``trailing_bytes``, ``not_finite`` or ``too_long``. Nothing else is raised, whatever the bytes.
        """
        if not value:
            raise DecodeError("empty", f"{self.name}: no bytes")
        writer, start = self._framed(value, headers)
        buffer = io.BytesIO(value)
        buffer.seek(start)
        try:
            record = writer.read(buffer)
        except Exception as error:  # a decoder fed with garbage may trip over anything; it all means the same
            # fastavro says which object it could not read from; a dead letter has the same text whenever it is written.
            error.args = tuple(_ADDRESS.sub("", part) if isinstance(part, str) else part for part in error.args)
            raise DecodeError("corrupt", f"{self.name}: {type(error).__name__}: {error}"[:300]) from error
        if buffer.tell() != len(value):
            rest = len(value) - buffer.tell()
            raise DecodeError("trailing_bytes", f"{self.name}: {rest} bytes after the record")
        if found := self._reader.fault(record, len(value)):
            raise DecodeError(*found)
        return record

    def frame(self, value: bytes | None, headers: Headers = ()) -> tuple[Mapping[str, Any], int]:
        """Return by which schema a value was written and where its body begins, without decoding it.

        Parameters
        ----------
        value, headers
            As for `decode`.

        Returns
        -------
        schema : mapping
            The writer's schema, logical types included: the same object for every value that was written by it.
        start : int
            First byte of the Avro body.

        Raises
        ------
        DecodeError
            With the reason ``empty``, ``too_large``, ``magic`` or ``unknown_schema``.
        """
        if not value:
            raise DecodeError("empty", f"{self.name}: no bytes")
        writer, start = self._framed(value, headers)
        return writer.schema, start

    def without(self, field: str, value: bytes | None, headers: Headers = ()) -> tuple[bytes, Any, bytes]:
        """Return a value's body with one bytes field emptied, still under the schema that wrote it.

        Parameters
        ----------
        field
            Name of a field of type bytes.
        value, headers
            As for `decode`.

        Returns
        -------
        schema : bytes
            SHA-256 of the parsing canonical form of the writer's schema, 32 bytes.
        content
            What the field held; None when the writer's schema has no such field.
        body : bytes
            The Avro body without it.

        Raises
        ------
        DecodeError
            As by `decode`, and ``not_canonical`` when the body is not what encoding its content gives.
        """
        if not value:
            raise DecodeError("empty", f"{self.name}: no bytes")
        writer, start = self._framed(value, headers)
        try:
            buffer = io.BytesIO(value)
            buffer.seek(start)
            record = writer.read_as_written(buffer)
            if writer.write(record) != value[start:]:
                raise DecodeError("not_canonical", f"{self.name}: the body is not what its content gives when encoded")
            content = record.get(field)
            if field in record:
                record[field] = b""
            return contracts.digest(writer.schema), content, writer.write(record)
        except DecodeError:
            raise
        except Exception as error:  # as in decode
            raise DecodeError("corrupt", f"{self.name}: {type(error).__name__}"[:300]) from error

    def as_single_object(self, value: bytes, headers: Headers = ()) -> bytes:
        """Return a value in the single-object framing, its body untouched; DecodeError as by `frame`."""
        schema, start = self.frame(value, headers)
        return value if start == 10 else _SINGLE_OBJECT + contracts.fingerprint(schema) + value[start:]

    def _framed(self, value: bytes, headers: Headers) -> tuple[_Writer, int]:
        if len(value) > self.max_bytes:
            raise DecodeError("too_large", f"{self.name}: {len(value)} bytes, {self.max_bytes} allowed")
        return self._writer_of(value, headers)

    def _writer_of(self, value: bytes, headers: Headers) -> tuple[_Writer, int]:
        if headers:
            for key, content in headers:
                if key == SCHEMA_ID_HEADER:
                    return self._writer_of_header(content), 0
        if value[:2] == _SINGLE_OBJECT and len(value) >= 10:
            writer = self._writers.get(value[2:10])
            if writer is None:
                raise DecodeError("unknown_schema", f"{self.name}: fingerprint {value[2:10].hex()}")
            return writer, 10
        if value[0] == _CONFLUENT and len(value) >= 5:
            return self._registered(value[:5]), 5
        raise DecodeError("magic", f"{self.name}: value begins with {value[:2].hex()}")

    def _writer_of_header(self, content: bytes | str | None) -> _Writer:
        raw = content.encode("latin-1", "replace") if isinstance(content, str) else content or b""
        if (raw[:1] == b"\x01" and len(raw) == 17) or (raw[:1] == b"\x00" and len(raw) == 5):
            return self._registered(raw)
        raise DecodeError("magic", f"{self.name}: header {SCHEMA_ID_HEADER} of {len(raw)} bytes")

    def _registered(self, key: bytes) -> _Writer:
        """Writer schema for a registry id (00 + 4 bytes) or GUID (01 + 16 bytes)."""
        writer = self._writers.get(key)
        if writer is not None:
            return writer
        if self._registry is None:
            raise DecodeError("unknown_schema", f"{self.name}: no registry to ask for {key.hex()}")
        if key[0] == _GUID:
            found = self._registry.schema_by_guid(self.name, str(uuid.UUID(bytes=key[1:])))
        else:
            found = self._registry.schema_by_id(self.name, int.from_bytes(key[1:], "big"))
        if found is None:
            raise DecodeError("unknown_schema", f"{self.name}: {key.hex()} is not registered for the topic")
        writer = self._admit(key, found)
        self._writers[key] = writer
        return writer

    def _admit(self, key: bytes, found: Mapping[str, Any]) -> _Writer:
        if why := contracts.hazard(found):
            raise DecodeError("unknown_schema", f"{self.name}: schema id {key.hex()} refused: {why}")
        try:
            return self._writers.get(contracts.fingerprint(found)) or _Writer(found, self._reader)
        except Exception as error:  # a registry may hold what no parser of ours takes
            raise DecodeError("unknown_schema", f"{self.name}: {key.hex()}: {error}"[:300]) from error


class _Reader:
    """The current version of a contract, and the checks a decoded record must pass."""

    def __init__(self, current: Mapping[str, Any]) -> None:
        self.schema = plain(current)
        self.parsed = fastavro.parse_schema(self.schema)
        self.names = frozenset(field["name"] for field in current["fields"])
        self._numbers = [
            (field["name"], check)
            for field in self.schema["fields"]
            if (check := number_check(field["type"])) is not None
        ]

    def fault(self, record: Mapping[str, Any], size: int) -> tuple[str, str] | None:
        """Reason and detail of what is wrong with a record that took `size` bytes, or None."""
        for name, check in self._numbers:
            if reason := check(record.get(name)):
                return reason, f"field {name}"
        # An item or a character takes a byte at least, so a short record cannot break these caps.
        if size > MAX_ITEMS and (name := too_long(record)):
            return "too_long", f"field {name}: more than {MAX_ITEMS} items or {MAX_TEXT} characters"
        return None


class _Writer:
    """One writer schema, ready to be read by the current version."""

    def __init__(self, written: Mapping[str, Any], reader: _Reader) -> None:
        self.schema = written
        self._parsed = fastavro.parse_schema(plain(written))
        same = contracts.fingerprint(written) == contracts.fingerprint(reader.schema)
        self._target = None if same else reader.parsed
        present = {field["name"] for field in written["fields"]}
        # fastavro hands out the schema's own default object, and for bytes its JSON text.
        self._fresh = [
            (field["name"], _fresh_default(field))
            for field in reader.schema["fields"]
            if field["name"] not in present and isinstance(field.get("default"), list | dict | str)
        ]

    def read(self, buffer: io.BytesIO) -> dict[str, Any]:
        record = fastavro.schemaless_reader(buffer, self._parsed, self._target)
        if not isinstance(record, dict):
            raise TypeError("not a record")
        if self._target is not None:
            for name, make in self._fresh:
                record[name] = make()
        return record

    def read_as_written(self, buffer: io.BytesIO) -> dict[str, Any]:
        """Read without resolving: with the fields of the writer, under the writer's names."""
        record = fastavro.schemaless_reader(buffer, self._parsed, None)
        if not isinstance(record, dict):
            raise TypeError("not a record")
        return record

    def write(self, record: Mapping[str, Any]) -> bytes:
        """Body of a record that has the writer's fields."""
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._parsed, record)
        return buffer.getvalue()


def plain(node: Any) -> Any:
    """Return a schema without logical types, so that timestamps decode to the integers that were written."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if isinstance(node, Mapping):
        return {key: item if key == "default" else plain(item) for key, item in node.items() if key != "logicalType"}
    return node


def _fresh_default(field: Mapping[str, Any]) -> Callable[[], Any]:
    default = field["default"]
    if isinstance(default, str):
        kind = field["type"]
        first = kind[0] if isinstance(kind, list) else kind
        value = default.encode("latin-1") if first == "bytes" else default
        return lambda: value
    return default.copy  # type: ignore[no-any-return]
