"""A service whose policies are under a guard, on the running platform: real router, tracer and feedback."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steersman import Kind, PolicySubscriber, Router, Topics, Tracer
from steersman.arms import Level
from steersman.events import Mode

QUALITY = {"plain": 0.55, "good": 0.85, "poor": 0.3}
TURNED = {"plain": 0.55, "good": 0.1, "poor": 0.3}
NOISE = 0.15
_TRUSTED = 300


@dataclass
class Life:
    """What became of one policy. Counts are decisions; times are seconds of wall clock.

    Attributes
    ----------
    policy
        Its name.
    decisions
        Decisions so far.
    modes
        Modes in the order in which they first came.
    began_s
        When it began.
    live_after, live_after_s
        Decisions and seconds until the policy decided live.
    turned, turned_s
        Decision and moment from which on what it had learned was wrong.
    back_after, back_after_s
        Decisions and seconds from then until the baseline decided again.
    """

    policy: str
    decisions: int = 0
    modes: list[str] = field(default_factory=list)
    began_s: float = 0.0
    live_after: int | None = None
    live_after_s: float | None = None
    turned: int | None = None
    turned_s: float = 0.0
    back_after: int | None = None
    back_after_s: float | None = None


def live(
    brokers: str,
    topics: Topics,
    policies: Sequence[str],
    *,
    rate: float,
    seed: int,
    check: Callable[[], None],
    timeout_s: float,
    trusted: int = _TRUSTED,
) -> list[Life]:
    """Let a service decide, by itself at first, until every policy has gone live, has turned bad and has been rolled back.

    Parameters
    ----------
    brokers, topics
        Where the platform is.
    policies
        Names; each is asked `rate` times a second.
    rate
        Decisions per second and policy.
    seed
        Of the service's own choices, and of what they earn.
    check
        Called now and then; raises when the platform has died.
    timeout_s
        When to stop in any case.
    trusted
        Decisions for which a live policy is a good one.

    Returns
    -------
    list of Life
        One a policy; what did not happen in time is None.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    lives = [Life(policy) for policy in policies]
    with (
        Tracer("guarded", brokers=brokers, topics=topics) as tracer,
        PolicySubscriber(brokers, topics=topics) as source,
    ):
        source.wait_ready(30)
        router = Router(source, tracer, seed=seed)
        began = time.monotonic()
        for one in lives:
            one.began_s = began
        turn = 0
        while any(one.back_after is None for one in lives) and time.monotonic() < began + timeout_s:
            for one in lives:
                if one.back_after is None:
                    _decide(one, router, tracer, rng, trusted)
            turn += 1
            if turn % 100 == 0:
                check()
            time.sleep(max(0.0, began + turn / rate - time.monotonic()))
    return lives


def _decide(one: Life, router: Router, tracer: Tracer, rng: random.Random, trusted: int) -> None:
    if one.turned is None and one.live_after is not None and one.decisions >= one.live_after + trusted:
        one.turned, one.turned_s = one.decisions, time.monotonic()
    # Until it is in a canary the service does now this, now that; then what it does without a policy is the plain model.
    own: dict[str, Level] = {
        "model": "plain" if "CANARY" in one.modes else rng.choice(("plain", "plain", "good", "poor"))
    }
    with tracer.span(Kind.AGENT, operation="answer"):
        decision = router.choose(one.policy, {"load": rng.gauss(0.0, 1.0)}, own=own)
    worth = QUALITY if one.turned is None else TURNED
    quality = worth[str(decision.arm["model"])] + rng.gauss(0.0, NOISE)
    tracer.feedback(decision, "quality", quality)
    now, mode = time.monotonic(), decision.mode
    one.decisions += 1
    if mode not in one.modes:
        one.modes.append(mode)
    if mode is Mode.LIVE and one.live_after is None:
        one.live_after, one.live_after_s = one.decisions, now - one.began_s
    if mode is Mode.SHADOW and one.turned is not None and one.back_after is None:
        one.back_after, one.back_after_s = one.decisions - one.turned, now - one.turned_s
