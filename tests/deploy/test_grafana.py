"""Dashboards, data sources, scrape and alert rules without Grafana and Prometheus: every SQL runs, every metric exists.

What needs the servers stays unproved: that the plugin draws what the SQL returns, and the grammar of PromQL.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client

from serving.metrics import METRICS
from serving.page import PAGE, page
from sinks.clickhouse import connect
from sinks.migrations import migrate
from tests.faults.gateway import Gateway

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
PROMETHEUS = ROOT / "deploy" / "prometheus"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SERIES = {
    series
    for metric in METRICS
    for series in (
        [f"{metric.name}_{part}" for part in ("bucket", "count", "sum")]
        if metric.kind == "histogram"
        else [metric.exposed]
    )
}
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}

ROWS = [
    """INSERT INTO trace_events (event_id, tenant, trace_id, span_id, agent, kind, ts, duration_us, status, error, operation,
        provider, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_micro_usd, decision_id, policy, arm,
        propensity, explored, mode, kafka_topic, kafka_partition, kafka_offset)
    SELECT hex(number), 'default', lower(hex(MD5(toString(intDiv(number, 4))))), lower(hex(number)), 'planner',
        ['MODEL_CALL', 'TOOL_CALL', 'DECISION', 'RETRIEVAL'][number % 4 + 1] AS kind, now64(6) - number, 1000 * (number % 90 + 1),
        if(number % 9 = 0, 'ERROR', 'OK'), if(number % 9 = 0, 'RateLimitError', ''), 'op', 'openai', 100, 40, 20, 5,
        if(number % 8 = 0, NULL, 12), 'd', 'research/retrieval', ['a', 'b'][number % 2 + 1], 0.5, number % 2, 'LIVE', 't', 0, number
    FROM numbers(400)""",
    """INSERT INTO trace_events (event_id, tenant, trace_id, span_id, agent, kind, ts, policy, arm, propensity, explored, mode,
        kafka_topic, kafka_partition, kafka_offset)
    SELECT hex(number), 'default', hex(number), '1', 'planner', 'DECISION', now64(6) - number, 'research/retrieval', 'c', 0.25, 1,
        'LIVE', 't', 1, number FROM numbers(100)""",
    """INSERT INTO rewards (decision_id, tenant, policy, trace_id, ts, decided_at, arm, propensity, explored, mode, quality,
        quality_defaulted, cost_micro_usd, latency_us, utility, reward_spec, kafka_topic, kafka_partition, kafka_offset)
    SELECT toString(number), 'default', 'research/retrieval', 't', now64(6), now64(6) - number, 'a', 0.5, number % 3 = 0,
        ['LIVE', 'HOLDOUT', 'LIVE'][number % 3 + 1], 0.8, 0, 500 + number % 50, 900 + number % 70, 0.1 * (number % 10), 's', 'r', 0, number
    FROM numbers(300)""",
    """INSERT INTO policies (tenant, policy, epoch, version, stage, arms, baseline, learner, created_at, record_sha256, kafka_offset)
    SELECT 'default', 'research/retrieval', 1, number, 'LIVE', ['a', 'b'], 'a', 'l', now64(6) - (100 - number), repeat('0', 64), number
    FROM numbers(100)""",
    """INSERT INTO alerts (alert_id, tenant, ts, detector, severity, policy, agent, trace_id, value, threshold, message)
    SELECT toString(number), 'default', now64(6) - number, 'tool_loop', 'WARNING', '', 'planner', 't', 5, 3, 'm' FROM numbers(3)""",
    """INSERT INTO dead_letters (tenant, ts, stage, reason, message, error_topic, error_offset)
    SELECT 'default', now64(6) - number, 'DESERIALIZE', 'magic', 'm', 't', number FROM numbers(3)""",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The real schema with some rows of the last minutes."""
    gateway = Gateway(tmp_path_factory.mktemp("grafana"))
    client = connect(gateway.url)
    migrate(client)
    for rows in ROWS:
        client.command(rows)
    yield client
    client.close()
    gateway.child.stop()


def expanded(query: str) -> str:
    """The query as the plugin sends it: its macros (grafana-clickhouse-datasource, pkg/macros) and the variables."""
    query = re.sub(
        r"\$__timeFilter\((\w+)\)", r"\1 >= toDateTime(now() - 3600) AND \1 <= toDateTime(now() + 60)", query
    )
    query = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", query)
    query = query.replace("$__interval_s", "60")
    query = query.replace("${tenant:singlequote}", "'default','other'").replace(
        "${policy:singlequote}", "'research/retrieval'"
    )
    assert "$" not in query, query
    return query


PANELS = [
    pytest.param(panel, id=f"{name}-{panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if "rawSql" in panel["targets"][0]
]


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_returns_what_it_draws(store: Client, panel: dict[str, Any]) -> None:
    query = panel["targets"][0]["rawSql"]
    sources = set(re.findall(r"\b(?:FROM|JOIN) (\w+)", query))
    assert all(source.startswith("v_") for source in sources), "views are the contract"
    result = store.query(expanded(query))
    assert result.result_rows
    names = result.column_names
    if panel["type"] == "timeseries":
        assert names[0] == "time"
        assert [row[0] for row in result.result_rows] == sorted(row[0] for row in result.result_rows)
    for column, name in enumerate(names):
        assert any(row[column] is not None for row in result.result_rows), f"{name} is never known"


def test_variables_name_what_there_is(store: Client) -> None:
    for dashboard in DASHBOARDS.values():
        asked = set(re.findall(r"\$\{(\w+):", json.dumps(dashboard["panels"])))
        variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
        assert asked <= variables.keys()
        for variable in variables.values():
            assert store.query(variable["query"]).result_rows


def test_dashboards_are_those_of_the_list() -> None:
    made = runpy.run_path(str(GRAFANA / "make_dashboards.py"))
    assert made["DASHBOARDS"].keys() == DASHBOARDS.keys()
    for file in FILES:
        assert file.read_text() == made["text"](file.stem), (
            f"run python {(GRAFANA / 'make_dashboards.py').relative_to(ROOT)}"
        )
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)
    for dashboard in DASHBOARDS.values():
        assert all(panel["description"] for panel in dashboard["panels"])


def metrics_of(query: str) -> set[str]:
    """Names of series in a PromQL query."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\b(?:by|on|without) \([^)]*\)', "", query)
    words = set(re.findall(r"[a-z_][a-z0-9_]+", re.sub(r"\{[^}]*\}", "", bare)))
    known = {"sum", "max", "rate", "increase", "delta", "histogram_quantile", "or", "and"}
    return words - known


def promql() -> list[tuple[str, str]]:
    panels = [(p["title"], p["targets"][0]["expr"]) for p in DASHBOARDS["operations"]["panels"]]
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    return panels + [(rule["alert"], rule["expr"]) for rule in rules]


@pytest.mark.parametrize(("name", "query"), promql())
def test_every_promql_names_metrics_and_labels_that_exist(name: str, query: str) -> None:
    found = metrics_of(query)
    assert found
    assert found <= SERIES | OTHERS
    labels = {label for metric in METRICS for label in metric.labels} | {"job", "instance", "le"}
    used = {part.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for part in group.split(",")}
    used |= set(re.findall(r"[{,]\s*(\w+)=", query))
    assert used <= labels
    assert query.count("(") == query.count(")")


def test_alerts_say_what_to_do() -> None:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(rule["annotations"]["summary"]) > 30
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_scraped_are_the_ports_that_compose_gives() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert all((PROMETHEUS / file).exists() for file in config["rule_files"])
    scraped = {}
    for job in config["scrape_configs"]:
        (target,) = job["dns_sd_configs"]
        scraped[target["names"][0]] = str(target["port"])
    asked = {
        name: service["environment"]["STEERSMAN_METRICS_PORT"]
        for name, service in COMPOSE.items()
        if "STEERSMAN_METRICS_PORT" in service.get("environment", {})
    }
    assert scraped == asked


def test_grafana_reads_as_a_user_that_cannot_write() -> None:
    (clickhouse, prometheus) = yaml.safe_load((GRAFANA / "provisioning/datasources/steersman.yml").read_text())[
        "datasources"
    ]
    user = clickhouse["jsonData"]["username"]
    users = ET.parse(ROOT / "deploy/clickhouse/grafana.xml").getroot()
    assert users.findtext(f"profiles/{user}/readonly") == "1"
    assert users.find(f"profiles/{user}/constraints/max_execution_time/changeable_in_readonly") is not None
    assert [query.text for query in users.iterfind(f"users/{user}/grants/query")] == ["GRANT SELECT ON steersman.*"]
    variable = users.find(f"users/{user}/password").attrib["from_env"]  # type: ignore[union-attr]
    assert clickhouse["secureJsonData"]["password"] == f"${variable}"
    assert all(variable in COMPOSE[name]["environment"] for name in ("clickhouse", "grafana"))
    uids = {clickhouse["uid"], prometheus["uid"]}
    used = {p["datasource"]["uid"] for d in DASHBOARDS.values() for p in d["panels"]}
    assert used == uids
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/steersman.yml").read_text())["providers"][0]
    assert any(mount.split(":")[1] == provider["options"]["path"] for mount in COMPOSE["grafana"]["volumes"])


def test_the_page_of_metrics_is_that_of_the_list() -> None:
    assert PAGE.read_text() == page(), "run python -m serving.page"
    for metric in METRICS:
        assert f"`{metric.exposed}`" in page()
        assert re.fullmatch(r"steersman_[a-z0-9_]+", metric.name)
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")
        assert not {"tenant", "trace_id", "session_id"} & set(metric.labels)
    assert subprocess.run([sys.executable, "-c", "import serving.page"], cwd=ROOT, check=False).returncode == 0
