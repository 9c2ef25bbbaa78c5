"""The life of a policy on the running platform: pinned, unpinned, retired, restored, frozen from the page, and rebuilt from the log."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.life.explaining import learned_again
from console.life.snapshots import published
from console.main import app
from console.rebuild import rebuild_policy
from console.stack import Stack
from console.target import Target
from learners.policies_file import load_policies
from sinks.clickhouse import connect
from steersman import Kind, PolicySubscriber, Router, Tracer
from steersman.decision import Decision
from steersman.errors import SteersmanError
from steersman.signing import generate_keys
from tests.page.browser import Tab, browse, executable

NAME = "life/one"
TOKEN = "t" * 32
POLICY = """
[[policy]]
name = "life/one"
baseline = { model = "plain" }
[policy.knobs]
model = ["plain", "good", "poor"]
[policy.reward]
window_s = 60.0
settle_ms = 20
[policy.exploration]
floor = 0.05
"""
WORLD = {"plain": 0.5, "good": 0.9, "poor": 0.1}
TURNED = {"plain": 0.5, "good": 0.1, "poor": 0.9}


@dataclass
class Service:
    """An agent service in this process, and the console beside it."""

    stack: Stack
    router: Router
    tracer: Tracer
    source: PolicySubscriber
    decisions: list[Decision] = field(default_factory=list)

    def work(self, n: int, world: dict[str, float]) -> Counter[str]:
        """Decide and be judged so many times; returns the arms taken."""
        taken: Counter[str] = Counter()
        for _ in range(n):
            with self.tracer.span(Kind.AGENT, operation="answer"):
                decision = self.router.choose(NAME, {})
            self.decisions.append(decision)
            model = str(decision.arm["model"])
            taken[model] += 1
            self.tracer.feedback(decision.decision_id, metric="quality", value=world[model])
            time.sleep(0.002)
        self.tracer.flush(10)
        return taken

    def until_taken(self, model: str, world: dict[str, float]) -> None:
        """Work until most decisions take an arm."""

        def mostly() -> bool:
            return self.work(50, world)[model] > 40

        assert self.stack.wait(mostly, 90.0), f"{model} is not taken: {self.work(50, world)}"

    def version(self) -> tuple[int, int]:
        held = self.source.get(NAME)
        assert held is not None
        return held.snapshot.epoch, held.snapshot.version

    def stands(self, stage: str, pinned: str = "") -> bool:
        held = self.source.get(NAME)
        return held is not None and (held.snapshot.stage, held.snapshot.pinned) == (stage, pinned)

    def steersman(self, *args: str, code: int = 0) -> list[Any]:
        """Run a command with --json against the running stack; returns what it printed."""
        done = CliRunner().invoke(app, [*args, "--json"])
        assert done.exit_code == code, (done.output, done.exception)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(connect(self.stack.clickhouse)) as client:
            return [tuple(row) for row in client.query(sql).result_rows]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("life")
    with pytest.MonkeyPatch.context() as patch:
        generate_keys(folder / "one.key", folder / "one.pub")
        for name, value in (
            ("HOME", folder / "home"), ("TOPIC_PREFIX", "life"), ("LEARNER_CHECKPOINT_INTERVAL_S", "1"), ("PAGE_TOKEN", TOKEN),
            ("POLICY_SIGNING_KEY", folder / "one.key"), ("POLICY_KEYS", folder / "one.pub"),
        ):  # fmt: skip
            patch.setenv(f"STEERSMAN_{name}", str(value))
        policies = folder / "policies.toml"
        policies.write_text(POLICY)
        with Stack("life", policies) as stack:
            stack.start(lambda step: None)
            with (
                Tracer("life", brokers=stack.brokers, topics=stack.topics) as tracer,
                PolicySubscriber(stack.brokers, topics=stack.topics) as source,
            ):
                assert source.wait_ready(30)
                yield Service(stack, Router(source, tracer, seed=5), tracer, source)


def test_pinned_unpinned_retired_and_rebuilt(service: Service) -> None:
    one, stack = service, service.stack
    one.until_taken("good", WORLD)
    epoch, version = one.version()
    # The worker publishes again before the version is looked for, so that it is no longer the newest.
    assert stack.wait(lambda: one.work(20, WORLD).total() == 20 and one.version() > (epoch, version), 60.0)
    name = f"{epoch}.{version}"

    [foreseen] = one.steersman("policy", "pin", NAME, name, "--why", "good is good", "--dry-run")
    assert (foreseen["outcome"], foreseen["standing"], foreseen["dry_run"]) == ("APPLIED", "pinned", True)
    assert one.source.get(NAME).snapshot.pinned == ""  # type: ignore[union-attr]
    [done] = one.steersman("policy", "pin", NAME, name, "--why", "good is good", "--who", "ann")
    assert (done["outcome"], done["standing"], done["who"]) == ("APPLIED", "pinned", "ann")
    assert stack.wait(lambda: one.stands("LIVE", name), 60.0)
    published = one.version()
    # The world turns. What is learned changes; what agents do does not.
    for _ in range(6):
        assert one.work(50, TURNED)["good"] > 35
    assert one.version() == published
    [unpinned] = one.steersman("policy", "unpin", NAME, "--why", "the world has turned")
    assert unpinned["at_version"] > published[1] + 200, "learning went on all the time"
    one.until_taken("poor", TURNED)

    [refused] = one.steersman("policy", "unpin", NAME, "--why", "again", code=4)
    assert refused["reason"] == "the policy is not pinned"
    [retired] = one.steersman("policy", "retire", NAME, "--why", "not needed any more")
    assert retired["standing"] == "retired"
    assert stack.wait(lambda: one.stands("RETIRED"), 60.0)
    assert one.work(20, TURNED) == {"plain": 20}
    assert {(d.mode, d.reason) for d in one.decisions[-20:]} == {("FALLBACK", "retired")}
    one.steersman("policy", "restore", NAME, "--why", "it is needed after all")
    assert stack.wait(lambda: one.stands("LIVE"), 60.0)
    one.until_taken("poor", TURNED)

    target = Target(stack.brokers, stack.clickhouse, stack.topics.prefix, "test")
    [spec] = load_policies(stack.policies)

    def rebuilt() -> bool:
        with contextlib.suppress(SteersmanError):
            return rebuild_policy(target, spec, stack.policies).identical
        return False

    assert stack.wait(rebuilt, 60.0), rebuild_policy(target, spec, stack.policies)

    acts = "SELECT act, outcome, who != '', standing, reason FROM v_policy_acts ORDER BY ts"
    wanted = [
        ("PIN", "APPLIED", True, "pinned", ""),
        ("UNPIN", "APPLIED", True, "live", ""),
        ("UNPIN", "REFUSED", True, "live", "the policy is not pinned"),
        ("RETIRE", "APPLIED", True, "retired", ""),
        ("RESTORE", "APPLIED", True, "live", ""),
    ]
    assert stack.wait(lambda: one.rows(acts) == wanted, 60.0), one.rows(acts)
    history = one.steersman("policy", "history", NAME, "--limit", "1000")
    assert {row["pinned"] for row in history if "stage" in row} == {"", name}
    assert [row["act"] for row in history if "act" in row] == ["RESTORE", "RETIRE", "UNPIN", "UNPIN", "PIN"]
    [difference] = one.steersman("policy", "diff", NAME, name, "now")
    shares = {level["what"]: (level["old"], level["new"]) for level in difference["levels"]}
    assert shares["model = good"][0] > 0.7 > 0.3 > shares["model = good"][1]
    assert any(weight["component"] == "quality" for weight in difference["weights"])


def test_a_decision_is_explained_with_the_probability_that_was_logged(service: Service) -> None:
    one, stack = service, service.stack
    one.work(30, TURNED)
    stored = "SELECT count() FROM v_decisions WHERE decision_id = '{}'"
    for decision in (one.decisions[-1], one.decisions[-20]):
        assert stack.wait(lambda d=decision: one.rows(stored.format(d.decision_id)) == [(1,)], 60.0)  # type: ignore[misc]
        [explained] = one.steersman("policy", "explain", decision.decision_id)
        assert explained["same"], explained
        assert explained["recomputed"]["propensity"] == pytest.approx(decision.propensity, abs=1e-12)
        assert set(explained["recomputed"]["arms"]) == {"model=plain", "model=good", "model=poor"}
        assert sum(explained["recomputed"]["probabilities"]) == pytest.approx(1.0)
        assert [part["component"] for part in explained["why"]] == ["quality", "cost", "latency", "failures"]
    # What is kept nowhere any more is learned again, to the byte.
    target = Target(stack.brokers, stack.clickhouse, stack.topics.prefix, "test")
    at = (int(explained["policy_epoch"]), int(explained["policy_version"]))
    [then] = learned_again(target, "default", NAME, at, stack.policies)
    [known] = [p for p in published(target, "default", NAME, at) if p.record["acts"] == then.record["acts"]]
    assert then.record == {**known.record, "signature": b""}


def test_a_plan_is_shown_and_applied_while_the_worker_runs(service: Service, tmp_path: Path) -> None:
    one, stack = service, service.stack
    candidate = tmp_path / "candidate.toml"
    candidate.write_text(POLICY.replace("floor = 0.05", "floor = 0.2"))
    [planned] = one.steersman("plan", "--policy-file", str(candidate), "--policies", str(stack.policies))
    assert (planned["effect"], planned["changes"]) == ("live at once", ["exploration.floor 0.05 -> 0.2"])
    assert stack.policies.read_text() == POLICY
    one.steersman("apply", str(candidate), "--policies", str(stack.policies), "--yes")

    def taken_over() -> bool:
        held = one.source.get(NAME)
        return held is not None and held.snapshot.floor == 0.2

    assert stack.wait(taken_over, 60.0)
    wider = tmp_path / "wider.toml"
    wider.write_text(candidate.read_text().replace('"poor"]', '"poor", "new"]'))
    [planned] = one.steersman("plan", "--policy-file", str(wider), "--policies", str(stack.policies))
    assert planned["effect"] == "new epoch"
    assert "model: new is new" in planned["changes"]
    assert planned["keeps"].startswith("what was learned of the 3 arms that stay; 1 new arms")
    # What was learned is carried over into the next epoch, live: nearly everybody goes on as before.
    one.until_taken("poor", TURNED)
    epoch = one.version()[0]
    one.steersman("apply", str(wider), "--policies", str(stack.policies), "--yes")
    assert stack.wait(lambda: one.version()[0] == epoch + 1, 60.0)
    assert one.work(100, {**TURNED, "new": 0.5})["poor"] > 45

    # A level goes, and a ceiling comes.
    narrower = tmp_path / "narrower.toml"
    narrower.write_text(
        candidate.read_text()
        .replace('["plain", "good", "poor"]', '["plain", "poor"]')
        .replace("[policy.exploration]", "[policy.reward.ceilings]\nfailures = 0.5\n[policy.exploration]")
    )
    [planned] = one.steersman("plan", "--policy-file", str(narrower), "--policies", str(stack.policies))
    assert (planned["effect"], planned["epoch"]) == ("new epoch", epoch + 1)
    assert {"model: good is gone", "model: new is gone"} <= set(planned["changes"])
    assert planned["keeps"].startswith("what was learned of the 2 arms that stay")
    one.steersman("apply", str(narrower), "--policies", str(stack.policies), "--yes")
    assert stack.wait(lambda: one.version()[0] == epoch + 2, 60.0)
    taken = one.work(100, TURNED)
    assert taken["poor"] > 60
    assert taken.keys() <= {"plain", "poor"}


def test_a_click_on_the_page_changes_what_agents_get(service: Service, tmp_path: Path) -> None:
    executable()
    one, stack = service, service.stack
    policy = f"{stack.page}/policy/{NAME}"

    async def click(tab: Tab, why: str, act: str, word: str) -> None:
        await tab.until("document.querySelector('#why') !== null")
        await tab.js(f"document.querySelector('#why').value = {why!r}")
        await tab.js(f"document.querySelector('#operate button[value={act}]').click()")
        await tab.until(
            f"document.querySelector('#told')?.classList.contains('good') && document.querySelector('#word').textContent === '{word}'"
        )
        assert f"the policy is {word}" in await tab.js("document.querySelector('#told').textContent")

    async def work(tab: Tab) -> None:
        await tab.look(1280, 900)
        await tab.open(stack.page, "document.querySelector('#token') !== null")
        await tab.js(f"document.querySelector('#token').value = {TOKEN!r}; document.querySelector('button').click()")
        await tab.until("document.querySelector('#live') !== null")
        await tab.open(policy, "document.querySelector('#operate') !== null")
        await click(tab, "the answers look odd", "FREEZE", "frozen")
        assert stack.wait(lambda: one.stands("FROZEN"), 60.0)
        await click(tab, "they <b>are</b> odd", "ROLLBACK", "shadow")
        assert stack.wait(lambda: one.stands("SHADOW"), 60.0)
        assert one.work(20, TURNED) == {"plain": 20}
        await click(tab, "look at it again", "PROMOTE", "canary")
        await tab.open(
            policy,
            "document.querySelector('#acts') !== null && document.querySelector('#acts').innerText.includes('they <b>are</b> odd')",
        )
        assert "page" in await tab.js("document.querySelector('#acts').innerText")
        await tab.shot(tmp_path / "operate.png")
        await tab.look(390, 844)
        assert await tab.js("document.documentElement.scrollWidth <= innerWidth")
        assert (await tab.js("document.querySelectorAll('main b').length"), tab.dialogs, tab.errors) == (0, [], [])
        # An old decision, long after: with kept weights, and its probability computed again.
        old = next(decision for decision in one.decisions if decision.policy_version is not None)
        await tab.open(f"{stack.page}/trace/{old.trace_id}", "document.querySelector('.decision details') !== null")
        said = await tab.js("document.querySelector('.decision details').textContent")
        assert "Weights of version 1." in said, said
        assert "computed again" in said, said
        assert (tab.dialogs, tab.errors) == ([], [])

    browse(tmp_path, work)
    assert stack.wait(
        lambda: (
            one.rows("SELECT act, outcome FROM v_policy_acts WHERE who = 'page' ORDER BY ts")
            == [("FREEZE", "APPLIED"), ("ROLLBACK", "APPLIED"), ("PROMOTE", "APPLIED")]
        ),
        60.0,
    )
