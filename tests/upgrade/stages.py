"""What the stages of the tree on ``PYTHONPATH`` make of a log and a saved state; run with ``python -P``, by each version alike.

Reads ``{"count": n}``, and writes what `written` returns for a log of so many events; or reads ``{stage: {"records": [[offset,
base64], ...], "state": {key: base64}}}``, and writes what each stage makes of the rest of its log. Uses only what every version
has: keep it so.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import numpy as np

from benchmarks.payload import POLICIES, TraceMaker, spaced
from learners.policies_file import load_policies
from steersman.codec import Codec
from streams.learning_stage import LearningStage
from streams.trace_stage import TraceStage

T0_US = 1_800_000_000_000_000
_SPACING_US = 20_000


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def make(count: int) -> list[str]:
    """Encode the events of traces that overlap."""
    encode = Codec("trace_event").encode
    return [text(encode(record)) for record in spaced(TraceMaker(4).interleaved(), count, T0_US, _SPACING_US)]


def trace(records: list[list[Any]], state: dict[str, str]) -> dict[str, Any]:
    stage = TraceStage(load_policies(POLICIES), 0)
    stage.restore((key, base64.b64decode(value)) for key, value in state.items())
    decode = Codec("trace_event").decode
    out = stage.process([(offset, T0_US, decode(base64.b64decode(value))) for offset, value in records])
    encode = Codec("reward").encode
    return {
        "outputs": {"rewards": out.rewards, "rollups": out.rollups, "rejected": len(out.rejected)},
        "encoded": [text(encode(reward)) for reward in out.rewards],
        "state": merged(state, stage.dump_dirty()),
    }


def learn(records: list[list[Any]], state: dict[str, str]) -> dict[str, Any]:
    stage = LearningStage(load_policies(POLICIES), 0, 1)
    stage.restore((key, base64.b64decode(value)) for key, value in state.items())
    stage.published({})
    decode = Codec("reward").decode
    rewards = [(offset, T0_US, decode(base64.b64decode(value))) for offset, value in records]
    out = stage.process(rewards, now_us=T0_US, monotonic_us=10**9)
    dirty = stage.dump_dirty()
    published = list(out.snapshots)
    if out.save:  # defaults of a setting differ between versions: what was revised is saved before it is published
        published += stage.due(now_us=T0_US, monotonic_us=10**9).snapshots
    snapshots = [
        {name: snapshot[name] for name in ("tenant", "policy", "epoch", "version", "applied_n")}
        | {
            "tensors": {
                t["name"]: np.frombuffer(t["data"], "<f4").tolist()
                for t in snapshot["tensors"]
                if len(t["data"]) < 1000
            }
        }
        for snapshot in published
    ]
    return {
        "outputs": {"snapshots": snapshots, "applied": out.counters["applied"]},
        "state": merged(state, dirty),
    }


def merged(state: dict[str, str], dirty: dict[str, bytes | None]) -> dict[str, str]:
    """What the state topic adds up to."""
    held = {**state, **{key: text(value) for key, value in dirty.items() if value is not None}}
    return {key: value for key, value in held.items() if key not in dirty or dirty[key] is not None}


STAGES = {"trace": trace, "learn": learn}
HALF = {"trace": 300, "learn": 12}
"""Records before the restart."""


def written(count: int) -> dict[str, Any]:
    """Return the records, the state in the middle of them, and what comes of the rest, of both stages."""
    events = [[offset, value] for offset, value in enumerate(make(count))]
    rewards = [[offset, value] for offset, value in enumerate(trace(events, {})["encoded"])]
    found = {}
    for name, records in (("trace", events), ("learn", rewards)):
        state = begun(name, records)
        found[name] = {"records": records, "state": state, "rest": ended(name, records, state)}
    return found


def begun(name: str, records: list[list[Any]]) -> dict[str, str]:
    """Return the state of a stage in the middle of a log."""
    state: dict[str, str] = STAGES[name](records[: HALF[name]], {})["state"]
    return state


def ended(name: str, records: list[list[Any]], state: dict[str, str]) -> dict[str, Any]:
    """Return what a stage that takes up a state makes of the rest of a log."""
    outputs: dict[str, Any] = STAGES[name](records[HALF[name] :], state)["outputs"]
    return outputs


def main() -> None:
    asked = json.load(sys.stdin)
    if "count" in asked:
        json.dump(written(asked["count"]), sys.stdout)
    else:
        json.dump({name: ended(name, one["records"], one["state"]) for name, one in asked.items()}, sys.stdout)


if __name__ == "__main__":
    main()
