"""Makes runs in the learners' environment (see `benchmarks.environments`): a run as JSON in, what came of it as JSON out."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from benchmarks.evaluation.ours import Ours
from benchmarks.evaluation.play import Played, Player, play
from benchmarks.evaluation.runs import DELAY, SCALAR, Run, is_peer
from benchmarks.evaluation.scenario import Scenario
from benchmarks.evaluation.sets import scenario
from steersman.errors import ConfigError


def player(run: Run, game: Scenario) -> Player:
    """Return a fresh learner; ConfigError when there is none of the name."""
    seed = 1000 * run.order + run.seed
    if not is_peer(run.learner):
        name, scalar, _ = run.learner.partition(SCALAR)
        return Ours(game.spec, name, seed, components=not scalar)
    from benchmarks.peers.routing import PEERS  # here: only the peers' environment has what it imports

    if run.learner not in PEERS:
        raise ConfigError(f"no learner is called {run.learner!r}; the peers are {', '.join(PEERS)}")
    return PEERS[run.learner](len(game.spec.arms), game.x.shape[1], seed)


def made(run: Run) -> Played:
    """Make a run."""
    game = scenario(run.scenario, run.source).in_order(run.order)
    if run.condition == "drift":
        game = game.drifted()
    return play(player(run, game), game, DELAY if run.condition == "delay" else 0)


def main() -> None:
    """Make runs until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not come between the answers
    for line in sys.stdin:
        print(json.dumps(asdict(made(Run(**json.loads(line))))), file=answers, flush=True)


if __name__ == "__main__":
    main()
