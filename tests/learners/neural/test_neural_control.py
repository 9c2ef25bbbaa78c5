"""What a learner keeps beside its sums, under the neural heads: weights, drift, half-lives, prices, settings, ceilings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from learners.batch_scorer import BatchScorer
from learners.guarded import GuardedLearner
from learners.lineage import rebuild
from learners.neural import learner as module
from learners.neural.learner import NeuralLearner
from learners.neural.replay import Change, Replay
from learners.pending import Rows
from learners.policies_file import parse_policies
from learners.registry import make_learner, restore_learner
from learners.spec import PolicySpec
from learners.state import Origin, StateError, attach, attachment_of, pack, unpack
from steersman.codec import Codec
from steersman.errors import ConfigError
from tests.learners.neural.curve import POLICY, reward, spec
from tests.learners.neural.test_neural_learner import Counting

CONTROLLED = (
    POLICY
    + """ceilings = { cost_micro_usd = 950.0 }
[policy.learning]
drift = true
half_life = 2000.0
[policy.prices.model]
small = 1.0
large = 2.0
"""
)
BEFORE = spec(CONTROLLED)
AFTER = spec(
    CONTROLLED.replace("quality = 1.0, cost = 0.1", "quality = 1.0, cost = 0.3").replace("large = 2.0", "large = 3.0")
)
TURNED = 620
"""Rewards after which small models cost eight times as much: an alarm follows."""

REWARDS = [reward(i) for i in range(900)]
for _i, _r in enumerate(REWARDS):
    if _i >= TURNED and "small" in _r["arm"]:
        _r["cost_micro_usd"] *= 8
    if _i % 97 == 5:
        _r["features"] = [40.0, -40.0, 1.0]  # far out: weighs less


@pytest.fixture(autouse=True)
def trainer(monkeypatch: pytest.MonkeyPatch) -> Counting:
    trainer = Counting()
    monkeypatch.setattr(NeuralLearner, "trainer", trainer)
    monkeypatch.setattr(module, "STEPS", 150)
    return trainer


def record(learner: NeuralLearner) -> bytes:
    return Codec("policy_snapshot").encode(learner.snapshot(7).to_record())


def through(
    size: int, then: Callable[[NeuralLearner], NeuralLearner] = lambda learner: learner, turn: int = 450
) -> NeuralLearner:
    """A learner after all rewards in batches, its settings changed after `turn` of them, something done after every batch."""
    learner = NeuralLearner(BEFORE)
    at = 0
    while at < len(REWARDS):
        end = min(at + size, turn if at < turn else len(REWARDS))
        learner.learn_many(REWARDS[at:end])
        at = end
        learner = then(learner)
        if at == turn:
            learner = NeuralLearner.from_state(AFTER, learner.to_state())
    return learner


@pytest.fixture(scope="module")
def straight() -> Iterator[tuple[bytes, bytes]]:
    patch = pytest.MonkeyPatch()
    with patch.context() as p:
        p.setattr(NeuralLearner, "trainer", Counting())
        p.setattr(module, "STEPS", 150)
        learner = through(1000)
        assert learner.control.revision == 1
        kinds = {change.priced for change in learner._replay.changes}
        assert kinds == {True, False}
        # Beside those of the half-life there are alarms, which cut more.
        assert min(change.factors.min() for change in learner._replay.changes) < 0.5
        assert learner._replay.rows(0, 100).weights.min() < 1.0
        yield learner.to_state(), record(learner)


@pytest.mark.parametrize("size", [7, 64, 300])
def test_batches_leave_the_same_bits(size: int, straight: tuple[bytes, bytes]) -> None:
    learner = through(size)
    assert learner.to_state() == straight[0]
    assert record(learner) == straight[1]


def test_neither_restarts_nor_when_a_training_is_taken_up_change_anything(straight: tuple[bytes, bytes]) -> None:
    learner = through(37, lambda held: NeuralLearner.from_state(held.spec, held.to_state()))
    assert learner.to_state() == straight[0]
    assert record(learner) == straight[1]


def test_a_training_that_is_late_by_several_changes_leaves_the_same_bits(
    straight: tuple[bytes, bytes], trainer: Counting
) -> None:
    trainer.late = True  # so that it is taken up at the last moment: by the next training, or by settings
    learner = through(13)
    assert learner.to_state() == straight[0]


def test_the_log_and_the_saved_state_give_it_again(straight: tuple[bytes, bytes]) -> None:
    origin = Origin.of(straight[0])
    again = rebuild(AFTER, 1, {}, REWARDS, origin.sources, straight[0])
    assert again.to_state() == straight[0]
    assert Codec("policy_snapshot").encode(again.snapshot(7).to_record()) == straight[1]


def test_ceilings_are_priced_with_the_model_that_is_published() -> None:
    text = POLICY + "ceilings = { cost_micro_usd = 960.0 }\n"
    learner = NeuralLearner(spec(text))
    learner.learn_many([reward(i, cost_micro_usd=2000 if "large" in reward(i)["arm"] else 100) for i in range(900)])
    made = learner.snapshot(7)
    assert json.loads(made.learner_report)["model"] == "neural"
    (price,) = made.multipliers
    assert price.value > 0
    assert made.multipliers == learner.control.charged(replace(made, multipliers=())).multipliers
    contexts = np.random.default_rng(5).uniform(-1.7, 1.7, (300, 2))
    used = {}
    for name, scorer in {"priced": BatchScorer(made), "free": BatchScorer(replace(made, multipliers=()))}.items():
        xs = [learner.spec.features.encode({"a": a, "b": b}) for a, b in contexts]
        used[name] = np.mean([scorer.score(x).propensity @ scorer.components(x).cost for x in xs])
    assert used["priced"] < 1000 < used["free"]


def test_scores_of_many_contexts_are_those_of_each_under_an_encoder() -> None:
    learner = NeuralLearner(spec())
    learner.learn_many([reward(i) for i in range(900)])
    made = learner.snapshot(7)
    assert json.loads(made.learner_report)["model"] == "neural"
    scorer = BatchScorer(made)
    x = np.array([reward(i)["features"] for i in range(20)], dtype=np.float32)
    np.testing.assert_allclose(scorer.utilities(x), [scorer.score(row).utility for row in x], rtol=1e-12)
    np.testing.assert_allclose(scorer.predictions(x)[1], [scorer.components(row).cost for row in x], rtol=1e-12)
    best = scorer.score(x[0]).greedy
    assert scorer.contrasts(x[:1], best)[0, best] == 0.0


def test_a_buffer_knows_what_its_rewards_count_as_of_any_number() -> None:
    replay = Replay(2)
    n = 6
    arms = np.array([0, 1, 0, 1, 0, 1])
    replay.add(Rows(np.ones((n, 2), np.float32), np.ones((n, 4)), arms, np.ones(n, bool), np.ones(n)))
    replay.changes = [Change(2, False, np.array([0.5, 1.0])), Change(4, True, np.array([1.0, 3.0]))]
    assert replay.as_of(0, 6).weights.tolist() == [0.5, 1, 1, 1, 1, 1]
    assert replay.as_of(0, 6).y[:, 1].tolist() == [1, 3, 1, 3, 1, 1]
    assert replay.as_of(0, 4).y[:, 1].tolist() == [1, 1, 1, 1]  # the price came after the fourth
    assert replay.as_of(3, 6).y[:, 1].tolist() == [3, 1, 1]
    assert replay.rows(0, 6).weights.tolist() == [1] * 6
    replay.forget_before(2)
    assert [change.number for change in replay.changes] == [4]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[policy.learning]\nshards = 2\n", r"p.toml:19: policy\[0\].learning.shards: .*'neural'.*shards = 1"),
        (
            'quality_credit = "difference"\npeers = ["b/two"]\n',
            r"p.toml:18: policy\[0\].reward.quality_credit: .*'neural'.*linear",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_with_file_line_and_key(lines: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_policies(POLICY + lines + POLICY.replace("a/one", "b/two"), "p.toml")


def test_what_it_cannot_do_is_refused_of_policies_made_in_code_too() -> None:
    given = {}
    for name in ("a/one", "b/two"):
        text = POLICY.replace("a/one", name).replace('"neural"', '"linear"' if name == "a/one" else '"neural"')
        given[name] = text + ('quality_credit = "difference"\npeers = ["b/two"]\n' if name == "a/one" else "")
    one: PolicySpec | None = parse_policies("\n".join(given.values())).get("default", "a/one")
    assert one is not None
    with pytest.raises(ConfigError, match="difference"):
        NeuralLearner(one)


@pytest.mark.parametrize("name", ["replay.y", "replay.weights", "replay.arms", "head.sums", "change.factors"])
def test_memory_that_is_not_finite_or_of_another_shape_is_refused(name: str, straight: tuple[bytes, bytes]) -> None:
    arrays: dict[str, Any] = load(attachment_of(straight[0]))
    damaged = arrays[name].copy()
    damaged.flat[-1] = 99 if name == "replay.arms" else np.nan
    for wrong in (damaged, arrays[name][:-1]):
        if name == "head.sums" and wrong is not damaged:
            continue
        _, header, sums = unpack(straight[0])
        bare = pack({key: value for key, value in header.items() if key not in ("shape", "attachment")}, sums)
        with pytest.raises(StateError, match="neural"):
            NeuralLearner.from_state(AFTER, attach(bare, save({**arrays, name: wrong})))


def test_a_guarded_neural_policy_goes_on_from_its_state_and_the_log_gives_it_again() -> None:
    guarded = spec(POLICY + "[policy.guard]\n")
    learner = make_learner(guarded)
    learner.learn_many(REWARDS[:600])
    saved = learner.to_state()
    assert "guard" in unpack(saved)[1]
    assert attachment_of(saved)
    assert restore_learner(guarded, saved).to_state() == saved
    again = rebuild(guarded, 1, {}, REWARDS, Origin.of(saved).sources, saved)
    assert isinstance(again, GuardedLearner)
    assert again.to_state() == saved
    assert again.ready
