"""What ran, in the words of a candidate with other arms, features, prices and rules."""

from __future__ import annotations

import numpy as np
import pytest

from learners.spec import PolicySpec
from learners.whatif.answer import answer
from learners.whatif.replaying import play, record_of, values_of
from learners.whatif.reward_log import LogReader
from learners.whatif.translation import NotAnswerable, translate
from tests.learners.whatif.world import HEAD, candidate_of, log_of, spec_of

RAN = spec_of()


def arms(candidate: PolicySpec) -> dict[str, str | None]:
    found = translate(RAN, candidate)
    return {
        label: RAN.arms.labels[at] if at >= 0 else None
        for label, at in zip(found.candidate.arms.labels, found.to_ran, strict=True)
    }


def test_the_same_file_is_itself() -> None:
    found = translate(RAN, RAN)
    assert found.to_ran.tolist() == found.to_candidate.tolist() == list(range(6))
    assert found.columns.tolist() == [0, 1, 2, 3]
    assert (found.remarks, found.unseen) == ((), ())


def test_a_removed_knob_stays_at_the_baselines_level() -> None:
    candidate = spec_of(HEAD.replace(", k = 4 }", " }").replace("k = [2, 4]\n", ""))
    assert arms(candidate) == {f"model={m}": f"model={m};k=4" for m in ("small", "middle", "large")}
    found = translate(RAN, candidate)
    assert found.to_candidate.tolist() == [-1, 0, -1, 1, -1, 2]
    assert found.remarks[0].startswith("The candidate has no knob k: it is taken to stay at 4")


def test_a_new_level_has_no_data_and_is_left_out_of_the_answer() -> None:
    candidate = candidate_of('["small", "middle", "large"]', '["small", "huge", "large"]')
    assert arms(candidate)["model=huge;k=2"] is None
    assert translate(RAN, candidate).unseen == ("model=huge",)
    reader = LogReader(RAN)
    for record in log_of(RAN, 300, 1):
        reader.add(record)
    log = reader.finish()
    made = answer(translate(RAN, candidate), log)
    assert any("Never tried, so nobody can tell from this log: model=huge." in remark for remark in made.remarks)
    assert play(translate(RAN, candidate), log.rewards).unseen_share > 0.05
    assert any("of arms that the candidate does not have" in remark for remark in made.remarks), "the middle ones"
    assert {arm: share for arm, _, _, share in made.shares}["model=middle;k=2"] == 0.0


def test_a_new_knob_is_taken_to_have_been_at_its_baseline() -> None:
    candidate = spec_of(
        HEAD.replace("k = 4 }", 'k = 4, effort = "low" }').replace("k = [2, 4]", 'k = [2, 4]\neffort = ["low", "high"]')
    )
    found = arms(candidate)
    assert found["model=small;k=2;effort=low"] == "model=small;k=2"
    assert found["model=small;k=2;effort=high"] is None
    assert translate(RAN, candidate).unseen == ("effort=high",)


def test_features_left_out_and_in_another_order_are_found_again() -> None:
    hard = '[[policy.features]]\nkind = "numeric"\nname = "hard"\n'
    kind = '[[policy.features]]\nkind = "categorical"\nname = "kind"\nvalues = ["law", "news"]\n'
    assert translate(RAN, spec_of(HEAD.replace(hard, ""))).columns.tolist() == [1, 2, 3]
    assert translate(RAN, spec_of(HEAD.replace(hard + kind, kind + hard))).columns.tolist() == [1, 2, 0, 3]
    assert translate(RAN, candidate_of('["law", "news"]', '["news"]')).columns.tolist() == [0, 2, 3]
    for wrong in ('name = "harder"', 'name = "hard"\nscale = 2.0'):
        with pytest.raises(NotAnswerable, match="new or encoded otherwise"):
            translate(RAN, candidate_of('name = "hard"', wrong))


def test_what_no_log_can_tell_is_refused_or_said() -> None:
    with pytest.raises(NotAnswerable, match="metric 'stars', and the log holds 'quality'"):
        translate(RAN, candidate_of("[policy.reward]", '[policy.reward]\nmetric = "stars"'))
    with pytest.raises(NotAnswerable, match="none of the candidate's arms ever ran"):
        translate(RAN, spec_of(HEAD.replace('"large"', '"x"').replace('"small", "middle"', '"y", "z"')))
    text = HEAD.replace("[policy.reward]", '[policy.reward]\nwindow_s = 60.0\ncredit = "trace"')
    text += "ceilings = { cost_micro_usd = 500.0 }\n[policy.guard]\nshadow = 10\n[policy.sessions]\nswitch_cost = 0.1\n"
    said = " ".join(translate(RAN, spec_of(text)).remarks)
    for part in (
        "reward.window_s",
        "reward.credit",
        "ceilings are kept",
        "guard is left out",
        "Sessions are not replayed",
    ):
        assert part in said


def test_costs_are_put_to_the_candidates_prices() -> None:
    prices = "[policy.prices.model]\nsmall = {}\nmiddle = 2.0\nlarge = 4.0\n"
    ran, candidate = spec_of(HEAD + prices.format("1.0")), spec_of(HEAD + prices.format("0.5"))
    found = translate(ran, candidate)
    assert found.price.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]
    reader = LogReader(ran)
    for record in log_of(ran, 40, 2):
        reader.add(record)
    for reward in reader.finish().rewards:
        assert values_of(found, reward)[1] == reward.cost_micro_usd * (0.5 if reward.arm < 2 else 1.0)
        fed = record_of(found, reward)
        assert fed is not None
        assert fed["cost_micro_usd"] == values_of(found, reward)[1]


def test_shards_are_learned_as_one() -> None:
    found = translate(RAN, spec_of(HEAD + "[policy.learning]\nshards = 4\n"))
    assert found.candidate.shards == 1
    assert np.array_equal(found.to_ran, np.arange(6))
