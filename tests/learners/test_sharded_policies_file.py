"""What a policy in shards may ask for, and how it is told what it may not."""

from __future__ import annotations

import pytest

from learners.policies_file import parse_policies
from steersman.errors import ConfigError

POLICY = """\
[[policy]]
name = "a/hot"
baseline = {{ model = "large" }}
{top}
[policy.knobs]
model = ["small", "large"]
[policy.reward]
metric = "quality"
{reward}
[policy.learning]
shards = 4
{learning}
{tables}
"""


def policy(**parts: str) -> str:
    return POLICY.format(**({"top": "", "reward": "", "learning": "", "tables": ""} | parts))


@pytest.mark.parametrize(
    ("part", "text", "line", "key", "says"),
    [
        ("reward", "ceilings = { cost_micro_usd = 5.0 }", 9, "reward.ceilings", "one order"),
        ("reward", 'quarantined = ["someone"]', 9, "reward.quarantined", "one order"),
        ("learning", "half_life = 1000.0", 12, "learning.half_life", "one order"),
        ("learning", "drift = true", 12, "learning.drift", "one order"),
        ("tables", "[policy.prices.model]\nsmall = 1.0\nlarge = 2.0", 13, "prices", "one order"),
        ("tables", '[policy.guard]\nstart = "shadow"', 13, "guard", "no guard"),
        ("top", 'learner = "neural"', 4, "learning.shards", "does not add up"),
    ],
)
def test_what_needs_one_order_of_the_rewards_is_refused_with_its_place_and_a_way_out(
    part: str, text: str, line: int, key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_policies(policy(**{part: text}), "p.toml")
    message = str(caught.value)
    line = 11 if key == "learning.shards" else line
    assert message.startswith(f"p.toml:{line}: policy[0].{key}"), message
    assert says in message
    assert "shards" in message, "what to change"


def test_the_rest_goes_with_shards() -> None:
    text = policy(
        reward="weights = { quality = 1.0, failures = 0.1 }\nrange = [0.0, 1.0]",
        learning="robust = true\ntrim = 0.05",
        tables='[policy.exploration]\nkind = "thompson"\nfloor = 0.01\n[policy.sessions]\nswitch_cost = 0.05',
    )
    spec = parse_policies(text).get("default", "a/hot")
    assert spec is not None
    assert (spec.shards, spec.learning.robust, spec.learning.trim, spec.switch_cost) == (4, True, 0.05, 0.05)
    assert spec.exploration.kind == "thompson"
