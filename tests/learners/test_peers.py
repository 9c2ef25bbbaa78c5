"""The credit rule difference: what peers did is out of the account, exactly as if difference rewards had been learned from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners.lineage import rebuild
from learners.moments import Moments
from learners.peers import Peer, PeerEncoder, peer_levels
from learners.policies import Policies
from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.priors import COMPONENT_PRIOR, NOISE, NOISE_N, QUALITY_PRIOR, precision
from learners.regression import solve
from learners.spec import PolicySpec, RewardSpec
from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.scoring import Scorer

OTHER = ArmSpace({"model": ["small", "large"], "effort": [1, 2, 3]})
ARMS = ArmSpace({"top_k": [4, 8, 16]})
FEATURES = FeatureSpec(features=(Numeric(name="z"),))
REWARD = RewardSpec(quality_credit="difference", peers=("other", "own"))
POLICIES = Policies.of(
    PolicySpec("default", "own", ARMS, "top_k=4", FEATURES, REWARD),
    PolicySpec("default", "other", OTHER, "model=large;effort=2"),
)


def spec(policies: Policies = POLICIES) -> PolicySpec:
    found = policies.get("default", "own")
    assert found is not None
    return found


def rewards_of(seed: int, n: int = 300, noise: float = 0.02, turn: float = 0.0) -> list[dict[str, Any]]:
    """Quality is 0.5 + own effect + a large effect of the peer, who acts by the same context, and `turn` of it turns with the context."""
    rng = np.random.default_rng(seed)
    rewards = []
    for i in range(n):
        z = float(rng.normal())
        own, peer = int(rng.integers(3)), int(rng.integers(6))
        quality = (
            0.5 + 0.05 * own * (1 + 0.5 * z) + 0.4 * (peer % 3) * (1 + turn * z) + 0.1 * z + noise * float(rng.normal())
        )
        rewards.append({
            "decision_id": f"d{i}", "tenant": "default", "policy": "own", "arm": ARMS.labels[own], "mode": "LIVE",
            "features": FEATURES.encode({"z": z}).tolist(), "quality": quality, "cost_micro_usd": 10 + peer, "latency_us": 20,
            "failures": 0, "policy_epoch": 1, "reward_spec": spec().reward_hash, "peers": f"other {OTHER.labels[peer]}",
            "source_partition": i % 2, "source_offset": i, "seq": 0,
        })  # fmt: skip
    return rewards


def encoder_of(found: PolicySpec, n_arms: int = 3) -> PeerEncoder:
    return PeerEncoder(found.peers, found.features, n_arms)


def test_levels_beyond_the_baseline_are_counted_and_crossed_with_the_context() -> None:
    encoder = encoder_of(spec())
    assert peer_levels(spec().peers) == 1 + 2 + 2  # other: model, effort; own: top_k
    assert encoder.width == 5 * 2
    twice = f"other {OTHER.labels[0]}\nother {OTHER.labels[0]}\nown top_k=16\nnobody x=1\nother gone=1"
    assert encoder.counts({"peers": twice}).tolist() == [2, 2, 0, 0, 1]
    assert encoder.encode({"peers": twice, "features": [3.0, 1.0]}).tolist() == [6, 2, 6, 2, 0, 0, 0, 0, 3, 1]
    assert encoder.counts({"peers": f"other {OTHER.labels[4]}\nown top_k=4"}).tolist() == [0] * 5
    assert encoder.counts({}).tolist() == [0] * 5
    assert encoder.counts({"peers": "\n".join(["own top_k=8"] * 40)}).tolist() == [0, 0, 0, 10, 0]
    assert encoder.widen({"peers": "own top_k=8", "features": [3.0, 1.0]}) == [0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 3, 1]


def test_a_peers_level_is_believed_as_an_own_one() -> None:
    encoder = encoder_of(spec())
    for prior in (QUALITY_PRIOR, COMPONENT_PRIOR):
        own = precision(PolicyLearner(spec()).layout, FEATURES.kinds, prior)
        assert encoder.precision(prior).tolist() == own[2:4].tolist() * 5  # after what arms share: the first level's


def test_costs_of_a_whole_trace_are_believed_as_slowly_as_quality() -> None:
    for credit, same in (("subtree", False), ("trace", True)):
        team = REWARD.model_copy(update={"credit": credit})
        learner = PolicyLearner(spec(Policies.of(*(replace(s, reward=team) if s.peers else s for s in POLICIES))))
        quality, others = learner.beliefs.precisions
        assert (quality.tolist() == others.tolist()) == same
    alone = PolicyLearner(replace(spec(), reward=RewardSpec(credit="trace"), peers=()))
    assert alone.beliefs.precisions[0].tolist() != alone.beliefs.precisions[1].tolist()


def test_what_would_take_too_much_memory_is_not_crossed() -> None:
    wide = FeatureSpec(features=(*(Numeric(name=f"n{i}") for i in range(30)), Categorical(name="c", values=["a", "b"])))
    x = wide.encode({"c": "b"})
    for n_arms, columns in ((3, list(range(33))), (60, [30, 31, 32]), (4000, [32])):
        encoder = encoder_of(replace(spec(), features=wide), n_arms)
        assert encoder.columns.tolist() == columns
        made = encoder.encode({"peers": "own top_k=16", "features": x.tolist()})
        assert made.tolist() == [0.0] * (4 * len(columns)) + x[columns].tolist()
        assert len(encoder.precision(QUALITY_PRIOR)) == encoder.width == len(made)


def test_the_effect_of_the_peers_is_no_noise() -> None:
    """The same log, learned from with and without the rule: the own effects are 0, 0.05 and 0.1 at z = 0."""
    off: dict[str, list[float]] = {"difference": [], "own": []}
    for seed in range(5):
        for rule, errors in off.items():
            policies = POLICIES if rule == "difference" else Policies.of(replace(spec(), reward=RewardSpec(), peers=()))
            learner = PolicyLearner(spec(policies))
            learner.learn_many([{**one, "reward_spec": spec(policies).reward_hash} for one in rewards_of(seed)])
            quality = Scorer(learner.snapshot(0)).components(FEATURES.encode({"z": 0.0})).quality
            errors.append(float(np.abs(quality - quality[0] - [0, 0.05, 0.1]).max()))
    assert np.mean(off["difference"]) < 0.025  # the prior draws 0.1 to 0.085
    assert np.mean(off["own"]) > 2 * np.mean(off["difference"])


def test_nor_is_what_it_does_in_another_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer's choice that is good in one context and bad in another: beside the same learner that sees the peer's levels alone."""
    rewards = rewards_of(2, 600, turn=-1.0)

    def noise() -> float:
        learner = PolicyLearner(spec())
        learner.learn_many(rewards)
        return float(np.sqrt(learner.posteriors()[0].noise[0]))

    crossed = noise()
    monkeypatch.setattr("learners.peers.MAX_BYTES", 0)
    assert crossed < 0.16  # with the prior's share
    assert noise() > 2 * crossed


def test_it_is_a_regression_on_difference_rewards() -> None:
    """Take from each quality what the learner expects had the baseline arm been taken, and fit what is left to the arms."""
    learner = PolicyLearner(spec())
    rewards = rewards_of(3)
    learner.learn_many(rewards)
    theta = learner.posteriors()[0].theta[:, 0]
    hidden, d, layout = learner.peers.width, learner.layout.dim, learner.layout
    base = ARMS.index("top_k=4")
    gram, products = np.zeros((layout.arm_size,) * 2), np.zeros((layout.arm_size, 1))
    for one in rewards:
        x = np.array(one["features"])
        expected = learner.peers.encode(one) @ theta[:hidden] + layout.phi(x, base) @ theta[hidden:]
        difference = one["quality"] - expected
        own = layout.phi(x, ARMS.index(one["arm"]))[d:]
        gram += np.outer(own, own)
        products[:, 0] += own * (difference + layout.phi(x, base)[d:] @ theta[hidden + d :])
    prior = precision(layout, FEATURES.kinds, QUALITY_PRIOR)[d:]
    again = solve(gram, products, np.ones(1), float(len(rewards)), prior, NOISE, NOISE_N).theta[:, 0]
    np.testing.assert_allclose(again, theta[hidden + d :], atol=1e-9)


def test_batches_restarts_shards_and_replays_give_the_same_bytes() -> None:
    rewards = rewards_of(4)
    whole, cut = PolicyLearner(spec()), PolicyLearner(spec())
    whole.learn_many(rewards)
    for one in rewards[:150]:
        cut.learn_one(one)
    cut = PolicyLearner.from_state(spec(), cut.to_state())
    cut.learn_many(rewards[150:])
    assert cut.to_state() == whole.to_state()
    assert cut.snapshot(7).to_record() == whole.snapshot(7).to_record()
    again = rebuild(spec(), 1, {}, rewards, whole.sources)
    assert again.to_state() == whole.to_state()
    even, odd = PolicyLearner(spec()), PolicyLearner(spec())
    even.learn_many([one for one in rewards if one["source_partition"] == 0])
    odd.learn_many([one for one in rewards if one["source_partition"] == 1])
    even.merge(odd)
    np.testing.assert_allclose(
        even.snapshot(7).tensors["weights.quality"], whole.snapshot(7).tensors["weights.quality"]
    )


def test_without_peers_nothing_is_different() -> None:
    plain = replace(spec(), reward=RewardSpec(), peers=())
    learner = PolicyLearner(plain)
    learner.learn_many([{**one, "reward_spec": plain.reward_hash} for one in rewards_of(1, 50)])
    assert learner.peers.width == 0
    assert learner.moments.sums.shape == Moments(3, 2).sums.shape
    own = precision(learner.layout, FEATURES.kinds, QUALITY_PRIOR)
    assert learner.beliefs.precisions[0].tolist() == own.tolist()


def test_other_arms_of_a_peer_begin_another_epoch() -> None:
    fewer = Policies.of(
        PolicySpec("default", "own", ARMS, "top_k=4", FEATURES, REWARD),
        PolicySpec("default", "other", ArmSpace({"model": ["small", "large"]}), "model=large"),
    )
    assert spec(fewer).reward_hash != spec().reward_hash
    assert spec(fewer).lineage != spec().lineage
    assert spec(Policies.of(*POLICIES)) == spec()
    assert Peer("a", ARMS, "top_k=4") != Peer("a", ARMS, "top_k=8")
    learner = PolicyLearner(spec(fewer))
    assert learner.learn_one(rewards_of(1, 1)[0]).outcomes == ["skipped:other_reward_spec"]
    learner = PolicyLearner(spec())
    learner.learn_many(rewards_of(1, 5))
    assert PolicyLearner.from_state(spec(fewer), learner.to_state()).epoch == 2


HEAD = """
[[policy]]
name = "a"
baseline = { m = 1 }
[policy.knobs]
m = [1, 2]

[[policy]]
name = "b"
baseline = { m = 1 }
[policy.knobs]
m = [1, 2]
[policy.reward]
"""


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('quality_credit = "difference"', "need each other"),
        ('peers = ["a"]', "need each other"),
        (
            'quality_credit = "difference"\npeers = ["a", "c"]',
            "policies.toml:15: policy[1].reward.peers: no policy of tenant",
        ),
        ('quality_credit = "difference"\npeers = ["a", "a"]', "listed twice"),
        ("share = 2.0", 'share needs quality_credit = "shared"'),
        ('quality_credit = "shared"\nshare = 0', "greater than 0"),
        ('quality_credit = "all"', "'own', 'shared' or 'difference'"),
    ],
)
def test_mistakes_are_named(lines: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"policies\.toml:\d+") as told:
        parse_policies(HEAD + lines)
    assert says in str(told.value)


def test_a_policies_file_names_the_rule() -> None:
    found = parse_policies(HEAD + 'quality_credit = "difference"\npeers = ["a", "b"]')
    a, b = found
    assert (a.is_peer, b.is_peer) == (True, True)
    assert [peer.name for peer in b.peers] == ["a", "b"]
    shared = parse_policies(HEAD + 'quality_credit = "shared"\nshare = 2.0').by_key("default/b")
    plain = parse_policies(HEAD).by_key("default/b")
    assert shared is not None
    assert plain is not None
    assert len({shared.reward_hash, plain.reward_hash, b.reward_hash}) == 3
    assert not plain.is_peer


def test_too_many_levels_of_peers_are_refused() -> None:
    levels = ", ".join(map(str, range(1, 200)))
    many = HEAD.replace(
        'name = "a"\nbaseline = { m = 1 }\n[policy.knobs]\nm = [1, 2]',
        f'name = "a"\nbaseline = {{ m = 1 }}\n[policy.knobs]\nm = [{levels}]',
    )
    with pytest.raises(ConfigError, match=r"reward\.peers: the peers have 198 levels"):
        parse_policies(many + 'quality_credit = "difference"\npeers = ["a"]')
