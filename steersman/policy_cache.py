"""The last good policies on disk, for a start without Kafka."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from steersman.codec import MAX_BYTES

_MAX_NAME = 200


class PolicyCache:
    """One file per policy, holding the snapshot's Avro bytes (single-object encoding) and nothing else.

    A file is replaced whole, by renaming; its modification time says when the snapshot was last known current. Whoever
    reads a file must expect anything in it, as of any bytes from outside.

    Parameters
    ----------
    folder : Path
        Made when first needed. Processes may share it.
    tenant : str
        Tenant whose policies are kept; others in the same folder are left alone.
    """

    def __init__(self, folder: Path, tenant: str) -> None:
        self._folder = folder
        self._prefix = _safe(tenant) + "@"

    def load(self) -> Iterator[tuple[bytes, int]]:
        """Bytes of each kept policy, and when it was last current in microseconds since 1970-01-01 UTC.

        Raises
        ------
        OSError
            If a file that is there cannot be read. Of one that is too long for a policy, the beginning is given.
        """
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(self._prefix) and path.suffix == ".avro":
                with path.open("rb") as file:
                    yield file.read(MAX_BYTES + 1), path.stat().st_mtime_ns // 1000

    def save(self, policy: str, value: bytes) -> None:
        """Keep a policy's bytes in place of those before; OSError when the disk refuses."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._path(policy)
        partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            partial.write_bytes(value)
            partial.replace(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def touch(self, policy: str, now_us: int) -> None:
        """Note that the kept copy of a policy is current at this time; OSError when it is not there."""
        os.utime(self._path(policy), ns=(now_us * 1000, now_us * 1000))

    def _path(self, policy: str) -> Path:
        return self._folder / f"{self._prefix}{_safe(policy)}.avro"


def _safe(name: str) -> str:
    """A name as part of a file name: percent-encoded, and hashed when it is too long."""
    encoded = quote(name, safe="")
    if len(encoded) <= _MAX_NAME // 2:
        return encoded
    return encoded[: _MAX_NAME // 4] + "~" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
