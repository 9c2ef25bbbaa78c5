"""Write the secrets that docker-compose.yml wants into ``.env``: ``python deploy/make_env.py [file]``.

Runs on any Python 3.9 or newer without further packages. What a file holds already stays as it is: the passwords in it are
those of the data already stored. Only what is missing is added.
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
        # What agents and the OpenTelemetry Collector send as "Authorization: Bearer ...".
        "DOORS_TOKEN": secrets.token_hex(32),
        # What opens the live page.
        "PAGE_TOKEN": secrets.token_hex(32),
        "GRAFANA_PASSWORD": secrets.token_hex(16),
        # Of the store's user that Grafana reads as, deploy/clickhouse/grafana.xml.
        "GRAFANA_RO_PASSWORD": secrets.token_hex(24),
    }


def write(file: Path) -> list[str]:
    """Write what the file lacks, readable by its owner only; returns the names written. What it holds stays as it is."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+") as out:
        out.seek(0)
        before = out.read()
        known = {line.partition("=")[0].strip() for line in before.splitlines()}
        missing = {name: value for name, value in secrets_for_compose().items() if name not in known}
        if before and not before.endswith("\n") and missing:
            out.write("\n")
        out.write("".join(f"{name}={value}\n" for name, value in missing.items()))
    return list(missing)


def main(arguments: list[str]) -> int:
    """Write the file named, by default ``.env`` in the root of the repository; returns the exit code."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    file = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / ".env"
    written = write(file)
    print(f"wrote {', '.join(written)} to {file}" if written else f"{file} lacks nothing and was left as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
