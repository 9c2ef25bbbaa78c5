"""What the trace stage makes of calls that report no cost, under a price table."""

from __future__ import annotations

from steersman.prices import PriceTable
from streams.trace_stage import TraceStage
from tests.streams.trace_events import MS, POLICIES, T0, S, decision, event, feed, feedback, span_id, tick

PRICES = PriceTable.parse("""
[[model]]
provider = "openai"
names = ["gpt"]
from = 2026-01-01
input = 2
output = 8
""")


def test_rewards_and_rollups_hold_the_computed_cost_and_the_ledger_what_was_reported() -> None:
    stage = TraceStage(POLICIES, 3, prices=PRICES)
    asked = {"parent_span_id": span_id("root"), "provider": "openai"}
    log = [
        decision(T0, parent_span_id=span_id("root")),
        event("MODEL_CALL", T0 + MS, "priced", operation="gpt", input_tokens=1000, output_tokens=10, **asked),
        event(
            "MODEL_CALL", T0 + MS, "paid", operation="gpt", input_tokens=9, output_tokens=9, cost_micro_usd=5, **asked
        ),
        event("MODEL_CALL", T0 + MS, "unknown", operation="other", input_tokens=1000, output_tokens=10, **asked),
        event("MODEL_CALL", T0 + MS, "no tokens", operation="gpt", **asked),
        event("AGENT", T0 + 2 * MS, "root"),
        event("END", T0 + 3 * MS),
        feedback(T0 + 4 * MS, 1.0),
    ]
    first, second = feed(stage, log), feed(stage, [tick(T0 + 2 * S)])
    (reward,) = second.rewards
    assert reward["cost_micro_usd"] == 2080 + 5
    assert {name: count for name, count in first.counters.items() if "priced" in name} == {
        "priced": 1, "unpriced_unknown_model": 1, "unpriced_no_tokens": 1,
    }  # fmt: skip
    rolled = {(one["kind"], one["operation"]): one for one in first.rollups + second.rollups}
    assert rolled["MODEL_CALL", "gpt"]["cost_micro_usd"] == 2085
    assert rolled["MODEL_CALL", "gpt"]["unpriced"] == 1
    assert (rolled["MODEL_CALL", "other"]["cost_micro_usd"], rolled["MODEL_CALL", "other"]["unpriced"]) == (0, 1)
    accepted = [entry["amount"] for entry in stage.audit() if entry["outcome"] == "accepted"]
    assert sum(accepted) == 5
