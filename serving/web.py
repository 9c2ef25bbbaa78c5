"""What the services that answer HTTP share: the signal to stop, a port to listen on, and how others learn which."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from steersman.errors import ConfigError

log = logging.getLogger("steersman")


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; call it in the loop that waits for it."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def listen(runner: web.AppRunner, host: str, port: int, *, perhaps: str = "") -> None:
    """Listen on a port.

    Parameters
    ----------
    runner
        Set up already.
    host, port
        Where; port 0 is any free one.
    perhaps
        Who may have the port, for the message: ``, perhaps by ...``.

    Raises
    ------
    ConfigError
        The port is taken, or the address is none of this machine.
    """
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"cannot listen on {host}:{port}: {error}") from error
        raise ConfigError(
            f"port {port} is taken{perhaps}; choose another with --port, or 0 for any free one"
        ) from error


@contextlib.contextmanager
def announced(name: str, runner: web.AppRunner, host: str, port_file: Path | None) -> Iterator[None]:
    """Say where a service is, in the log and in a file, which is there as long as the service is.

    Parameters
    ----------
    name
        Of the service.
    runner, host
        It listens, there.
    port_file
        Gets the port, whole or not at all; None for no file.
    """
    port = runner.addresses[0][1]
    if port_file is not None:
        partial = port_file.with_suffix(".partial")
        partial.write_text(str(port))
        partial.rename(port_file)
    log.info("%s: http://%s:%d", name, host, port)
    try:
        yield
    finally:
        if port_file is not None:
            port_file.unlink(missing_ok=True)
