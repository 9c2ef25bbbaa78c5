"""A candidate plays the log: what it may know when, and whether the truth lies within the intervals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners.spec import PolicySpec
from learners.whatif.answer import Answer, answer
from learners.whatif.replaying import blocks, play, record_of
from learners.whatif.reward_log import Log, LogReader
from learners.whatif.translation import Translation, translate
from tests.learners.whatif.world import HEAD, SECOND, START_US, candidate_of, expected, log_of, spec_of, utilities

EXPLORING = "[policy.exploration]\nfloor = 0.2\n"


def read(ran: PolicySpec, records: list[dict[str, Any]], **span: int) -> Log:
    reader = LogReader(ran, **span)
    for record in records:
        reader.add(record)
    assert reader.read == len(records)
    return reader.finish()


def asked(ran: PolicySpec, candidate: PolicySpec, n: int, seed: int, **more: Any) -> tuple[Translation, Log, Answer]:
    translation = translate(ran, candidate)
    log = read(ran, log_of(ran, n, seed, **more))
    return translation, log, answer(translation, log)


def test_the_truth_lies_within_the_intervals_in_nearly_all_seeds() -> None:
    """Other weights, on the log of a learner that explores: prequential, final policy, and the gain, all against the computed truth."""
    ran, candidate = spec_of(HEAD + EXPLORING), spec_of(HEAD.replace("cost = 0.2", "cost = 0.02") + EXPLORING)
    runs = 16
    inside: dict[str, int] = {}
    off: list[float] = []
    for seed in range(runs):
        translation, log, made = asked(ran, candidate, 900, seed)
        played = play(translation, log.rewards)
        x = np.stack([reward.features for reward in played.rewards])
        for part, target, start in zip(made.parts, (played.target, played.final), (0, played.start), strict=True):
            true = {
                "utility": utilities(candidate, ran, x), "utility as it ran": utilities(ran, ran, x),
                **dict(zip(("quality", "cost_micro_usd", "latency_us"), expected(ran, x), strict=True)),
            }  # fmt: skip
            for name, table in true.items():
                value = float((target * table[start:]).sum(axis=1).mean())
                found = part[name]
                for e in found.candidate.estimates:
                    key = f"{part.name}, {name}, {e.estimator}"
                    inside[key] = inside.get(key, 0) + (e.likelihood.low <= value <= e.likelihood.high)
                taken = np.array([reward.arm for reward in played.rewards[start:]])
                more = value - float(table[start:][np.arange(len(taken)), taken].mean())
                low, high = found.gain.interval
                inside[f"{part.name}, {name}, gain"] = inside.get(f"{part.name}, {name}, gain", 0) + (
                    low <= more <= high
                )
        off.append(
            made.parts[0]["utility"].candidate["dr"].value - float((played.target * true["utility"]).sum(axis=1).mean())
        )
    assert min(inside.values()) >= runs - 3, inside
    assert np.mean(list(inside.values())) >= 0.95 * runs
    assert abs(np.mean(off)) < 3 * np.std(off) / np.sqrt(runs) + 0.002, "right on the mean"


def test_a_better_candidate_is_told_apart_and_the_same_one_is_not() -> None:
    ran = spec_of(HEAD + EXPLORING)
    worse = spec_of(HEAD.replace("cost = 0.2", "cost = 0.02") + EXPLORING)
    _, _, made = asked(worse, ran, 3000, 1)
    assert made.parts[0]["utility"].sure == 1, "what ran paid for large models that the candidate's weights do not want"
    assert made.parts[0]["cost_micro_usd"].sure == -1
    found = [asked(ran, ran, 1500, seed)[2] for seed in range(2, 8)]
    assert not any(same.parts[1]["utility"].sure for same in found)
    assert [measure.name for measure in found[0].parts[0].measures] == [
        "utility", "quality", "cost_micro_usd", "latency_us", "failures",
    ]  # fmt: skip
    shares = [same.parts[1]["utility"].candidate.ess / same.parts[1]["utility"].n for same in found]
    assert np.mean(shares) > 0.4, "a single log's share is between 0.15 and 0.95"


def test_a_decision_is_foretold_from_rewards_that_had_closed_before_it_alone() -> None:
    ran, candidate = spec_of(), candidate_of("quality = 1.0", "quality = 2.0")
    records = log_of(ran, 400, 3)
    translation = translate(ran, candidate)
    whole = play(translation, read(ran, records).rewards)
    for i in (0, 150, 299):
        at = whole.rewards[i].decided_at
        known = [r if r["ts"] < at else {**r, "quality": 100.0, "cost_micro_usd": 10**6} for r in records]
        other = play(translation, read(ran, known).rewards)
        assert other.target[: i + 1].tolist() == whole.target[: i + 1].tolist()
        for name, model in whole.models.items():
            assert other.models[name][: i + 1].tolist() == model[: i + 1].tolist()
    assert other.target.tolist() != whole.target.tolist()
    assert whole.target.sum(axis=1) == pytest.approx(np.ones(len(whole.rewards)))
    assert not whole.target[~whole.eligible].any()


def test_blocks_grow_cover_all_and_begin_where_the_last_part_does() -> None:
    found = list(blocks(10_000, 7_507))
    assert found[0] == (0, 10)
    assert 7_507 in [first for first, _ in found]
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(found))
    assert found[-1][1] == 10_000
    assert max(end - first for first, end in found) <= 66


def test_little_overlap_is_said_and_nothing_is_called_sure() -> None:
    ran = spec_of()
    translation, log, made = asked(ran, candidate_of("cost = 0.2", "cost = 0.02"), 1500, 0)
    assert any("Little overlap" in remark for remark in made.remarks)
    found = made.parts[0]["utility"]
    assert found.candidate.off_balance
    assert found.sure == 0
    played = play(translation, log.rewards)
    x = np.stack([reward.features for reward in played.rewards])
    truth = float((played.target * utilities(translation.candidate, ran, x)).sum(axis=1).mean())
    assert found.candidate["dr"].likelihood.low <= truth <= found.candidate["dr"].likelihood.high


def test_missing_quality_is_said_and_cost_is_still_told() -> None:
    ran = spec_of(HEAD + EXPLORING)
    _, _, made = asked(ran, ran, 600, 4, unjudged=0.4)
    assert any("have no quality" in remark for remark in made.remarks)
    assert made.parts[0]["cost_micro_usd"].n == made.decisions > made.parts[0]["quality"].n
    _, _, none = asked(ran, ran, 300, 5, unjudged=1.0)
    assert [measure.name for measure in none.parts[0].measures] == ["cost_micro_usd", "latency_us", "failures"]
    assert not none.answerable


def test_the_default_quality_of_the_candidate_counts() -> None:
    ran = spec_of(HEAD + EXPLORING)
    candidate = spec_of(HEAD.replace("[policy.reward]", "[policy.reward]\ndefault = 0.25") + EXPLORING)
    translation = translate(ran, candidate)
    log = read(ran, log_of(ran, 200, 6, unjudged=1.0))
    made = answer(translation, log)
    assert made.parts[0]["quality"].ran == 0.25


def test_of_too_many_decisions_some_are_evaluated_and_all_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = spec_of(HEAD + EXPLORING)
    monkeypatch.setattr("learners.whatif.replaying.MOST", 50)
    _, log, made = asked(ran, ran, 300, 11)
    assert (made.decisions, made.learned) == (50, 300)
    assert any(
        f"50 decisions, spread evenly over the time, were evaluated; {sum(r.drawn for r in log.rewards) - 50} more" in r
        for r in made.remarks
    )


def test_a_single_decision_is_answered_without_a_last_part() -> None:
    ran = spec_of(HEAD + EXPLORING)
    records = [r for r in log_of(ran, 30, 12) if r["mode"] == "LIVE"][:1]
    made = answer(translate(ran, ran), read(ran, records))
    assert [part.name for part in made.parts] == ["as it learned"]
    assert np.isfinite(made.parts[0]["utility"].ran_interval).all()


def test_nothing_drawn_cannot_be_answered() -> None:
    ran = spec_of()
    records = [{**r, "mode": "HOLDOUT", "propensity": 1.0} for r in log_of(ran, 60, 7)]
    made = answer(translate(ran, ran), read(ran, records))
    assert (made.parts, made.answerable, made.decisions, made.control_n) == ((), False, 0, 60)
    assert "Nothing on this part of the log can answer" in made.remarks[0]


def test_what_does_not_count_is_left_out_and_counted() -> None:
    ran = spec_of()
    records = log_of(ran, 80, 8)
    fallback = {**records[0], "mode": "FALLBACK", "features": [], "policy_epoch": None, "source_offset": 100}
    older = {**records[1], "policy_epoch": 0, "source_offset": 101}
    other = {**records[2], "reward_spec": "f" * 16, "source_offset": 102}
    log = read(ran, [*records, records[5], fallback, older, other])
    assert log.left_out == {
        "repeats": 1, "decided without a policy (fallback)": 1, "of another definition of the reward": 1,
        "of earlier epochs, whose arms or features were others": 1,
    }  # fmt: skip
    assert len(log.rewards) == 80
    part = read(ran, records, since_us=START_US + 20 * SECOND, until_us=START_US + 30 * SECOND)
    assert len(part.rewards) == 10
    assert part.left_out["outside the time asked for"] == 70


def test_a_candidate_learns_what_a_running_one_would_have() -> None:
    """The records it is fed differ from the logged ones in what is the candidate's own, and the learner takes all of them."""
    ran = spec_of()
    candidate = replace(spec_of(HEAD.replace("cost = 0.2", "cost = 0.4")), name=ran.name)
    translation = translate(ran, candidate)
    log = read(ran, log_of(ran, 300, 9))
    played = play(translation, log.rewards)
    assert played.learned == 300
    assert played.skipped == {}
    fed = record_of(translation, log.rewards[0])
    assert fed is not None
    assert fed["mode"] in ("SHADOW", "HOLDOUT")


@pytest.mark.parametrize("learner", ["thompson", "linucb", "ucb1", "epsilon_greedy", "squarecb"])
def test_every_learner_can_be_the_candidate(learner: str) -> None:
    ran = spec_of(HEAD + EXPLORING)
    candidate = spec_of(HEAD.replace('name = "a/one"', f'name = "a/one"\nlearner = "{learner}"'))
    _, _, made = asked(ran, candidate, 250, 10)
    assert made.answerable
    assert made.learned == 250
