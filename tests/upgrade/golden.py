"""`python -m tests.upgrade.golden`: write the state that the last release leaves in the middle of a log, and what comes after it."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

from tests.upgrade.released import released_tree, stages

FILE = Path(__file__).parent / "golden" / "state.json.gz"
EVENTS = 500


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(stages(released_tree(Path(folder)), {"count": EVENTS}), sort_keys=True)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"-> {FILE} ({FILE.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
