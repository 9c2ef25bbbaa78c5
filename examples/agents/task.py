"""The task of the example agents: add numbers up. Sums of many numbers are hard for the cheap model."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman import Decision, PolicySubscriber

PRICES = Path(__file__).parent / "prices.toml"
WAIT_S = 20.0
"""Longest wait for the first policy; without one an agent does what its baseline says."""


@dataclass(frozen=True)
class Sum:
    """One request.

    Attributes
    ----------
    numbers : tuple of int
        What is to be added up, two or five of them.
    """

    numbers: tuple[int, ...]

    @property
    def question(self) -> str:
        """What the user asks."""
        return f"What is {' + '.join(map(str, self.numbers))}?"

    @property
    def context(self) -> dict[str, float]:
        """What the policy is told."""
        return {"numbers": float(len(self.numbers))}

    def right(self, answer: str | None) -> bool:
        """Whether an answer is right."""
        return (answer or "").strip() == str(sum(self.numbers))


def sums(n: int, seed: int) -> Iterator[Sum]:
    """Yield `n` requests."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable load, no secret
    for _ in range(n):
        yield Sum(tuple(rng.choices(range(10, 100), k=rng.choice((2, 5)))))


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes
    ----------
    models, doors : str
        URLs of the model server and of Steersman's doors.
    requests, seed : int
        How many requests, and which.
    as_json : bool
        Whether to print one JSON object instead of lines.
    """

    models: str
    doors: str
    requests: int
    seed: int
    as_json: bool


def settings(program: str, about: str | None, arguments: Sequence[str] | None) -> Settings:
    """Read the command line. Kafka's address is ``STEERSMAN_BROKERS``, 127.0.0.1:9092 by default."""
    parser = argparse.ArgumentParser(f"python -m {program}", description=(about or "").partition("\n")[0])
    parser.add_argument("--models", default="http://127.0.0.1:8600/v1", help="URL of the model server")
    parser.add_argument("--doors", default="http://127.0.0.1:4318", help="URL of the doors: OTLP and feedback")
    parser.add_argument("--requests", type=int, default=400, help="requests to make (default: 400)")
    parser.add_argument("--seed", type=int, default=1, help="of the requests")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object at the end")
    return Settings(**vars(parser.parse_args(arguments)))


def wait_for(policies: PolicySubscriber, policy: str) -> None:
    """Wait for the first snapshot of a policy, so that not all of a short run is decided by the baseline."""
    deadline = time.monotonic() + WAIT_S
    while policies.get(policy) is None and time.monotonic() < deadline:
        time.sleep(0.05)


class Tally:
    """What was chosen and how often it was right, by kind of request."""

    def __init__(self, out_of: int, as_json: bool) -> None:
        self._out_of = out_of
        self._as_json = as_json
        self._seen: list[tuple[int, str, str, bool]] = []

    def add(self, task: Sum, decision: Decision, right: bool) -> None:
        """Count a request; says where things stand every 100."""
        self._seen.append((len(task.numbers), decision.label, decision.mode.value, right))
        if not self._as_json and len(self._seen) % 100 == 0:
            print(f"{len(self._seen)} of {self._out_of}: {self._summary(self._seen[-100:])}", flush=True)

    def _summary(self, seen: Sequence[tuple[int, str, str, bool]]) -> dict[str, object]:
        found: dict[str, object] = {"right": round(sum(right for *_, right in seen) / max(1, len(seen)), 3)}
        for size in sorted({size for size, *_ in seen}):
            labels = [label for length, label, *_ in seen if length == size]
            shares = {label: round(labels.count(label) / len(labels), 2) for label in sorted(set(labels))}
            found[f"{size} numbers"] = shares
        return found

    def finish(self, undelivered: int) -> int:
        """Print the outcome; returns the exit code: 3 when events could not be delivered."""
        modes = [mode for _, _, mode, _ in self._seen]
        if self._as_json:
            counts = {mode: modes.count(mode) for mode in sorted(set(modes))}
            half = self._summary(self._seen[len(self._seen) // 2 :])
            print(
                json.dumps({"requests": len(modes), "modes": counts, "second_half": half, "undelivered": undelivered})
            )
        elif "LIVE" not in modes:
            print("no decision was made by a policy: does 'steersman up --policies examples/agents/policies.toml' run?")
        return 3 if undelivered else 0
