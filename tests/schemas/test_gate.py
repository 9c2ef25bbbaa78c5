"""The gate lets compatible drafts pass and refuses each kind of bad schema, saying which rule is broken."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas import gate
from schemas.compatibility import disagreements

Schema = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copy of the contracts and their history, to be broken."""
    for file in gate.ROOT.glob("*.avsc"):
        shutil.copy(file, tmp_path)
    shutil.copytree(gate.ROOT / "history", tmp_path / "history")
    return tmp_path


def edit(root: Path, contract: str, change: Callable[[Schema], object]) -> None:
    file = root / f"{contract}.avsc"
    schema = json.loads(file.read_text())
    change(schema)
    file.write_text(json.dumps(schema))


def field(schema: Schema, name: str) -> Schema:
    return next(f for f in schema["fields"] if f["name"] == name)


def add(schema: Schema, **parts: Any) -> None:
    schema["fields"].append({"name": "extra", "doc": "Extra; unit: none.", **parts})


def rules(root: Path) -> set[str]:
    return {finding.rule for finding in gate.check(root)}


def test_the_contracts_pass_and_equal_their_last_release() -> None:
    assert gate.check() == []
    assert gate.drafts() == [], "contracts differ from their last release: python -m schemas.gate --release"


SELF: Schema = {"type": "record", "name": "Node", "doc": "x", "fields": []}
SELF["fields"] = [{"name": "next", "type": ["null", "Node"], "doc": "unit: none"}]
EMPTY = {"type": "record", "name": "Nothing", "doc": "x", "fields": []}


def deep(levels: int) -> Any:
    return "int" if levels == 0 else {"type": "array", "items": deep(levels - 1)}


def enum(**parts: Any) -> Schema:
    return {"type": "enum", "name": "E", "symbols": ["A", "B"], "doc": "x", **parts}


BAD: list[tuple[str, str, Callable[[Schema], object]]] = [
    ("unit", "trace_event", lambda s: field(s, "agent").update(doc="Name of the agent.")),
    ("unit", "trace_event", lambda s: field(s, "agent").pop("doc")),
    ("unit", "policy_snapshot", lambda s: field(s, "tensors")["type"]["items"]["fields"][0].pop("doc")),
    ("doc", "alert", lambda s: s.pop("doc")),
    ("doc", "alert", lambda s: field(s, "severity")["type"].pop("doc")),
    ("recursion", "policy_snapshot", lambda s: add(s, type=SELF, default={"next": None})),
    ("recursion", "alert", lambda s: add(s, type=["null", "Alert"], default=None)),
    ("recursion", "alert", lambda s: add(s, type={"type": "array", "items": "steersman.Alert"}, default=[])),
    ("reference", "alert", lambda s: add(s, type="Severity", default="UNKNOWN")),
    ("zero_width", "alert", lambda s: add(s, type={"type": "array", "items": "null"}, default=[])),
    ("zero_width", "alert", lambda s: add(s, type={"type": "array", "items": EMPTY}, default=[])),
    (
        "zero_width",
        "alert",
        lambda s: add(s, type={"type": "array", "items": {"type": "fixed", "name": "Z", "size": 0}}, default=[]),
    ),
    ("zero_width", "alert", lambda s: add(s, type={"type": "map", "values": "null"}, default={})),
    ("map", "trace_event", lambda s: add(s, type={"type": "map", "values": "string"}, default={})),
    ("nested", "trace_event", lambda s: add(s, type=["null", EMPTY], default=None)),
    ("enum_default", "alert", lambda s: add(s, type=enum(), default="A")),
    ("enum_default", "alert", lambda s: add(s, type=enum(default="C"), default="A")),
    ("depth", "alert", lambda s: add(s, type=deep(9), default=[])),
    (
        "fields",
        "alert",
        lambda s: s["fields"].extend(
            [{"name": f"f{i}", "type": "int", "doc": "unit: none", "default": 0} for i in range(500)]
        ),
    ),
    ("parse", "alert", lambda s: add(s, type="int", default="text")),
    ("parse", "alert", lambda s: add(s, type=7)),
    ("no_default", "alert", lambda s: add(s, type="int")),
    ("no_default", "policy_snapshot", lambda s: add(field(s, "tensors")["type"]["items"], type="int")),
    (
        "shared_default",
        "policy_snapshot",
        lambda s: add(field(s, "tensors")["type"]["items"], type={"type": "array", "items": "int"}, default=[]),
    ),
    ("removed", "alert", lambda s: s["fields"].remove(field(s, "message"))),
    ("removed", "alert", lambda s: field(s, "message").update(name="text", default="")),
    ("type", "alert", lambda s: field(s, "source_partition").update(type="long")),
    ("type", "alert", lambda s: field(s, "message").update(type="bytes")),
    ("type", "alert", lambda s: field(s, "message").update(type=["null", "string"])),
    ("type", "trace_event", lambda s: field(s, "features")["type"].update(items="double")),
    ("type", "alert", lambda s: field(s, "ts")["type"].update(logicalType="timestamp-millis")),
    ("renamed", "alert", lambda s: s.update(name="Alarm")),
    ("renamed", "alert", lambda s: field(s, "severity")["type"].update(name="Urgency")),
]


@pytest.mark.parametrize(("rule", "contract", "change"), BAD, ids=[f"{n}-{b[0]}" for n, b in enumerate(BAD)])
def test_a_bad_schema_is_refused_by_its_rule(
    root: Path, rule: str, contract: str, change: Callable[[Schema], object]
) -> None:
    released = len(gate.history(root, contract))
    edit(root, contract, change)
    assert rule in rules(root)
    with pytest.raises(ValueError, match=contract):
        gate.release(root)
    assert len(gate.history(root, contract)) == released


GOOD: list[tuple[str, Callable[[Schema], object]]] = [
    ("trace_event", lambda s: add(s, type=["null", "string"], default=None)),
    ("trace_event", lambda s: field(s, "kind")["type"]["symbols"].append("HANDOVER")),
    ("trace_event", lambda s: field(s, "mode")["type"][1]["symbols"].insert(1, "DUEL")),
    ("trace_event", lambda s: field(s, "kind")["type"]["symbols"].remove("REASONING")),
    ("trace_event", lambda s: s["fields"].remove(field(s, "comment"))),
    ("trace_event", lambda s: s["fields"].reverse()),
    ("policy_snapshot", lambda s: add(field(s, "tensors")["type"]["items"], type="int", default=3)),
    ("policy_snapshot", lambda s: add(s, type="bytes", default="\u00ff")),
    ("alert", lambda s: field(s, "message").update(doc="Better words; unit: text.")),
]


@pytest.mark.parametrize(("contract", "change"), GOOD)
def test_a_compatible_draft_passes_and_becomes_the_next_version(
    root: Path, contract: str, change: Callable[[Schema], object]
) -> None:
    released = len(gate.history(root, contract))
    edit(root, contract, change)
    assert gate.check(root) == []
    assert gate.drafts(root) == [contract]
    assert [file.name for file in gate.release(root)] == [f"{released + 1}.avsc"]
    assert gate.drafts(root) == []
    assert gate.release(root) == []
    assert gate.check(root) == []


def test_every_released_version_counts_not_only_the_last(root: Path) -> None:
    edit(root, "alert", lambda s: add(s, type="int", default=1))
    gate.release(root)
    edit(root, "alert", lambda s: field(s, "extra").pop("default"))
    assert [str(finding) for finding in gate.check(root)] == [
        "alert: field extra: field is new and has no default, so records without it cannot be read "
        "(against version 1) [no_default]"
    ]


def test_history_without_gaps_and_without_orphans(root: Path) -> None:
    (root / "history" / "alert" / "1.avsc").rename(root / "history" / "alert" / "2.avsc")
    (root / "rollup.avsc").unlink()
    (root / "reward.avsc").write_text("{")
    assert {"numbers", "vanished", "json"} <= rules(root)


def test_generated_data_finds_what_a_missing_rule_would_let_pass() -> None:
    """The proof by data stands on its own: it refuses pairs without any rule being asked."""
    schema = json.loads((gate.ROOT / "alert.avsc").read_text())
    for change in (
        lambda s: field(s, "ts").update(type="int"),
        lambda s: s["fields"][4].update(type={"type": "enum", "name": "Severity", "symbols": ["INFO"]}),
        lambda s: field(s, "message").update(name="text"),
        lambda s: add(s, type="int"),
        lambda s: field(s, "value").update(type=["null", "string"]),
    ):
        other = copy.deepcopy(schema)
        change(other)
        assert disagreements(schema, other) or disagreements(other, schema)
    assert disagreements(schema, schema) == []


def test_command_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.main(["--root", str(root)]) == 0
    edit(root, "alert", lambda s: add(s, type="int", default=0))
    assert gate.main(["--root", str(root), "--release"]) == 0
    assert "released history/alert/2.avsc" in capsys.readouterr().out
    edit(root, "alert", lambda s: s["fields"].remove(field(s, "message")))
    assert gate.main(["--root", str(root), "--release"]) == 4
    assert "alert: field message" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        gate.main(["--root", str(root / "nowhere")])
    assert stop.value.code == 2


def test_module_runs_without_the_rest_of_the_repository() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "schemas.gate"],
        cwd=gate.ROOT.parent,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
