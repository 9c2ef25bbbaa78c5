from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from learners.guard_spec import GuardSpec
from learners.lineage import Rebuild, rebuild
from learners.neural import learner as module
from learners.neural.job import Job, Tensors, TrainingError
from learners.neural.learner import FIRST, LAG, PAUSE, NeuralLearner
from learners.neural.trainer import InlineTrainer, Ticket
from learners.policy_learner import PolicyLearner
from learners.registry import make_learner, restore_learner
from learners.state import Origin, StateError, attach
from steersman.codec import Codec
from steersman.errors import ConfigError
from steersman.scoring import Scorer
from steersman.snapshot import PolicySnapshot
from tests.learners.neural.curve import reward, spec

SPEC = spec()
REWARDS = [reward(i) for i in range(1000)]


class Counting(InlineTrainer):
    """Trains here, a job only once; holds results back while `late`; trainings on as many rewards as in `failing` fail."""

    made: ClassVar[dict[bytes, Tensors]] = {}

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.late = False
        self.failing: set[int] = set()

    def start(self, job: Job) -> Ticket:
        self.jobs.append(job)
        return _Held(self, super().start(job), job)


class _Held:
    def __init__(self, trainer: Counting, ticket: Ticket, job: Job) -> None:
        self._trainer, self._ticket, self._job = trainer, ticket, job

    def done(self) -> bool:
        return not self._trainer.late

    def result(self) -> Tensors:
        if len(self._job.x) in self._trainer.failing:
            raise TrainingError("it was made to fail")
        key = self._job.to_bytes()
        if key not in Counting.made:
            Counting.made[key] = self._ticket.result()
        return Counting.made[key]


@pytest.fixture(autouse=True)
def trainer(monkeypatch: pytest.MonkeyPatch) -> Counting:
    trainer = Counting()
    monkeypatch.setattr(NeuralLearner, "trainer", trainer)
    monkeypatch.setattr(module, "STEPS", 150)
    return trainer


def taught(n: int) -> NeuralLearner:
    learner = NeuralLearner(SPEC)
    learner.learn_many(REWARDS[:n])
    return learner


def report(learner: NeuralLearner) -> dict[str, object]:
    found: dict[str, object] = json.loads(learner.snapshot(7).learner_report)
    return found


@pytest.fixture(scope="module")
def straight() -> tuple[bytes, bytes]:
    """State and snapshot after all rewards in one batch."""
    patch = pytest.MonkeyPatch()
    with patch.context() as p:
        p.setattr(NeuralLearner, "trainer", Counting())
        p.setattr(module, "STEPS", 150)
        learner = taught(1000)
        return learner.to_state(), Codec("policy_snapshot").encode(learner.snapshot(7).to_record())


def test_it_finds_what_the_linear_learner_cannot_and_says_so(trainer: Counting) -> None:
    learner = taught(1000)
    said = report(learner)
    assert said["model"] == "neural"
    loss = said["validation"]["squared_error_of_utility"]  # type: ignore[index]
    assert loss["neural"] < 0.5 * loss["linear"]
    codec = Codec("policy_snapshot")
    received = PolicySnapshot.from_record(codec.decode(codec.encode(learner.snapshot(7).to_record())))
    scorer, right = Scorer(received), 0
    for a, b in np.random.default_rng(5).uniform(-1.7, 1.7, (200, 2)):
        right += (scorer.score(SPEC.features.encode({"a": a, "b": b})).greedy < 2) == (a * b > 0)
    assert right >= 180
    assert received.learner == "neural"


def test_before_the_first_training_it_is_the_linear_learner(trainer: Counting) -> None:
    learner, linear = taught(FIRST - 1), PolicyLearner(SPEC)
    linear.learn_many(REWARDS[: FIRST - 1])
    ours, theirs = learner.snapshot(7), linear.snapshot(7)
    assert not trainer.jobs
    assert {name: t.tobytes() for name, t in ours.tensors.items()} == {
        name: t.tobytes() for name, t in theirs.tensors.items()
    }
    assert report(learner)["model"] == "linear"
    assert "256" in str(report(learner)["why"])


def test_where_nothing_is_curved_it_goes_on_as_the_linear_learner() -> None:
    learner, linear = NeuralLearner(SPEC), PolicyLearner(SPEC)
    rng = np.random.default_rng(3)
    straight = [{**r, "quality": 0.5 + 0.2 * r["features"][0] + 0.1 * float(rng.normal())} for r in REWARDS]
    learner.learn_many(straight)
    linear.learn_many(straight)
    said = report(learner)
    assert said["model"] == "linear"
    assert said["why"] == "the encoder is not better by progressive validation"
    assert (
        learner.snapshot(7).tensors["weights.quality"].tobytes()
        == linear.snapshot(7).tensors["weights.quality"].tobytes()
    )


@pytest.mark.parametrize("size", [1, 7, 300])
def test_batches_leave_the_same_bits(size: int, straight: tuple[bytes, bytes]) -> None:
    learner = NeuralLearner(SPEC)
    for start in range(0, 1000, size):
        learner.learn_many(REWARDS[start : start + size])
    assert learner.to_state() == straight[0]
    assert Codec("policy_snapshot").encode(learner.snapshot(7).to_record()) == straight[1]


@pytest.mark.parametrize("cut", [100, 256, 290, 320, 400, 450, 777])
def test_a_restart_anywhere_changes_nothing(cut: int, straight: tuple[bytes, bytes], trainer: Counting) -> None:
    before = taught(cut)
    state = before.to_state()
    resumed = NeuralLearner.from_state(SPEC, state)
    assert resumed.to_state() == state
    trainer.late = True  # which neither may depend on
    resumed.learn_many(REWARDS[cut:])
    assert resumed.to_state() == straight[0]
    assert Codec("policy_snapshot").encode(resumed.snapshot(7).to_record()) == straight[1]


def test_the_log_gives_it_again(straight: tuple[bytes, bytes]) -> None:
    origin = Origin.of(straight[0])
    again = rebuild(SPEC, 1, {}, REWARDS, origin.sources)
    assert again.to_state() == straight[0]


def test_nothing_is_published_while_a_training_is_late(trainer: Counting) -> None:
    trainer.late = True
    learner = taught(319)
    assert learner.ready
    learner.learn_many(REWARDS[319:330])
    assert not learner.ready
    trainer.late = False
    assert learner.ready
    assert "in_use_since" in str(report(learner))


def test_an_abandoned_training_is_on_record_and_a_rebuild_heeds_it(trainer: Counting) -> None:
    trainer.failing = {384}
    learner = taught(500)
    assert learner.abandoned == [384]
    assert report(learner) == {"model": "linear", "why": "the last training was abandoned"}
    state = learner.to_state()
    trainer.failing = set()
    upto = Origin.of(state).sources
    made, other = Rebuild(SPEC, 1, {}, upto, state), Rebuild(SPEC, 1, {}, upto)
    for one in (made, other):
        one.feed(REWARDS[:500])
    assert made.learner.to_state() == state
    assert other.learner.to_state() != state
    resumed = NeuralLearner.from_state(SPEC, state)
    resumed.learn_many(REWARDS[500:])
    assert report(resumed)["model"] == "neural"


def test_data_and_seeds_of_trainings_depend_on_rewards_alone(trainer: Counting) -> None:
    taught(1000)
    sizes = [len(job.x) for job in trainer.jobs]
    assert sizes == [256, 384, 576, 896]
    assert len({job.seed for job in trainer.jobs}) == 4
    first = trainer.jobs[0]
    assert Job.from_bytes(first.to_bytes()).to_bytes() == first.to_bytes()
    np.testing.assert_array_equal(first.x, np.float32([r["features"] for r in REWARDS[:256]]))
    assert first.rated.tolist() == [r["quality"] is not None for r in REWARDS[:256]]


def test_trainings_wait_for_the_time_of_the_rewards_not_for_the_clock(trainer: Counting) -> None:
    learner = NeuralLearner(SPEC)
    fast = [{**r, "ts": i * 10_000} for i, r in enumerate(REWARDS)]  # a hundred a second
    trainer.late = True
    learner.learn_many(fast[:760])
    assert learner.ready  # 5 seconds have not passed
    learner.learn_many(fast[760:770])
    assert not learner.ready
    trainer.late = False
    learner.learn_many(fast[770:])
    assert len(trainer.jobs) == 1
    stuck = NeuralLearner(SPEC)
    stuck.learn_many([{**r, "ts": 10**15 if i == 300 else 0} for i, r in enumerate(REWARDS[:400])])
    stuck.learn_many([reward(i, ts=0) for i in range(400, 600)])
    assert len(trainer.jobs) == 1 + 2  # the jump of the one reward counts once
    assert (LAG.is_over(8192, 10, 0), PAUSE.is_over(8192, 10, 0), PAUSE.is_over(16_384, 10, 0)) == (True, False, True)


def test_the_buffer_is_bounded(monkeypatch: pytest.MonkeyPatch, trainer: Counting) -> None:
    monkeypatch.setattr("learners.neural.replay.CAPACITY", 300)
    monkeypatch.setattr("learners.neural.replay._LEAST", 1)
    learner = NeuralLearner(SPEC)
    sizes = []
    for start in range(0, 1000, 50):
        learner.learn_many(REWARDS[start : start + 50])
        sizes.append(len(learner.to_state()))
    assert max(len(job.x) for job in trainer.jobs) == 300
    assert sizes[-1] < 1.3 * sizes[8]
    resumed = NeuralLearner.from_state(SPEC, learner.to_state())
    for one in (learner, resumed):
        one.learn_many([reward(i) for i in range(1000, 1500)])
    assert resumed.to_state() == learner.to_state()


def test_damaged_memory_is_refused(straight: tuple[bytes, bytes]) -> None:
    for blob in (b"", b"{}", b"\x00" * 100):
        with pytest.raises(StateError, match="neural"):
            NeuralLearner.from_state(SPEC, attach(PolicyLearner(SPEC).to_state(), blob))
    with pytest.raises(StateError, match="damaged"):
        NeuralLearner.from_state(SPEC, straight[0][:-40] + b"x" + straight[0][-39:])


def test_another_lineage_starts_afresh(straight: tuple[bytes, bytes]) -> None:
    changed = replace(SPEC, reward=SPEC.reward.model_copy(update={"clip": 50.0}))
    learner = NeuralLearner.from_state(changed, straight[0])
    assert (learner.epoch, learner.version) == (2, 0)


def test_learners_with_encoders_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        NeuralLearner(SPEC).merge(taught(300))
    with pytest.raises(ConfigError, match="shards"):
        NeuralLearner(replace(SPEC, shards=2))


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", partial(dict.get, {"safetensors": 1}))
    with pytest.raises(ConfigError, match=r"default/a/one .*torch.*steersman\[neural\]"):
        NeuralLearner(SPEC)


def test_under_a_guard_it_is_saved_and_rebuilt_with_its_encoder() -> None:
    guarded = replace(SPEC, guard=GuardSpec(apprentice=100, shadow=50, shares=(0.4,)))
    learner = make_learner(guarded)
    learner.learn_many(REWARDS[:700])
    learner = restore_learner(guarded, learner.to_state())
    learner.learn_many(REWARDS[700:])
    state, snapshot = learner.to_state(), learner.snapshot(7)
    assert (snapshot.stage, snapshot.canary_share) == ("CANARY", 0.4)
    assert json.loads(snapshot.learner_report)["model"] == "neural"
    origin = Origin.of(state)
    made = Rebuild(guarded, origin.epoch, origin.began, origin.sources, state)
    made.feed(REWARDS)
    assert made.learner.to_state() == restore_learner(guarded, state).to_state() == state
    assert made.learner.snapshot(7).to_record() == snapshot.to_record()
