"""Ceilings on tool calls and of a tenant on the running platform: set live, kept, explained, and made again from the log to the bit."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from console.life.explaining import show
from console.life.plan import LIVE
from console.life.planning import planned
from console.policy import held, show_one
from console.rebuild import rebuild_policy
from console.stack import Stack
from console.target import Target
from learners.policies_file import load_policies
from sinks.clickhouse import connect
from steersman import Kind, PolicySubscriber, Router, Tracer
from steersman.errors import SteersmanError

POLICY = """
[[policy]]
name = "paced/one"
baseline = { tools = 1 }
[policy.knobs]
tools = [1, 6]
[[policy.features]]
kind = "categorical"
name = "tenant"
values = ["acme", "globex"]
[policy.reward]
window_s = 60.0
settle_ms = 20
"""
CEILINGS = POLICY + "tenant_ceilings = { acme = { tool_calls = 2.0 } }\n"
STEADY = POLICY + "tenant_ceilings = { acme = { tool_calls = 2.0, steady = true } }\n"


def test_a_ceiling_of_a_tenant_is_set_live_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEERSMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEERSMAN_TOPIC_PREFIX", "paced")
    monkeypatch.setenv("STEERSMAN_LEARNER_CHECKPOINT_INTERVAL_S", "1")
    path, wanted = tmp_path / "policies.toml", tmp_path / "wanted.toml"
    path.write_text(POLICY)
    wanted.write_text(CEILINGS)
    with Stack("paced", path) as stack:
        stack.start(lambda step: None)
        target = Target(stack.brokers, stack.clickhouse, stack.topics.prefix, "test")
        with (
            Tracer("paced", brokers=stack.brokers, topics=stack.topics) as tracer,
            PolicySubscriber(stack.brokers, topics=stack.topics) as source,
        ):
            source.wait_ready(30)
            router = Router(source, tracer, seed=3)

            def request(i: int) -> tuple[str, int, str]:
                """One request of a tenant: what it was allowed, and the decision's id."""
                tenant = "acme" if i % 2 else "globex"
                with tracer.span(Kind.AGENT, operation="answer"):
                    decision = router.choose("paced/one", {"tenant": tenant})
                    tools = int(decision.arm["tools"])
                    for _ in range(tools):
                        with tracer.span(Kind.TOOL_CALL, operation="search"):
                            pass
                tracer.feedback(decision, "quality", 0.1 * tools)
                time.sleep(0.004)
                return tenant, tools, decision.decision_id

            free = [request(i) for i in range(150)]
            assert stack.wait(lambda: held(target, "default")["paced/one"].snapshot.version >= 120, 30.0)
            free = [request(i) for i in range(60)]
            assert stack.wait(lambda: [one.effect for one in planned(target, wanted, path)] == [LIVE], 15.0)
            path.write_text(CEILINGS)
            assert stack.wait(lambda: held(target, "default")["paced/one"].snapshot.revision == 1, 15.0)
            for i in range(200):
                request(i)
            paced = [request(i) for i in range(200)]
            [price] = held(target, "default")["paced/one"].snapshot.multipliers
            assert (price.tenant, price.component) == ("acme", "tool_calls")
            assert price.value > 0
            path.write_text(STEADY)
            assert stack.wait(lambda: held(target, "default")["paced/one"].snapshot.revision == 2, 15.0)
            steady = [request(i) for i in range(200)]
        mean = {
            (name, tenant): sum(tools for who, tools, _ in made if who == tenant)
            / sum(who == tenant for who, *_ in made)
            for name, made in (("free", free), ("paced", paced), ("steady", steady[100:]))
            for tenant in ("acme", "globex")
        }
        assert mean["free", "acme"] > 5.0, mean
        assert min(mean[how, "globex"] for how in ("free", "paced", "steady")) > 5.0, mean
        assert mean["paced", "acme"] == pytest.approx(2.0, abs=1.0), mean
        assert mean["steady", "acme"] == pytest.approx(2.0, abs=1.0), mean
        [spec] = load_policies(path)
        total = 150 + 60 + 200 + 200 + 200

        def rows(query: str) -> list[tuple[Any, ...]]:
            with contextlib.closing(connect(target.reading)) as client:
                return [tuple(row) for row in client.query(query).result_rows]

        calls = "SELECT arm, tool_calls FROM v_rewards"
        assert stack.wait(lambda: len(rows(calls)) == len(rows("SELECT 1 FROM v_decisions")) == total, 30.0)
        assert set(rows(calls)) == {("tools=1", 1), ("tools=6", 6)}
        published = held(target, "default")["paced/one"].snapshot
        [price] = published.multipliers
        assert (price.tenant, price.component, published.tenant_feature) == ("acme", "tool_calls", "tenant")
        [near] = published.squares
        assert (near.tenant, near.component) == ("acme", "tool_calls")
        assert near.weight > 0
        stored = (
            f"SELECT squares FROM v_policies WHERE epoch = {published.epoch} AND version = {published.version} "
            f"AND acts = {published.acts}"
        )
        assert stack.wait(lambda: [json.loads(s) for (s,) in rows(stored)] == [[near._asdict()]], 30.0)
        capsys.readouterr()
        show_one(target, "default", "paced/one", as_json=False)
        shown = capsys.readouterr().out
        assert "ceiling of tenant acme: one tool call costs" in shown
        assert "steady ceiling of tenant acme: the square of tool_calls off " in shown
        for tenant, _, decision in (*paced[-4:], *steady[-4:]):
            assert show(target, "default", decision, path, as_json=True) == 0
            told = json.loads(capsys.readouterr().out)
            assert told["same"]
            assert [one["tenant"] for one in told["snapshot"]["multipliers"]] == ["acme"] * (tenant == "acme")
            assert {one["tenant"] for one in told["snapshot"]["squares"]} <= ({"acme"} if tenant == "acme" else set())

        def rebuilt() -> bool:
            with contextlib.suppress(SteersmanError):  # nothing is saved before the first checkpoint
                return rebuild_policy(target, spec, path).identical
            return False

        assert stack.wait(rebuilt, 15.0)
