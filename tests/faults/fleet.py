"""Worker and sink processes under an orchestrator that starts again whatever dies, and takes the time of it."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from console.children import Child, python
from steersman import fault_points
from tests.faults.progress import GroupWatch, Progress

SINK = "sink"
POINTS = (
    *(
        f"{stage}.{point}"
        for stage in ("trace", "learn")
        for point in (
            "fenced", "restored", "outputs_sent", "outputs_delivered", "keys_delivered", "state_delivered", "acknowledged",
        )
    ),
    *(f"{SINK}.{point}" for point in ("before_insert", "inserted", "written", "offsets_stored")),
)  # fmt: skip
"""Fault points of workers and sink, see `steersman.fault_points`."""
_RESTART_AFTER_S = 0.2
_LOOK_EVERY_S = 0.25


def is_sink(name: str) -> bool:
    """Whether a process is a sink, by its name; else it is a worker."""
    return name.startswith(SINK)


@dataclass
class Death:
    """A process that died, and how long it took until its group had got over it.

    Attributes
    ----------
    who
        Name of the process.
    how
        ``kill -9``, the fault point, or ``exit N`` when it died by itself.
    at
        Monotonic time of it; unit: seconds.
    recovered_s
        From the death until the committed offset of every partition that had something to do moved again; None
        until then.
    disturbed
        Whether something else came in between: another death, start or end of its group, or the broker went away.
    """

    who: str
    how: str
    at: float
    recovered_s: float | None = None
    disturbed: bool = False
    _before: Progress | None = field(default=None, repr=False)

    def saw(self, looked_at: float, progress: Progress) -> None:
        """Take a look at its group that began at that time."""
        if self.recovered_s is not None or looked_at < self.at:
            return
        if self._before is None:
            self._before = progress
        if progress.moved_since(self._before):
            self.recovered_s = time.monotonic() - self.at


@dataclass
class _Member:
    name: str
    command: Sequence[str]
    child: Child
    since: float
    log_bytes: int  # of its log when it was started
    point: str | None = None  # armed in the running process
    next_point: str | None = None  # to arm in the next one
    expected: str | None = None  # how it is being killed


class Fleet:
    """The processes.

    Parameters
    ----------
    folder
        Where their logs go.
    env
        Environment in which they find everything.
    worker_group, sink_group
        The consumer groups, to see who has recovered.
    worker
        Makes the command of the worker of a name.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        worker_group: GroupWatch,
        sink_group: GroupWatch,
        worker: Callable[[str], Sequence[str]] = lambda name: python("streams", "worker"),
    ):
        self._worker = worker
        self.deaths: list[Death] = []
        self.missed: list[str] = []
        self._folder = folder
        self._env = dict(env)
        self._groups = {"worker": worker_group, SINK: sink_group}
        self._members: dict[str, _Member] = {}
        self._outage = False
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._supervise, name="supervisor", daemon=True),
            threading.Thread(target=self._watch, name="watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # -- members

    @property
    def workers(self) -> list[str]:
        """Names of the workers that are meant to run."""
        with self._lock:
            return sorted(name for name in self._members if not is_sink(name))

    def scale(self, workers: int) -> None:
        """Start or stop (in an orderly way) workers until there are so many."""
        names = self.workers
        for name in names[workers:]:
            self.retire(name)
        free = (f"worker-{n}" for n in range(1000) if f"worker-{n}" not in names)
        for _ in range(workers - len(names)):
            name = next(free)
            self._enlist(name, self._worker(name))

    @property
    def sinks(self) -> list[str]:
        """Names of the sinks that are meant to run."""
        with self._lock:
            return sorted(filter(is_sink, self._members))

    def start_worker(self, name: str, command: Sequence[str]) -> None:
        """Start a worker of another program than the fleet's."""
        self._enlist(name, command)

    def start_sink(self, name: str = SINK, command: Sequence[str] | None = None) -> None:
        """Start a sink; further ones have names of their own that begin with ``sink``."""
        self._enlist(name, command or python("sinks", "run"))

    def replace(self, name: str, command: Sequence[str]) -> None:
        """Let a process end in an orderly way and start another program in its place, as a rolling upgrade does."""
        with self._lock:
            self._members[name].command = command
        self.restart(name)

    def retire(self, name: str, grace_s: float = 30.0) -> int:
        """Stop a process by SIGTERM for good; returns its exit code."""
        with self._lock:
            member = self._members.pop(name)
            self._disturb(name)
        return member.child.stop(grace_s)

    def up(self, name: str) -> bool:
        """Whether a process is at work, and not about to die: it has written to its log since it was started."""
        with self._lock:
            member = self._members.get(name)
            return (
                member is not None
                and member.child.exit_code is None
                and member.point is None
                and member.expected is None
                and member.child.log.stat().st_size > member.log_bytes
            )

    def pid(self, name: str) -> int:
        """Return the process id of a member."""
        with self._lock:
            return self._members[name].child.pid

    # -- faults

    def kill(self, name: str, *, then: str | None = None) -> None:
        """Kill a process; `then` arms a fault point (``name:n``) in the one that takes its place."""
        with self._lock:
            member = self._members[name]
            member.expected, member.next_point = "kill -9", then
            member.child.kill()

    def restart(self, name: str, *, then: str | None = None) -> None:
        """Let a process end in an orderly way and start another in its place, as a new release does."""
        with self._lock:
            member = self._members[name]
            member.expected, member.next_point = "restart", then
            member.child.signal(signal.SIGTERM)

    def pause(self, name: str) -> None:
        with self._lock:
            self._members[name].child.signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        with self._lock:
            self._members[name].child.signal(signal.SIGCONT)

    def disarm(self, older_than_s: float) -> None:
        """Restart processes that have not come by their fault point in time; points missed for good are in `missed`."""
        with self._lock:
            for member in self._members.values():
                if member.point and time.monotonic() - member.since > older_than_s and member.expected is None:
                    member.expected = "restart"
                    member.child.signal(signal.SIGTERM)

    @property
    def armed(self) -> list[str]:
        """Fault points that somebody has still to come by."""
        with self._lock:
            points = [member.next_point or member.point for member in self._members.values()]
        return [point for point in points if point]

    def take_missed(self) -> list[str]:
        """Return the fault points that were missed, each to be tried at its first pass, and forget them."""
        with self._lock:
            missed, self.missed = self.missed, []
        return [f"{point.partition(':')[0]}:1" for point in missed]

    def outage(self, on: bool) -> None:
        """Note that the broker is away, or back again."""
        with self._lock:
            self._outage = on
            if on:
                self._disturb()

    def tails(self) -> str:
        """Return the end of every log."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        """Kill what still runs."""
        self._closing.set()
        for thread in self._threads:
            thread.join(20)
        with self._lock:
            for member in self._members.values():
                member.child.kill()
            self._members.clear()
        for group in self._groups.values():
            group.close()

    # -- threads

    def _enlist(self, name: str, command: Sequence[str]) -> None:
        with self._lock:
            self._disturb(name)
            size = self._log_bytes(name)
            self._members[name] = _Member(name, command, self._spawn(name, command, None), time.monotonic(), size)

    def _spawn(self, name: str, command: Sequence[str], point: str | None) -> Child:
        return Child(name, command, self._folder, self._env | {fault_points.VARIABLE: point or ""})

    def _supervise(self) -> None:
        while not self._closing.wait(0.05):
            with self._lock:
                for member in list(self._members.values()):
                    if member.child.exit_code is not None:
                        self._bury(member)

    def _bury(self, member: _Member) -> None:
        now = time.monotonic()
        code = member.child.exit_code
        self._disturb(member.name)
        if member.expected == "restart" and code == 0:
            how = None
        elif member.expected == "kill -9":
            how = member.expected
        else:
            how = member.point if member.point and code == fault_points.EXIT_CODE else f"exit {code}"
        if how is None:
            self.missed += [member.point] if member.point else []
        else:
            self.deaths.append(Death(member.name, how, now, disturbed=self._outage))
            if how.startswith("exit") and member.next_point is None:
                member.next_point = member.point  # it has not come that far
        # Within the lock: nobody else needs it more urgently than the process that is to come back.
        time.sleep(_RESTART_AFTER_S)
        member.point, member.next_point, member.expected = member.next_point, None, None
        member.log_bytes = self._log_bytes(member.name)
        member.child = self._spawn(member.name, member.command, member.point)
        member.since = time.monotonic()

    def _log_bytes(self, name: str) -> int:
        log = self._folder / f"{name}.log"
        return log.stat().st_size if log.exists() else 0

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_EVERY_S):
            for kind, group in self._groups.items():
                looked_at = time.monotonic()
                progress = group.look()
                with self._lock:
                    if self._outage:
                        self._disturb()
                    if progress is not None:
                        for death in self.deaths:
                            if is_sink(death.who) == (kind == SINK):
                                death.saw(looked_at, progress)

    def _disturb(self, by: str | None = None) -> None:
        """Note who has not recovered yet, of the group of a process or of both."""
        for death in self.deaths:
            if death.recovered_s is None and (by is None or is_sink(death.who) == is_sink(by)):
                death.disturbed = True


@dataclass(frozen=True)
class Strike:
    """One kill of a schedule.

    Attributes
    ----------
    after_s
        Seconds since the one before.
    sink
        Whether it hits the sink; else a worker.
    worker
        Which of the workers, counted round.
    point
        Fault point (``name:n``) at which the process dies that takes the victim's place; None for no further death.
    hard
        Whether the victim is killed, too, or ends in an orderly way.
    """

    after_s: float
    sink: bool
    worker: int
    point: str | None
    hard: bool

    def __str__(self) -> str:
        how = "kill -9" if self.hard else "restart"
        return f"{SINK if self.sink else 'worker'}: {how}" + (f", then dies at {self.point}" if self.point else "")


class KillSchedule:
    """Who is killed when and how, from a seed.

    Parameters
    ----------
    seed
        Of all that is left to chance.
    kills
        How many at least: one at each fault point as far as they suffice, the others (two at least) at moments of
        chance. Further ones come of the victims that make room for a process with a fault point.
    min_gap_s, max_gap_s
        Time between two of them; unit: seconds.
    points
        Fault points to come by.
    """

    def __init__(
        self, seed: int, kills: int, min_gap_s: float, max_gap_s: float, points: Sequence[str] = POINTS
    ) -> None:
        rng = random.Random(seed)
        named = rng.sample(points, max(0, min(len(points), kills - 2)))
        how = [f"{point}:{_passes(rng, point)}" for point in named] + [None] * (kills - len(named))
        rng.shuffle(how)
        self.strikes = [
            Strike(
                rng.uniform(min_gap_s, max_gap_s),
                rng.random() < 0.3 if point is None else point.startswith(SINK),
                rng.randrange(12),
                point,
                point is None or rng.random() < 0.4,
            )
            for point in how
        ]


def _passes(rng: random.Random, point: str) -> int:
    """Return at which pass to die: a process takes partitions over once or twice, but saves them again and again."""
    return 1 if point.endswith((".fenced", ".restored")) else rng.choice((1, 2, 7))
