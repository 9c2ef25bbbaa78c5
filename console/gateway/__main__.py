"""`python -m console.gateway --path DIR --port P`: serve chDB over ClickHouse's HTTP interface until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

# chDB takes the process's time zone for the server's, and loses the zone of DateTime columns in Native results.
os.environ["TZ"] = "UTC"
time.tzset()

from console.gateway.engine import Engine  # noqa: E402
from console.gateway.http import application  # noqa: E402
from console.gateway.users import Users, make_users, read_users  # noqa: E402
from serving.access import LOOPBACK  # noqa: E402
from serving.command import exit_code  # noqa: E402
from serving.heap import steady_heap  # noqa: E402
from serving.logs import configure  # noqa: E402
from serving.settings import refuse_unknown  # noqa: E402
from serving.web import announced, listen, stop_signal  # noqa: E402
from steersman.errors import ConfigError  # noqa: E402


def main(argv: Sequence[str] | None = None, make: Callable[..., web.Application] = application) -> int:
    """Run the endpoint; returns the exit code.

    Parameters
    ----------
    argv
        Arguments, those of the process when None.
    make
        Makes the application; takes what `console.gateway.http.application` takes.
    """
    parser = argparse.ArgumentParser(
        prog="python -m console.gateway",
        description=__doc__,
        epilog="Example: python -m console.gateway --path data --users clickhouse-users.toml, then "
        "curl -u reader:PASSWORD 'http://127.0.0.1:8123/?query=SELECT+1'; docs/clickhouse-endpoint.md has more.",
    )
    parser.add_argument("--path", type=Path, required=True, help="chDB data folder, created when missing")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="TOML file of who may ask; made with new passwords when it is missing",
    )
    who.add_argument("--no-login", action="store_true", help="everybody on this machine may do everything")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default 127.0.0.1); others need --users")
    parser.add_argument("--port", type=int, default=8123, help="port, 0 for a free one (default 8123)")
    parser.add_argument("--port-file", type=Path, help="write the port there once it answers")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="further Host header to accept"
    )
    parser.add_argument("--max-body-mib", type=int, default=256, help="largest request body (default 256)")
    parser.add_argument(
        "--max-per-s", type=float, default=500.0, help="requests of a user in a second, 0 for any number (default 500)"
    )
    args = parser.parse_args(argv)
    configure("gateway")
    steady_heap()
    return exit_code("gateway", lambda: _run(args, make))


def _run(args: argparse.Namespace, make: Callable[..., web.Application]) -> int:
    refuse_unknown()
    users = _users(args.users, args.host)
    engine = Engine(args.path)
    hosts = LOOPBACK | {host.lower() for host in args.allow_host}
    app = make(engine, users=users, hosts=hosts, max_body=args.max_body_mib << 20, per_s=args.max_per_s)
    return asyncio.run(_serve(app, args.host, args.port, args.port_file))


def _users(file: Path | None, host: str) -> Users:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        make_users(file)
        return read_users(file)
    if host not in LOOPBACK:
        raise ConfigError(
            f"the store would be open to everybody on {host}: name who may ask with --users, or stay on 127.0.0.1"
        )
    return Users([])


async def _serve(app: web.Application, host: str, port: int, port_file: Path | None) -> int:
    stop = stop_signal()
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=10)
    await runner.setup()
    try:
        await listen(runner, host, port)
        with announced("gateway", runner, host, port_file):
            await stop.wait()
    finally:
        await runner.cleanup()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
