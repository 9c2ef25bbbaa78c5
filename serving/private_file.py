"""Files that hold secrets: for the eyes of their owner only, from the moment they exist."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from steersman.errors import ConfigError


def write_private(file: Path, text: str) -> None:
    """Write a file with mode 0600, whole or not at all; what it held before is replaced.

    Parameters
    ----------
    file
        Where to; its folder must exist.
    text
        What it will hold.
    """
    descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise


def refuse_public(file: Path, what: str) -> None:
    """Check that nobody but its owner and its group may read a file.

    Parameters
    ----------
    file
        The file.
    what
        What it holds, for the message.

    Raises
    ------
    ConfigError
        Every user of the machine may read or write it.
    """
    if file.stat().st_mode & stat.S_IRWXO:
        raise ConfigError(f"{file} holds {what}, and every user of this machine may open it: chmod 600 {file}")
