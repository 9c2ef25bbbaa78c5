"""Entry point of the `steersman` command: turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

# Before numpy is loaded: one thread, as in every process of ours, for speed and so that weights come out to the same bit.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from console.main import app
from console.output import err
from steersman.errors import ConfigError, SteersmanError, Unreachable


def main() -> int:
    """Run the command line; returns 0 ok, 1 failed, 2 usage, 3 unreachable, 4 check found problems, 130 Ctrl-C."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="steersman")
    except SteersmanError as e:
        err.print(f"error: {e}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 3 if isinstance(e, Unreachable) else 2 if isinstance(e, ConfigError) else 1
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    """End like Ctrl-C does, so that the context managers stop every child."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
