"""The recorded runs through the real trace stage: what it computes is what the file says, on every run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.traces import METRIC, Run, load_runs, main, micro_usd, run_events, start_us, timeline
from learners.policies_file import load_policies
from steersman import Codec, ConfigError, MemorySink, Tracer
from streams.trace_stage import StageOutput, StageSettings, TraceStage

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT.parent / "shared" / "data" / "tau2_traces.jsonl.gz"

SMALL: Run = {
    "domain": "airline", "agent": "llm_agent", "model": "gpt-4.1", "user_model": "gpt-4.1", "task_id": "7",
    "reward": 1.0, "termination": "user_stop", "duration_s": 9.5, "start_time": "2025-10-31T07:34:59.208917",
    "agent_cost_usd": 0.0000012, "tool_errors": 1, "prompt_tokens": 30, "completion_tokens": 3,
    "steps": [
        {"t": 0.0, "role": "assistant", "text": "Hi!"},
        {"t": 1.0, "role": "user", "ptok": 5, "ctok": 1, "cost": 0.002, "text": "Help"},
        {"t": 3.0, "role": "assistant", "ptok": 10, "ctok": 1, "cost": 0.0000004, "tools": [{"name": "find"}]},
        {"t": 4.0, "role": "tool", "error": True},
        {"t": 6.0, "role": "assistant", "ptok": 10, "ctok": 1, "cost": 0.0000004},
        {"t": 9.0, "role": "assistant", "ptok": 10, "ctok": 1, "cost": 0.0000004},
    ],
}  # fmt: skip


def through_the_stage(events: list[dict[str, Any]]) -> StageOutput:
    """Send events as a tracer would, over the wire form, to a partition of their own, then let the time pass."""
    sink, codec = MemorySink(), Codec("trace_event")
    tracer = Tracer("tau2", sink=sink)
    assert all(tracer.emit(dict(event)) for event in events)
    records = [codec.decode(codec.encode(record)) for record in sink.records]
    policies = load_policies(ROOT / "policies.toml")
    stage = TraceStage(policies, 0, StageSettings(max_behind_us=10 * 365 * 86_400_000_000))
    last = events[-1]["ts"]
    tick = {**records[-1], "kind": "TICK", "ts": last + 60_000_000}
    stamped = [(offset, event["ts"], event) for offset, event in enumerate([*records, tick])]
    return stage.process(stamped)


def test_a_small_run() -> None:
    out = through_the_stage(run_events(SMALL, 0, start_us(SMALL)))
    assert not out.rejected
    (reward,) = out.rewards
    assert reward["quality"] == 1.0
    assert reward["cost_micro_usd"] == 1  # 3 x 0.4 micro-dollars, rounded once; the user's are not the agent's
    assert reward["latency_us"] == 9_500_000
    assert (reward["input_tokens"], reward["output_tokens"], reward["failures"]) == (30, 3, 1)


def test_same_arguments_same_events_and_another_salt_other_ids() -> None:
    one = run_events(SMALL, 3, 0, "a")
    assert one == run_events(SMALL, 3, 0, "a")
    other = run_events(SMALL, 3, 0, "b")
    assert not {event["event_id"] for event in one} & {event["event_id"] for event in other}
    assert len({event["event_id"] for event in one}) == len(one)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    if not FILE.is_file():
        pytest.skip(f"the recorded runs are not here: {FILE.name} is expected in shared/data beside the repository")
    return load_runs(FILE)


def test_every_recorded_run_equals_the_file(runs: list[Run]) -> None:
    events = list(timeline(runs))
    out = through_the_stage(events)
    assert not out.rejected
    rewards = {reward["trace_id"]: reward for reward in out.rewards}
    assert len(rewards) == len(out.rewards) == len(runs) == 788
    for number, run in enumerate(runs):
        reward = rewards[run_events(run, number, start_us(run))[0]["trace_id"]]
        assert reward["quality"] == run["reward"]
        assert reward["cost_micro_usd"] == micro_usd(run["agent_cost_usd"] or 0.0)
        assert reward["latency_us"] == round(run["duration_s"] * 1e6)
        assert reward["input_tokens"] == (run["prompt_tokens"] or 0)
        assert reward["output_tokens"] == (run["completion_tokens"] or 0)
        assert reward["failures"] == run["tool_errors"]
        assert reward["arm"] == f"model={run['model']}"


def test_tool_calls_and_errors_of_every_run(runs: list[Run]) -> None:
    for number, run in enumerate(runs):
        events = run_events(run, number, start_us(run))
        agent = next(event["parent_span_id"] for event in events if event["kind"] == "DECISION")
        tools = [event for event in events if event["kind"] == "TOOL_CALL"]
        assert sum(event["parent_span_id"] == agent for event in tools) == run["tool_calls"]
        assert sum(event["status"] == "ERROR" for event in tools) == run["tool_errors"]
        kinds = Counter(str(event["kind"]) for event in events)
        assert kinds["FEEDBACK"] == kinds["END"] == kinds["DECISION"] == 1
        assert any(event.get("metric") == METRIC for event in events)


def test_a_wrong_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="missing"):
        load_runs(tmp_path / "missing.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        load_runs(other)
    assert main(["--file", str(other)]) == 1
    assert "line 1 is not a recorded run" in capsys.readouterr().err
