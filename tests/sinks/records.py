"""Records of every contract, and for every table a topic's worth of messages with what its view must show of them."""

from __future__ import annotations

import functools
from typing import Any

from steersman import contracts
from steersman.codec import Codec
from steersman.dead_letter import failure_headers
from steersman.errors import DecodeError

START_US = 1_790_000_040_000_000  # a full minute
VIEWS = {
    "trace_events": "v_events", "rewards": "v_rewards", "rollups": "v_rollups", "alerts": "v_alerts",
    "policies": "v_policies", "ledger": "v_ledger", "dead_letters": "v_dead_letters",
    "policy_acts": "v_policy_acts",
}  # fmt: skip
"""The view of each table that shows its rows."""

codec = functools.cache(Codec)


def record(contract: str, **fields: Any) -> dict[str, Any]:
    """A record of a contract: the fields given, defaults elsewhere, and something harmless where there are none."""
    harmless = {"string": "x", "long": 1_790_000_000_000_000, "int": 0, "double": 0.5, "boolean": False}
    made: dict[str, Any] = {}
    for field in contracts.schema(contract)["fields"]:
        kind = field["type"]
        if field["name"] in fields:
            value = fields[field["name"]]
        elif "default" in field:
            value = b"" if kind == "bytes" else field["default"]
        elif isinstance(kind, dict):
            value = {"array": [], "enum": "UNKNOWN"}.get(kind["type"], 1_790_000_000_000_000)
        else:
            value = 1 if kind == "long" else harmless[kind]
        made[field["name"]] = value
    assert made.keys() >= fields.keys()
    return made


def event(i: int, **fields: Any) -> bytes:
    """The i-th event of a log: three to a trace, its number in event_id, duration and cost."""
    made = record(
        "trace_event", event_id=f"{i:032x}", trace_id=f"{i // 3:032x}", span_id=f"{i:016x}", kind="MODEL_CALL", status="OK",
        ts=START_US + i * 1000, duration_us=i, cost_micro_usd=i, **fields,
    )  # fmt: skip
    return codec("trace_event").encode(made)


def value(table: str, i: int, version: int = 1) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """Value and headers of the i-th thing of a table, in one of its versions."""
    if table == "dead_letters":
        why = failure_headers("t", 0, i, "VALIDATE", DecodeError("magic", "no"), connector="trace")
        return f"{i}".encode(), why
    fields: dict[str, dict[str, Any]] = {
        "trace_events": {"event_id": f"{i:032x}", "kind": "END", "ts": START_US},
        "rewards": {"decision_id": f"d{i}", "decided_at": START_US},
        "rollups": {"agent": f"a{i}", "window_start": START_US, "version": version, "events": version},
        "alerts": {"alert_id": f"a{i}", "ts": START_US, "message": "m" * 200},
        "policies": {
            "version": i, "created_at": START_US, "canary_share": version / 8, "knobs": [{"name": "k", "levels": ["1"]}],
        },
        "policy_acts": {"act_id": f"a{i}", "ts": START_US, "outcome": "ASKED"},
        "ledger": {"policy": f"p{i}", "minute": START_US, "version": version, "n": version},
    }  # fmt: skip
    contract = {
        "trace_events": "trace_event", "rewards": "reward", "rollups": "rollup", "alerts": "alert",
        "policies": "policy_snapshot", "ledger": "ledger", "policy_acts": "policy_act",
    }[table]  # fmt: skip
    return codec(contract).encode(record(contract, **fields[table])), []
