from __future__ import annotations

from pathlib import Path

import pytest

from learners.policies import Policies
from learners.policies_file import load_policies, parse_policies
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from learners.toml_lines import key_lines, line_of
from steersman.arms import ArmSpace
from steersman.errors import ConfigError

EXAMPLE = """\
# two policies of a research assistant
[[policy]]
name = "research/retrieval"
baseline = { model = "large", top_k = 8 }
forbidden = [{ model = "small", top_k = 16 }]

[policy.knobs]
model = ["small", "large"]
top_k = [4, 8, 16]

[[policy.features]]
kind = "numeric"
name = "complexity"
scale = 2.0
[[policy.features]]
kind = "categorical"
name = "domain"
values = ["law", "news"]

[policy.reward]
aggregation = "mean"
default = 0.25
window_s = 60
weights = { quality = 1.0, cost = 0.5 }
scales = { cost_micro_usd = 10000.0 }
ceilings = { latency_us = 9e6 }

[policy.exploration]
floor = 0.05

[[policy]]
name = "research/synthesis"
tenant = "acme"
baseline = { effort = "low", stream = true }
[policy.knobs]
effort = ["low", "high"]
stream = [true, false]
"""


def test_example(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(EXAMPLE)
    policies = load_policies(path)
    assert [spec.key for spec in policies] == ["default/research/retrieval", "acme/research/synthesis"]
    spec = policies.get("default", "research/retrieval")
    assert spec is not None
    assert spec is policies.by_key("default/research/retrieval")
    assert len(policies) == 2
    assert policies.get("acme", "research/retrieval") is None
    assert len(spec.arms) == 5
    assert spec.baseline == "model=large;top_k=8"
    assert spec.features.dim == 4
    assert spec.reward.utility(0.8, 20_000, 1e6, 3) == pytest.approx(0.8 - 0.5 * 2)
    assert spec.reward.ceilings.latency_us == 9e6
    assert spec.exploration.floor == 0.05
    other = policies.get("acme", "research/synthesis")
    assert other is not None
    assert other.arms.labels[0] == "effort=low;stream=true"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("quality = 1.0", "qualty = 1.0", 24, ["policy[0].reward.weights.qualty", "unknown key"]),
        ('"law", "news"', '"law", "law"', 15, ["features[1]: ", "listed twice"]),
        ("top_k = 8 }", "top_k = 9 }", 4, ["policy[0].baseline", "no level 9"]),
        ('model = "large", top_k = 8', 'model = "small", top_k = 16', 4, ["baseline", "forbidden"]),
        ("cost = 0.5", "cost = -1", 24, ["weights.cost", "greater than or equal to 0", "-1"]),
        ("cost = 0.5", "cost = nan", 24, ["weights.cost", "finite"]),
        ("scales = { cost_micro_usd = 10000.0 }\n", "", 20, ["needs scales.cost_micro_usd"]),
        ("scales = { cost_micro_usd = 10000.0 }", "scales = { cost_micro_usd = 0 }", 25, ["greater than 0"]),
        ("quality = 1.0, cost = 0.5", "quality = 0.0", 24, ["all weights are 0"]),
        ('"mean"', '"median"', 21, ["reward.aggregation", "median"]),
        ("[4, 8, 16]", "[4, 8, 8]", 9, ["policy[0].knobs.top_k", "twice"]),
        ("[4, 8, 16]", "[4, 8, [1]]", 9, ["knobs.top_k", "string, a finite number or a boolean"]),
        ("[4, 8, 16]", "8", 9, ["knobs.top_k", "list"]),
        ("top_k = 16 }", "topk = 16 }", 5, ["forbidden", "'topk'"]),
        ('kind = "numeric"', 'kind = "numric"', 11, ["features[0]", "numric", "categorical"]),
        ('name = "complexity"\n', "", 11, ["features[0].name", "required"]),
        ('"complexity"', '"domain"', 11, ["policy[0].features", "listed twice"]),
        ("floor = 0.05", "floor = 2", 29, ["exploration.floor"]),
        ("floor = 0.05", 'floor = 0.05\nlearner = "x"', 30, ["exploration.learner", "unknown key"]),
        ('tenant = "acme"', 'tenant = "acme"\nlearner = "magic"', 34, ["policy[1].learner", "magic", "linear"]),
        ('tenant = "acme"', 'tenant = "a/b"', 33, ["policy[1].tenant"]),
        ('tenant = "acme"', 'tenant = "acme"\nlearning = { shards = 65 }', 34, ["policy[1].learning.shards", "64"]),
        ('tenant = "acme"', 'tenant = "acme"\nlearning = { shards = 0 }', 34, ["learning.shards", "greater"]),
        ('tenant = "acme"', 'tenant = "acme"\nlearning = { shards = true }', 34, ["learning.shards", "integer"]),
        ('name = "research/synthesis"', 'name = "a#1"', 32, ["policy[1].name", "pattern"]),
        ('name = "research/synthesis"\ntenant = "acme"', 'name = "research/retrieval"', 32, ["exists already"]),
        ("[policy.knobs]\nmodel", "[policy.knobs\nmodel", 7, ["not TOML"]),
        ("# two", "polcy = 1\n# two", 1, ["polcy", "unknown key"]),
    ],
)
def test_errors_name_file_line_and_key(old: str, new: str, line: int, words: list[str]) -> None:
    assert old in EXAMPLE
    with pytest.raises(ConfigError) as caught:
        parse_policies(EXAMPLE.replace(old, new, 1), "etc/policies.toml")
    message = str(caught.value)
    assert message.startswith(f"etc/policies.toml:{line}: "), message
    for word in words:
        assert word in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="STEERSMAN_POLICIES"):
        load_policies(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_policies(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match="no policy"):
        parse_policies("")


def test_all_problems_are_listed() -> None:
    text = EXAMPLE.replace("cost = 0.5", "cost = -1").replace('"mean"', '"median"')
    with pytest.raises(ConfigError) as caught:
        parse_policies(text)
    assert [part.split(":")[1] for part in str(caught.value).splitlines()] == ["21", "24"]


def test_reward_hash_covers_definitions_not_weights() -> None:
    base = RewardSpec()
    assert len(base.hash) == 16
    assert RewardSpec(weights=Weights(cost=3.0)).hash == base.hash
    assert RewardSpec(settle_ms=5).hash == base.hash
    for other in (
        RewardSpec(metric="thumbs"),
        RewardSpec(default=0.0),
        RewardSpec(window_s=1),
        RewardSpec(credit="trace"),
        RewardSpec(aggregation="max"),
        RewardSpec(scales=Scales(latency_us=1)),
    ):
        assert other.hash != base.hash


def test_lineage_covers_arms_and_features() -> None:
    one = PolicySpec("t", "p", ArmSpace({"m": ["a", "b"]}), "m=a")
    two = PolicySpec("t", "p", ArmSpace({"m": ["a", "c"]}), "m=a")
    assert one.lineage != two.lineage
    assert one.reward_hash == two.reward_hash
    assert one.lineage == PolicySpec("t", "p", ArmSpace({"m": ["a", "b"]}), "m=b").lineage
    assert Policies.of(one).get("t", "p") is one
    with pytest.raises(ValueError, match="no arm"):
        PolicySpec("t", "p", one.arms, "m=z")


def test_lines_of_keys() -> None:
    lines = key_lines('a = 1\n[t."x.y"]\nb.c = { d = 1, "e f" = 2 }\n[[u]]\n[[u.v]]\nk = 1\n[[u.v]]\nk = 2\n')
    assert line_of(lines, ("a",)) == 1
    assert line_of(lines, ("t", "missing")) == 2
    assert line_of(lines, ("t", "x.y", "b", "c", "e f")) == 3
    assert line_of(lines, ("u", 0, "v", 1, "k")) == 8
    assert line_of(lines, ("u", 0, "v", 0, "missing")) == 5
    assert line_of(lines, ("nothing",)) == 1


@pytest.mark.parametrize(
    ("old", "extra", "words"),
    [
        ("[policy.exploration]", '[policy.learning]\nshards = 2\n[policy.exploration]', ["ceilings", "one order"]),
        ("[policy.exploration]", "[policy.prices.model]\nhuge = 1.0\n[policy.exploration]", ["prices.model.huge", "small, large"]),
        ("[policy.exploration]", "[policy.prices.nothing]\nhuge = 1.0\n[policy.exploration]", ["prices.nothing", "model, top_k"]),
        ("[policy.exploration]", "[policy.prices.model]\nsmall = 0.0\n[policy.exploration]", ["prices.model.small", "greater than 0"]),
        ("[policy.exploration]", "[policy.learning]\nhalf_life = 10\n[policy.exploration]", ["learning.half_life"]),
        ("latency_us = 9e6", "latency_us_p90 = 9e6", ["ceilings.latency_us_p90", "unknown key"]),
        ("ceilings = { latency_us = 9e6 }", "tenant_ceilings = { acme = { cost_micro_usd = 5 } }", ["categorical feature 'tenant'", "p.toml:26"]),
        ("ceilings = {", 'tenant_feature = "domain"\nceilings = {', ["reward.tenant_feature", "needs tenant_ceilings"]),
        ("ceilings = {", 'tenant_feature = "complexity"\ntenant_ceilings = { law = { failures = 1 } }\nceilings = {', ["categorical"]),
        ("ceilings = {", 'tenant_feature = "domain"\ntenant_ceilings = { sports = { failures = 1 } }\nceilings = {',
         ["tenant_ceilings.sports", "no such value; it has law, news"]),
        ("ceilings = {", 'tenant_feature = "domain"\ntenant_ceilings = { law = {} }\nceilings = {', ["tenant_ceilings.law", "sets no ceiling"]),
        ("ceilings = {", 'tenant_ceilings = { law = { calls = 1 } }\nceilings = {', ["tenant_ceilings.law.calls", "unknown key"]),
        ("ceilings = { latency_us = 9e6 }", 'tenant_feature = "domain"\ntenant_ceilings = { law = { failures = 1 } }\n[policy.learning]\nshards = 2',
         ["reward.tenant_ceilings", "one order"]),
    ],
)  # fmt: skip
def test_errors_of_ceilings_prices_and_learning(old: str, extra: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_policies(EXAMPLE.replace(old, extra, 1), "p.toml")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "p.toml:" in str(caught.value)


def test_ceilings_of_tenants() -> None:
    text = EXAMPLE.replace(
        "ceilings = {", 'tenant_feature = "domain"\ntenant_ceilings = { law = { tool_calls = 3 } }\nceilings = {'
    )
    spec = parse_policies(text).get("default", "research/retrieval")
    assert spec is not None
    assert spec.reward.tenant_ceilings["law"].tool_calls == 3
    assert (spec.reward.tenant_key, spec.reward.limits_tool_calls) == ("domain", True)
    with pytest.raises(
        ConfigError, match=r"p\.toml:\d+: policy\[0\]\.reward\.tenant_ceilings: the learner 'neural' keeps no"
    ):
        parse_policies(text.replace("baseline", 'learner = "neural"\nbaseline', 1), "p.toml")
    values = ", ".join(f'"t{i}"' for i in range(40))
    many = ", ".join(f"t{i} = {{ failures = 1 }}" for i in range(40))
    text = text.replace('"law", "news"', values).replace("law = { tool_calls = 3 }", many)
    with pytest.raises(ConfigError, match="40 tenants are more than 32"):
        parse_policies(text)


def test_ceilings_prices_and_learning() -> None:
    text = EXAMPLE.replace("latency_us = 9e6", "cost_micro_usd = 5000, latency_us_p95 = 9e6").replace(
        "[policy.exploration]",
        "[policy.learning]\nhalf_life = 5000\ndrift = false\nrobust = false\n[policy.prices.top_k]\n4 = 1.5\n[policy.exploration]",
        1,
    )
    spec = parse_policies(text).get("default", "research/retrieval")
    assert spec is not None
    assert (spec.reward.ceilings.cost_micro_usd, spec.reward.ceilings.latency_us_p95) == (5000, 9e6)
    assert (spec.learning.half_life, spec.learning.drift, spec.learning.robust) == (5000, False, False)
    assert spec.prices == {"top_k": {"4": 1.5}}
    assert spec.lineage == parse_policies(EXAMPLE).get("default", "research/retrieval").lineage  # type: ignore[union-attr]
