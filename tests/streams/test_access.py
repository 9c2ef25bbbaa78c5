from __future__ import annotations

import pytest

from steersman.errors import ConfigError
from steersman.kafka_config import FOLLOWERS
from steersman.topics import Topics
from streams.access import DEFAULT_ROLES, Grant, allowed, chosen, commands, grants, principals, roles
from streams.access_page import PAGE, page
from streams.topics import topic_specs


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m streams.access_page"


def test_only_learners_and_operators_write_policies() -> None:
    topics = Topics("p")
    table = roles(topics)
    who = {name for name, role in table.items() if "WRITE" in allowed(role, "TOPIC", topics.policy)}
    assert who == {"worker", "learner", "operator"}
    assert {name for name, role in table.items() if allowed(role, "CLUSTER", "kafka-cluster")} == {"operator"}


def test_a_worker_may_what_its_two_stages_may_and_no_more() -> None:
    table = roles(Topics("p"))
    names = [spec.name for spec in topic_specs(Topics("p"), 1)]
    for name in names:
        both = {*allowed(table["processor"], "TOPIC", name), *allowed(table["learner"], "TOPIC", name)}
        assert set(allowed(table["worker"], "TOPIC", name)) | {"DESCRIBE"} == both | {"DESCRIBE"}, name
    assert allowed(table["worker"], "GROUP", "p-streams") == ("READ",)
    assert len({(rule.resource, rule.name) for rule in table["worker"].rules}) == len(table["worker"].rules)


def test_names_follow_the_settings() -> None:
    table = roles(Topics("eu"), otlp_topic="", sink_group="store")
    assert allowed(table["sink"], "GROUP", "store") == ("READ",)
    assert table["collector"].rules == ()
    assert not [rule for role in table.values() for rule in role.rules if rule.name in ("", "otlp_spans")]
    assert allowed(table["operator"], "TOPIC", "eu.trace.v1")
    assert not allowed(table["operator"], "TOPIC", "eu-west.trace.v1")


def test_principals_by_default_and_as_told() -> None:
    table = roles(Topics("p"))
    names = principals(table, ["agent=User:support", "agent=User:CN=billing,O=x"])
    assert names["agent"] == ["User:support", "User:CN=billing,O=x"]
    assert names["sink"] == ["User:sink"]
    made = grants(chosen(table, ["agent"]), names)
    assert made == [
        Grant(principal, *rest)
        for principal in names["agent"]
        for rest in (
            ("TOPIC", "p.trace.v1", "LITERAL", "WRITE"),
            ("TOPIC", "p.policy.v1", "LITERAL", "READ"),
            ("GROUP", FOLLOWERS, "PREFIXED", "DESCRIBE"),
        )
    ]
    for wrong in ("agent", "agent=support", "agent=User:", "nobody=User:x"):
        with pytest.raises(ConfigError, match="ROLE=User:NAME"):
            principals(table, [wrong])
    with pytest.raises(ConfigError, match="there is no role 'agents'"):
        chosen(table, ["agents"])
    assert [role.name for role in chosen(table, None)] == list(DEFAULT_ROLES)


def test_commands_are_for_a_shell() -> None:
    table = roles(Topics("p"))
    wanted = grants(chosen(table, ["operator", "page"]), principals(table, ["page=User:CN=live page"]))
    lines = list(commands(wanted, "k:9093", "admin.properties"))
    start = "kafka-acls.sh --bootstrap-server k:9093 --command-config admin.properties --add --allow-principal"
    assert all(line.startswith(start) for line in lines)
    assert lines[0].endswith(
        "User:operator --operation Read --operation Write --operation Create --operation Delete --operation Alter "
        "--operation DescribeConfigs --operation AlterConfigs --topic p. --resource-pattern-type prefixed"
    )
    assert lines[-4].endswith("--operation Describe --cluster")
    assert lines[-3].endswith("'User:CN=live page' --operation Read --topic p.policy.v1")
    assert lines[-2].endswith("'User:CN=live page' --operation Read --operation Write --topic p.control.v1")
    assert lines[-1].endswith(f"--operation Describe --group {FOLLOWERS} --resource-pattern-type prefixed")
