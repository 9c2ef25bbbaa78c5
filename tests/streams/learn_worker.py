"""The real worker in a consumer group of its own name, as a process: what a second deployment by mistake would be."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from streams.settings import StreamSettings
from streams.worker import run_worker


class OtherGroup(StreamSettings):
    @property
    def group(self) -> str:
        return os.environ["OTHER_GROUP"]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("steersman").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    os._exit(run_worker(OtherGroup(stages=("learn",))))
