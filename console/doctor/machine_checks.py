"""Checks of this machine: room on the disk, and who listens on our ports."""

from __future__ import annotations

import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from console.doctor.finding import Finding, fine, problem, warning

_FULL = 0.05


def disk(folder: Path, min_free_bytes: int) -> Iterator[Finding]:
    """Look at the disk of the local stack's data; unit: bytes."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(there)
    yield room("disk.local", f"the disk of {there}", usage.free, usage.total, min_free_bytes)


def room(check: str, whose: str, free: int, total: int, min_free_bytes: int) -> Finding:
    """Judge the room on a disk; unit: bytes."""
    said = f"{whose} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < min_free_bytes:
        fix = (
            "make room or enlarge it: Kafka and ClickHouse stop on a full disk (--min-free-gib says how much is enough)"
        )
        return problem(check, said, fix)
    if free < _FULL * total:
        return warning(check, f"{said}, less than {_FULL:.0%}", "make room, enlarge it, or shorten retention")
    return fine(check, said)


def ports(doors: tuple[str, int], metrics: tuple[str, int | None]) -> Iterator[Finding]:
    """Look at the ports of the services: free, or taken by one of ours.

    Parameters
    ----------
    doors, metrics
        Address and port.
    """
    if doors[1] and doors[1] == metrics[1]:
        yield problem(
            "port.conflict",
            f"doors and metrics are both to listen on port {doors[1]}",
            "change STEERSMAN_DOORS_PORT or STEERSMAN_METRICS_PORT",
        )
        return
    for name, (host, port), path, expected in (
        ("doors", doors, "/v1/traces", ()),
        ("metrics", metrics, "/metrics", (b"steersman_",)),
    ):
        if not port:
            continue
        here = host if host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104  (compared, not bound)
        with socket.socket(socket.AF_INET6 if ":" in here else socket.AF_INET) as one:
            one.settimeout(1.0)
            taken = one.connect_ex((here, port)) == 0
        if not taken:
            yield fine(f"port.{name}", f"port {port} ({name}) is free")
        elif _ours(f"http://{f'[{here}]' if ':' in here else here}:{port}{path}", expected):
            yield fine(f"port.{name}", f"port {port} ({name}) is served by us")
        else:
            yield problem(
                f"port.{name}",
                f"another program listens on port {port}, which the {name} need",
                f"stop it (ss -ltnp 'sport = :{port}' names it), or set STEERSMAN_{name.upper()}_PORT",
            )


def _ours(url: str, expected: tuple[bytes, ...]) -> bool:
    """Whether one of our services answers: the doors refuse a GET of their path, metrics name themselves."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310  (http, to an address of our settings)
            body = reply.read(1 << 20)
            return bool(expected) and all(text in body for text in expected)
    except urllib.error.HTTPError as error:
        return not expected and error.code in (401, 403, 405)
    except (OSError, ValueError):
        return False
