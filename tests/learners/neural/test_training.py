"""The real training: torch's network against numpy's, and the process that trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from learners.neural.job import Job, Tensors, TrainingError, read_encoder
from learners.neural.train import train
from learners.neural.trainer import BackgroundTrainer
from steersman.encoder import TENSORS, Encoder, problem_of
from steersman.layout import make_layout
from tests.learners.neural.curve import reward, spec

ROOT = Path(__file__).resolve().parents[3]
SPEC = spec()
LAYOUT = make_layout(SPEC.arms, SPEC.features)


def job(steps: int = 100, seed: int = 1, n: int = 200) -> Job:
    rewards = [reward(i) for i in range(n)]
    y = np.array([[r["quality"] or 0.0, r["cost_micro_usd"] / 1e4, 0.1, r["failures"]] for r in rewards])
    return Job(
        np.float32([r["features"] for r in rewards]),
        y.astype(np.float32),
        np.array([SPEC.arms.index(r["arm"]) for r in rewards]),
        np.array([r["quality"] is not None for r in rewards]),
        np.ones(n, np.float32),
        LAYOUT.level_of.astype(np.float32),
        LAYOUT.pair_of.astype(np.float32),
        seed,
        steps,
    )


@pytest.fixture(scope="module")
def made() -> Tensors:
    return train(job())


def test_the_router_encodes_as_torch_does(made: Tensors) -> None:
    first, first_bias, second, second_bias, shift, scale = (torch.from_numpy(made[name]) for name in TENSORS)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 3)), rng.uniform(-10, 10, (500, 3))]).astype(np.float32)
    x[:, -1] = 1.0
    linear = torch.nn.functional.linear
    hidden = torch.tanh(linear(torch.from_numpy(x), first, first_bias))
    expected = ((torch.tanh(linear(hidden, second, second_bias)) - shift) * scale).numpy()
    encoder = Encoder(made)
    found = np.array([encoder(row) for row in x])
    assert np.abs(found[:, :-1] - expected).max() <= 1e-5
    assert (found[:, -1] == 1.0).all()
    assert np.abs(found).max() < 25


def test_what_it_makes_is_scaled_to_the_rewards(made: Tensors) -> None:
    encoder = Encoder(made)
    z = np.array([encoder(row) for row in job().x])[:, :-1]
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-4)
    assert z.std(axis=0).max() < 1.01


def test_seeds_make_it_repeatable_in_a_process_of_its_own(made: Tensors) -> None:
    trainer = BackgroundTrainer()
    ticket = trainer.start(job())
    assert {name: t.tobytes() for name, t in ticket.result().items()} == {name: t.tobytes() for name, t in made.items()}
    assert ticket.done()
    assert trainer.train(job()) is ticket.result()  # remembered
    other = train(job(steps=5, seed=2))
    assert other[TENSORS[0]].tobytes() != train(job(steps=5, seed=1))[TENSORS[0]].tobytes()


def test_a_training_over_its_budget_is_ended() -> None:
    ticket = BackgroundTrainer(budget_s=0.2).start(job(steps=10**7))
    with pytest.raises(TrainingError, match=r"longer than 0.2 s"):
        ticket.result()


def test_a_training_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(TrainingError, match="FileNotFoundError"):
        BackgroundTrainer().start(job()).result()
    monkeypatch.undo()
    broken = job()
    broken.arms[0] = 99
    with pytest.raises(TrainingError, match="ended with 1 and said: IndexError"):
        BackgroundTrainer().start(broken).result()


def test_what_a_training_writes_is_checked(made: Tensors) -> None:
    with pytest.raises(TrainingError, match="safetensors"):
        read_encoder(b"nonsense", 3)
    from safetensors.numpy import save

    assert problem_of(read_encoder(save(made), 3), 3) == ""
    with pytest.raises(TrainingError, match=r"encoder.0.weight"):
        read_encoder(save(made), 4)
    with pytest.raises(TrainingError, match="not finite"):
        read_encoder(save({**made, "encoder.shift": np.full_like(made["encoder.shift"], np.nan)}), 3)


def test_neither_worker_nor_agent_imports_torch() -> None:
    code = (
        "import sys; import steersman, steersman.scoring, learners.neural.learner, streams.worker\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    code = "import sys; sys.modules['safetensors'] = None; import steersman.scoring, steersman.encoder, steersman"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
