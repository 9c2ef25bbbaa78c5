"""One run: a platform of real processes, load on it, everything killed on schedule, and at its end the check."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from console.children import Child
from tests.faults.check import Finding, check
from tests.faults.fleet import SINK, Fleet, KillSchedule, Strike
from tests.faults.gateway import Gateway
from tests.faults.platform import Platform, Say
from tests.faults.proxy import Proxy
from tests.faults.traces import Mix

FAULTS = ("broker_kill", "broker_pause", "rebalance", "clickhouse", "link")
"""Faults beside the kills of workers and sink: see `Scenario`."""
MIX = Mix(duplicates=0.3, poison=0.01, bombs=0.001, garbage=0.005, disorder=0.2)
_TRIES = 8
Action = tuple[float, str, Callable[[], None]]
"""Seconds since the one before, what it is, and what does it."""


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes
    ----------
    seed
        Of load, kills and the order of the faults.
    events, kills
        Records sent and processes killed, about.
    faults
        Some of `FAULTS`.
    mix
        What is wrong with the load.
    gap_s
        Shortest and longest time between two kills; unit: seconds.
    pause_s
        How long the broker is stopped by `broker_pause`; unit: seconds.
    session_s
        Time after which the group gives up a silent worker: the longer, the slower a recovery from a death; the shorter,
        the sooner a worker counts as dead that only waits for a processor; unit: seconds.
    settle_s
        Longest time until everything is processed, once nothing is killed any more; unit: seconds.
    """

    seed: int
    events: int
    kills: int
    faults: frozenset[str] = frozenset(FAULTS)
    mix: Mix = MIX
    gap_s: tuple[float, float] = (1.5, 4.0)
    pause_s: float = 20.0
    session_s: float = 6.0
    settle_s: float = 180.0


@dataclass
class Outcome:
    """What came of a run.

    Attributes
    ----------
    findings
        The comparisons of `tests.faults.check`.
    verify
        What ``steersman verify`` said, None where it was not run.
    deaths
        Number of deaths by how they came about: ``kill -9``, a fault point, or ``exit N``.
    missed
        Fault points that were not come by.
    worst_recovery_s
        Longest of the `recoveries` that nothing disturbed; `worst_disturbed_recovery_s`: with another death, start or end, or
        with the broker away in between.
    """

    seed: int
    records: int = 0
    acked: int = 0
    findings: list[Finding] = field(default_factory=list)
    verify: dict[str, Any] | None = None
    deaths: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    recoveries: int = 0
    worst_recovery_s: float = 0.0
    worst_disturbed_recovery_s: float = 0.0
    took_s: float = 0.0

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings) and (self.verify is None or bool(self.verify["ok"]))

    @property
    def kills(self) -> int:
        """Deaths that were inflicted, not processes that gave up by themselves, as a worker does that finds no broker."""
        return sum(count for how, count in self.deaths.items() if not how.startswith("exit"))

    @property
    def lost(self) -> int:
        return sum(finding.lost for finding in self.findings)

    @property
    def doubled(self) -> int:
        return sum(finding.doubled + finding.altered for finding in self.findings)

    @property
    def written_again(self) -> int:
        """Records that the producers' clients wrote once more by themselves."""
        return sum(finding.written_again for finding in self.findings)

    def _verified(self) -> dict[str, Any] | None:
        """What ``steersman verify`` compared, and in full what was not equal."""
        if self.verify is None:
            return None
        equations = self.verify["equations"]
        return {
            "ok": self.verify["ok"],
            "equations": [one["id"] for one in equations],
            "wrong": [one for one in equations if not one["ok"]],
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed, "records": self.records, "acked": self.acked, "kills": self.kills, "lost": self.lost,
            "doubled": self.doubled, "written_again": self.written_again, "ok": self.ok, "worst_recovery_s": round(self.worst_recovery_s, 2),
            "recoveries": self.recoveries, "worst_disturbed_recovery_s": round(self.worst_disturbed_recovery_s, 2), "took_s": round(self.took_s, 1),
            "deaths": dict(sorted(self.deaths.items())), "missed": self.missed, "verify": self._verified(),
            "findings": [str(finding) for finding in self.findings],
        }  # fmt: skip


class Scenario:
    """The platform of one run; a context manager, which leaves no process behind.

    ``broker_kill``: the broker is killed and comes back after 5 s on its data. ``broker_pause``: it is stopped in its
    tracks. ``rebalance``: 1 to 3 to 2 to 4 workers. ``clickhouse``: killed after an insert and before its reply, a reply
    lost, and errors 252, 241, 164 and 242. ``link``: all clients reach the broker by a proxy, which is slow, resets them, and
    swallows everything for a while.

    Parameters
    ----------
    plan
        What to do.
    folder
        Where data and logs go.
    say
        Takes progress.

    Attributes
    ----------
    ledger
        The producer's ledger.
    outcome
        What has come of it so far.
    """

    def __init__(self, plan: Plan, folder: Path, say: Say = print):
        self.plan = plan
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"
        self.outcome = Outcome(plan.seed)
        self._say = say
        self._started = time.monotonic()
        self._rng = random.Random(f"scenario {plan.seed}")
        self._load: Child | None = None
        self._platform: Platform | None = None
        self._proxy: Proxy | None = None
        self._stack = contextlib.ExitStack()

    def run(self) -> Outcome:
        """Do all of it; AssertionError or ChildFailed when the platform does not get through."""
        plan = self.plan
        outcome = self.outcome
        self._start()
        actions = self._actions()
        # Slowly enough that nothing is killed without load even where a restart takes long; the rest follows at full speed.
        under_load_s = max(10.0, 2 * sum(gap for gap, *_ in actions) + 4.0 * len(actions))
        rate = plan.events / under_load_s
        self._note(f"load: {plan.events} records at {rate:.0f}/s")
        self._load = self.platform.load(plan.seed, plan.events, rate, self.ledger, plan.mix)
        for gap, name, act in actions:
            self._pass_time(gap)
            self._note(name)
            act()
        self._come_by_every_point()
        for turn in range(_TRIES):
            self._strike_again(turn)
        self._note("no more faults; waiting for the rest of the load and for everything to be processed")
        self.load.signal(signal.SIGUSR1)
        self.platform.wait_until(lambda: self.load.exit_code is not None, plan.settle_s, "the end of the load")
        assert self.load.exit_code == 0, self.load.tail()
        summary = json.loads(self.load.tail(1))
        outcome.records, outcome.acked = summary["records"], summary["acked"]
        outcome.verify = self.platform.settle(plan.settle_s, [self.ledger])
        self._note("checking")
        outcome.deaths.update(death.how.partition(":")[0] for death in self.fleet.deaths)
        outcome.missed = list(self.fleet.missed)
        for death in self.fleet.deaths:
            if death.how.startswith("exit"):
                continue
            took = death.recovered_s if death.recovered_s is not None else time.monotonic() - death.at
            name = "worst_disturbed_recovery_s" if death.disturbed else "worst_recovery_s"
            setattr(outcome, name, max(getattr(outcome, name), took))
            outcome.recoveries += not death.disturbed
        outcome.findings = self.check(self.ledger)
        outcome.took_s = time.monotonic() - self._started
        return outcome

    def check(self, ledger: Path) -> list[Finding]:
        """Compare what there is now with a ledger."""
        return check(self.platform.kafka.direct, self.gateway.url, self.platform.topics, [ledger])

    # -- parts

    @property
    def platform(self) -> Platform:
        assert self._platform is not None
        return self._platform

    @property
    def fleet(self) -> Fleet:
        return self.platform.fleet

    @property
    def gateway(self) -> Gateway:
        return self.platform.gateway

    @property
    def load(self) -> Child:
        assert self._load is not None
        return self._load

    def _start(self) -> None:
        self._note("starting broker, ClickHouse, workers and sink")
        if "link" in self.plan.faults:
            self._proxy = Proxy()
            self._stack.callback(self._proxy.close)
        platform = Platform(
            self.folder,
            f"faults-{self.plan.seed}",
            proxy=self._proxy,
            workers=1 if "rebalance" in self.plan.faults else 2,
            env={"STEERSMAN_SESSION_TIMEOUT_S": str(self.plan.session_s)},
        )
        self._platform = self._stack.enter_context(platform)

    # -- faults

    def _actions(self) -> list[Action]:
        """Kills and faults in an order of chance; those of one kind in their own order."""
        plan, rng = self.plan, self._rng
        strikes = KillSchedule(plan.seed, plan.kills, *plan.gap_s).strikes
        kinds: dict[str, list[Action]] = {"kill": [(s.after_s, str(s), self._striking(s)) for s in strikes]}

        def at(kind: str, name: str, act: Callable[[], None], gap_s: float = 2.0) -> None:
            if kind in plan.faults:
                kinds.setdefault(kind, []).append((gap_s, name, act))

        at("broker_kill", "broker: kill -9, back after 5 s", self._kill_broker)
        at("broker_pause", f"broker: SIGSTOP for {plan.pause_s:g} s", self._pause_broker)
        for count in (3, 2, 4):
            at("rebalance", f"{count} workers", lambda n=count: self._scale(n), 5.0)  # type: ignore[misc]
        at("clickhouse", "ClickHouse: killed after an insert, before its reply", self._kill_clickhouse)
        at("clickhouse", "ClickHouse: three replies lost", lambda: self.gateway.inject("reply_lost", count=3))
        for code in (252, 241, 164, 242):
            act = lambda c=code: self.gateway.inject("error", code=c, count=3)  # noqa: E731
            at("clickhouse", f"ClickHouse: error {code}, three times", act)
        at("clickhouse", "ClickHouse: killed after an insert, before its reply", self._kill_clickhouse)
        if self._proxy is not None:
            at("link", "link: 100 ms and 1 Mbit/s for 8 s", lambda: self._cut(self._slow, 8))
            at("link", "link: reset for 2 s", lambda: self._cut(self._proxy_do("reset"), 2))
            at("link", "link: black hole for 10 s", lambda: self._cut(self._proxy_do("blackhole"), 10))
        actions: list[Action] = []
        while waiting := [kind for kind in kinds if kinds[kind]]:
            # As likely as there are left of the kind, so that the kinds are spread over the run.
            kind = rng.choices(waiting, [len(kinds[kind]) for kind in waiting])[0]
            actions.append(kinds[kind].pop(0))
        return actions

    def _striking(self, strike: Strike) -> Callable[[], None]:
        def act() -> None:
            self.platform.wait_until(lambda: bool(self._hittable(strike)), 60, "a victim to be up", each=self._disarm)
            hittable = self._hittable(strike)
            hit = self.fleet.kill if strike.hard else self.fleet.restart
            hit(hittable[strike.worker % len(hittable)], then=strike.point)

        return act

    def _hittable(self, strike: Strike) -> list[str]:
        names = [SINK] if strike.sink else self.fleet.workers
        return [name for name in names if self.fleet.up(name)]

    def _scale(self, workers: int) -> None:
        if workers < len(self.fleet.workers):
            # One that is sent home never comes by its fault point.
            self._come_by_every_point()
        self.fleet.scale(workers)

    def _strike_again(self, turn: int) -> None:
        """Let others come by the points that were missed: who owns nothing of a stage, or only partitions without records, comes by none of its points."""
        for number, point in enumerate(self.fleet.take_missed()):
            strike = Strike(0.0, point.startswith(SINK), turn + number, point, hard=True)
            self._note(f"once more: {strike}")
            self._striking(strike)()
            self._come_by_every_point()

    def _come_by_every_point(self) -> None:
        self.platform.wait_until(lambda: not self.fleet.armed, 60, "every fault point to be come by", each=self._disarm)

    def _disarm(self) -> None:
        self.fleet.disarm(40)

    def _kill_broker(self) -> None:
        self.fleet.outage(True)
        self.platform.kafka.brokers[0].child.kill()
        self._pass_time(5)
        self.platform.kafka.restart(0)
        self.fleet.outage(False)

    def _pause_broker(self) -> None:
        self.fleet.outage(True)
        self.platform.kafka.brokers[0].child.signal(signal.SIGSTOP)
        try:
            self._pass_time(self.plan.pause_s)
        finally:
            self.platform.kafka.brokers[0].child.signal(signal.SIGCONT)
        self.fleet.outage(False)

    def _kill_clickhouse(self) -> None:
        self.gateway.inject("killed", match="INSERT INTO")
        self.platform.wait_until(lambda: self.gateway.child.exit_code is not None, 90, "an insert to die of")
        assert self.gateway.child.exit_code == 137, self.gateway.child.tail()
        self.gateway.restart()

    def _cut(self, how: Callable[[], None], for_s: float) -> None:
        assert self._proxy is not None
        self.fleet.outage(True)
        how()
        self._pass_time(for_s)
        self._proxy.restore()
        self.fleet.outage(False)

    def _slow(self) -> None:
        assert self._proxy is not None
        self._proxy.slow(latency_ms=100, bytes_per_s=125_000)

    def _proxy_do(self, name: str) -> Callable[[], None]:
        act: Callable[[], None] = getattr(self._proxy, name)
        return act

    # -- time

    def _pass_time(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _note(self, text: str) -> None:
        self._say(f"seed {self.plan.seed} {time.monotonic() - self._started:6.1f} s  {text}")

    def __enter__(self) -> Scenario:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()
