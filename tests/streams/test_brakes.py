"""Detectors as brakes: an alert takes a policy that decides back to its baseline, by an act that is on record as any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from learners.detector_settings import DetectorSettings
from learners.guard_spec import GuardSpec
from learners.policies import Policies
from learners.spec import PolicySpec
from steersman.codec import Codec
from streams.brakes import brake_act
from streams.control import act_of
from streams.detect.hit_brake import HitBrake
from streams.learning_stage import LearningOutput, LearningStage
from tests.learners.test_guard import GUARDED
from tests.streams.detect.test_stages import reward
from tests.streams.test_acts import Operated
from tests.streams.test_learning_stage import one

ACTS = Codec("policy_act")
OF_TRACES = DetectorSettings.model_validate({"brakes": ["tool_loop", "runaway"], "brake": {"hits": 3, "of": 10}})
OF_POLICIES = DetectorSettings.model_validate({"brakes": ["feedback_collapse"], "feedback_collapse": {"window": 20}})


class Braked(Operated):
    """A stage with brakes, whose acts come back over the control topic, and its log of rewards."""

    def __init__(self, spec: PolicySpec, settings: DetectorSettings, hits: dict[int, str]) -> None:
        self.settings, self.hits, self.asked = settings, hits, list[dict[str, Any]]()
        super().__init__(spec)

    def start(self) -> None:
        self.stage = LearningStage(
            self.policies, 0, 1, publish_interval_us=0, publish_interval_max_us=0, detectors=self.settings
        )
        self.stage.restore(self.saved.items())
        self.stage.published(self.heads())
        self.due()

    def reward(self, offset: int) -> dict[str, Any]:
        return reward(offset, hits=self.hits.get(offset, ""), trace_id=f"{offset:032x}")

    def _take(self, out: LearningOutput) -> None:
        asked = [act for act in out.acts if act["outcome"] == "ASKED"]
        out.acts = [act for act in out.acts if act["outcome"] != "ASKED"]
        super()._take(out)
        for act in asked:
            self.asked.append(act)
            if all(known.act_id != act["act_id"] for _, known in self.acts):  # as `ControlWatch`
                self.acts.append((len(self.acts), act_of(ACTS.decode(ACTS.encode(act)), None)))


def test_a_policy_whose_decisions_are_hit_again_and_again_is_rolled_back() -> None:
    run = Braked(one(), OF_TRACES, {3: "tool_loop", 20: "retry_storm tool_loop", 25: "retry_storm", 27: "runaway"})
    run.learn(28)
    assert not run.asked, "two of the last ten, and one of a detector that is no brake"
    assert run.last["stage"] == "LIVE"
    run.hits[28] = "empty_output tool_loop"
    run.learn(1)
    [act] = run.asked
    assert (act["act"], act["who"], act["expected"]) == ("ROLLBACK", "detector brake", "live")
    assert act["why"] == "3 of the last 10 decisions of a/one were hit: runaway 1, tool_loop 2"
    assert run.told() == ["ROLLBACK APPLIED shadow"]
    assert (run.last["stage"], run.last["acts"]) == ("SHADOW", 1)
    [alert] = run.alerts
    assert (alert["detector"], alert["severity"], alert["value"], alert["threshold"]) == ("brake", "CRITICAL", 3, 3)
    assert [f'"{20:032x}"' in alert["evidence"], '"brake": true' in alert["evidence"]] == [True, True]
    assert len(Codec("alert").encode(alert)) > 0
    run.check_rebuild()
    run.hits |= dict.fromkeys(range(29, 60), "tool_loop")
    run.learn(31)
    assert len(run.asked) == 1, "the baseline decides: there is nothing to stop"
    run.ask("PROMOTE")
    run.hits |= dict.fromkeys(range(60, 70), "tool_loop")
    run.learn(10)
    assert [act["expected"] for act in run.asked[1:]] == ["canary"]
    assert run.last["stage"] == "SHADOW"
    run.check_rebuild()


def test_decisions_that_the_policy_did_not_make_do_not_count() -> None:
    counting = HitBrake(OF_TRACES)
    for mode, n in (("HOLDOUT", 5), ("SHADOW", 5), ("FALLBACK", 5), ("LIVE", 2)):
        assert not [f for i in range(n) for f in counting.add(reward(i, mode=mode, hits="runaway"))]
    [found] = counting.add(reward(9, mode="CANARY", hits="runaway"))
    assert (found.value, found.evidence["hits"]) == (3, {"runaway": 3})
    assert not counting.add(reward(10, hits="runaway")), "it counts anew"


@pytest.mark.parametrize("cut", [5, 12, 20, 25])
def test_a_restart_changes_nothing_and_a_repeat_asks_for_the_same_act(cut: int) -> None:
    hits = dict.fromkeys((3, 11, 19, 21, 28), "tool_loop")
    whole, parts = Braked(one(), OF_TRACES, hits), Braked(one(), OF_TRACES, hits)
    whole.learn(40)
    assert len(whole.asked) == 1
    parts.learn(cut)
    parts.save()
    # A worker that dies after it has asked and before it has saved: the next one asks again.
    lost = [(n, 0, parts.reward(n)) for n in range(cut, 30)]
    made = parts.stage.process(lost, now_us=1, monotonic_us=parts.monotonic)
    assert [act for act in made.acts if act["outcome"] == "ASKED"] == whole.asked
    parts.start()
    parts.learn(40 - cut)
    assert parts.asked == whole.asked
    assert parts.told() == ["ROLLBACK APPLIED shadow"]
    parts.check_rebuild()
    # The act that the dead one had written is read first: there is nothing to ask for any more.
    late = Braked(one(), OF_TRACES, hits)
    late.learn(cut)
    late.acts.append((0, act_of(ACTS.decode(ACTS.encode(whole.asked[0])), None)))
    late.due()
    late.learn(40 - cut)
    assert (late.asked, late.last["stage"]) == ([], "SHADOW")
    late.check_rebuild()


def test_a_detector_of_policies_is_a_brake_and_a_guard_goes_on_from_there() -> None:
    run = Braked(one(), OF_POLICIES, {})
    run.learn(30)
    [act] = run.asked
    assert act["who"] == "detector feedback_collapse"
    assert run.told() == ["ROLLBACK APPLIED shadow"]
    run.check_rebuild()
    guarded = replace(GUARDED, guard=GuardSpec(start="live"))
    stage = LearningStage(Policies.of(guarded), 0, 1, detectors=OF_POLICIES)
    made = stage.process(
        [(n, 0, reward(n, policy=guarded.name, tenant=guarded.tenant, reward_spec=guarded.reward_hash, arm=guarded.arms.labels[1],
                       features=[0.0] * (guarded.features.dim - 1) + [1.0])) for n in range(30)],
        now_us=1, monotonic_us=0,
    )  # fmt: skip
    [act] = [act for act in made.acts if act["outcome"] == "ASKED"]
    assert act["expected"] == "live"


def test_nothing_is_asked_of_a_policy_that_does_not_decide() -> None:
    alert = {"alert_id": "a", "tenant": "t", "policy": "p", "detector": "runaway", "ts": 5, "message": "m" * 900}
    assert [brake_act(alert, word) for word in ("shadow", "apprentice", "frozen", "pinned", "retired")] == [None] * 5
    act = brake_act(alert, "live")
    assert act is not None
    assert act == brake_act(dict(alert), "live"), "the same alert is the same act"
    assert len(act["why"]) == 500
    with pytest.raises(ValidationError, match="never 9 can be hit"):
        DetectorSettings.model_validate({"brake": {"hits": 9, "of": 5}})
