"""`python -m benchmarks.timed_worker`: the platform's own worker, timed at the door of its stages.

Settings of the worker are in the environment (`STEERSMAN_*`); the result is written when it has stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch
from streams.app import StreamsApp
from streams.record_batch import RecordBatch
from streams.settings import StreamSettings
from streams.worker import run_worker


def main() -> int:
    """Run the worker until SIGTERM; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timed_worker", description=__doc__)
    parser.add_argument("--result", type=Path, required=True, help="file for the result")
    parser.add_argument("--gate", type=Path, help="take no record before this file exists")
    parser.add_argument("--stages", default="trace", help="comma-separated (default trace)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    watch = Stopwatch()
    take = StreamsApp.take

    async def timed(app: StreamsApp, batch: RecordBatch) -> None:
        while options.gate is not None and not options.gate.exists():  # noqa: ASYNC110  (another process opens it)
            await asyncio.sleep(0.02)
        watch.begin()
        await take(app, batch)
        watch.took(len(batch))

    # From outside, the door of the stages: whatever is behind it, decoding included, is what is timed.
    StreamsApp.take = timed  # type: ignore[assignment,method-assign]
    code = run_worker(StreamSettings.load(stages=options.stages))
    watch.write(options.result)
    return code


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    # Not sys.exit: a thread of Faust that did not stop in time must not keep the process.
    os._exit(exit_code)
