"""Write the secrets that docker-compose.yml wants into ``.env``: ``python deploy/make_env.py [file]``.

Runs on any Python 3.9 or newer without further packages. An existing file is never overwritten: the passwords in it
are those of the data already stored.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
import uuid
from pathlib import Path


def secrets_for_compose() -> dict[str, str]:
    """New values of every variable without a default in docker-compose.yml."""
    return {
        # Letters and digits only, so that it can be part of a URL as it is.
        "CLICKHOUSE_PASSWORD": secrets.token_hex(24),
        # What `kafka-storage.sh random-uuid` makes: 16 bytes, URL-safe base64 without padding.
        "KAFKA_CLUSTER_ID": base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(),
    }


def write(file: Path) -> bool:
    """Write the file, readable by its owner only; False when it exists already."""
    text = "".join(f"{name}={value}\n" for name, value in secrets_for_compose().items())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    return True


def main(arguments: list[str]) -> int:
    """Write the file named, by default ``.env`` in the root of the repository; returns the exit code."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    file = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / ".env"
    print(f"wrote {file}" if write(file) else f"{file} exists already and was left as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
