"""Command line of the stream workers: ``python -m streams worker``, ``topics`` and ``reset``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

# Before numpy is loaded: the matrices are small, and BLAS threads would only spin against each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from serving.heap import steady_heap
from serving.logs import configure
from steersman.errors import ConfigError, SteersmanError, Unreachable
from streams.reset import reset_state
from streams.settings import STAGES, StreamSettings
from streams.topics import create_topics
from streams.worker import OK, UNREACHABLE, USAGE, run_worker

log = logging.getLogger("steersman.streams")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 ok, 1 failed, 2 usage, 3 broker unreachable."""
    options = _parser().parse_args(argv)
    configure("worker", verbose=options.verbose)
    steady_heap()
    given = {
        name: value
        for name, value in vars(options).items()
        if name in StreamSettings.model_fields and value is not None
    }
    try:
        settings = StreamSettings.load(**given)
        names = settings.topics
    except ConfigError as error:
        if options.command == "worker":
            log.critical("%s", error)
            return USAGE
        return _usage(str(error))
    if options.command == "worker":
        return run_worker(settings)
    if options.command == "reset":
        return _reset(settings, options.stage, options.partition)
    try:
        created = create_topics(settings.brokers, names, settings.partitions)
    except Unreachable as error:
        print(f"steersman topics: {error}", file=sys.stderr)
        return UNREACHABLE
    except ConfigError as error:
        return _usage(str(error))
    if options.json:
        print(json.dumps(created))
    else:
        for name, new in created.items():
            print(f"{'created' if new else 'exists '}  {name}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streams",
        description="Stream workers: join trace events into rewards and rollups, learn policies from rewards. "
        "Every option has an environment variable STEERSMAN_<NAME>.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--brokers", help="comma-separated host:port list (default 127.0.0.1:9092)")
    common.add_argument("--topic-prefix", help="first part of the topic names (default steersman)")
    common.add_argument("--partitions", type=int, help="partitions of topics created here (default 12)")
    common.add_argument("-v", "--verbose", action="store_true", help="also what Faust and aiokafka have to say")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", parents=[common], help="run a worker until SIGTERM")
    worker.add_argument("--stages", help=f"comma-separated, of {', '.join(STAGES)} (default: both)")
    worker.add_argument("--policies", help="policies file (default policies.toml)")
    worker.add_argument("--policy-signing-key", help="file of the private key that signs policies (default: unsigned)")
    worker.add_argument("--metrics-port", type=int, help="serve /metrics on this loopback port, 0 for any free one")
    worker.add_argument("--group-instance-id", help="name of this worker, for static membership (default: none)")
    reset = commands.add_parser(
        "reset",
        parents=[common],
        help="make the saved state of a stage void, so that it is made anew from the log",
        description="Make the saved state of a stage void. Stop all workers first; the next one reads the log from its "
        "beginning. Results published before carry the same provenance and are not counted again.",
        epilog="Example: python -m streams reset --stage trace --partition 3",
    )
    reset.add_argument("--stage", choices=STAGES, required=True, help="whose state")
    reset.add_argument("--partition", type=int, required=True, help="of which partition of its input")
    topics = commands.add_parser("topics", parents=[common], help="create the topics that do not exist yet")
    topics.add_argument("--json", action="store_true", help="print topic -> created as one JSON object")
    return parser


def _reset(settings: StreamSettings, stage: str, partition: int) -> int:
    try:
        reset_state(settings, stage, partition)
    except Unreachable as error:
        print(f"steersman reset: {error}", file=sys.stderr)
        return UNREACHABLE
    except SteersmanError as error:
        return _usage(str(error))
    print(f"the state of stage {stage}, partition {partition} is void; start the workers again")
    return OK


def _usage(message: str) -> int:
    print(f"python -m streams: {message}", file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread of Faust that did not stop in time must not keep the process.
    os._exit(code)
