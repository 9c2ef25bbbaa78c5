"""Users of one tenant, and what they try in order to see another's rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from page.overview import Overview
from page.store import EVENTS, Store
from sinks.fold import fold
from sinks.migrations import load, migrate
from sinks.relations import relations
from tests.console.endpoint import PASSWORD, Endpoint
from tests.page.served import insert
from tests.sinks.records import record

SECRET = "globex-secret"
QUOTED = "o'brien\\ OR 1=1 --"
TENANTS = ("acme", "globex", QUOTED)
BY_SQL = (
    "INSERT INTO policy_acts (act_id, ts, tenant, policy, act, who, why, outcome) "
    "SELECT 'act', now64(6), {tenant:String}, 'p', 'PIN', {word:String}, {word:String}, 'ASKED'",
    "INSERT INTO forgotten (tenant, forgotten_at, request, scope) SELECT {tenant:String}, now64(6), {word:String}, 'user'",
    "INSERT INTO forget_marks (tenant, request, kind, id, ingested_at) SELECT {tenant:String}, 'r', 'trace', {word:String}, now() - INTERVAL 2 DAY",
    "INSERT INTO trace_refolds (tenant, trace_id, version, done) SELECT {tenant:String}, {word:String}, 1, true",
    "INSERT INTO forgotten_places (tenant, request, kafka_offset) SELECT {tenant:String}, {word:String}, cityHash64({tenant:String})",
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The platform's tables, each with rows of three tenants; those of one hold a secret."""
    running = Endpoint(tmp_path_factory.mktemp("endpoint"))
    with running.client("steersman") as client:
        migrate(client)
        client.command("CREATE TABLE bare (s String) ENGINE = MergeTree ORDER BY s")
        client.command(f"INSERT INTO bare VALUES ('{SECRET}')")
        client.command("CREATE VIEW v_bare AS SELECT s, 1 AS one FROM bare")
        client.command("CREATE DATABASE side")
        client.command("CREATE TABLE side.more (tenant String, s String) ENGINE = Memory")
        client.command(
            "CREATE TABLE summed (tenant String, n AggregateFunction(count)) ENGINE = AggregatingMergeTree ORDER BY tenant"
        )
        client.command(
            "CREATE MATERIALIZED VIEW summing TO summed AS SELECT tenant, countState() AS n FROM side.more GROUP BY tenant"
        )
        client.command(f"INSERT INTO side.more VALUES ('globex', '{SECRET}'), ('acme', 'ours')")
    url = f"http://steersman:{PASSWORD.format('steersman')}@127.0.0.1:{running.port}"
    now = 1_790_000_000_000_000
    for number, tenant in enumerate(TENANTS):
        word = SECRET if tenant == "globex" else f"word-{number}"
        common = {"tenant": tenant, "ts": now + number, "agent": word}
        insert(
            url, "trace_events",
            [record("trace_event", event_id=f"{number}{i}", trace_id=f"{i:032x}", span_id="1" * 16, kind="DECISION" if i else "AGENT",
                    operation=word, comment=word, policy="p", decision_id=f"d{number}{i}", arm="a", propensity=0.5, mode="LIVE",
                    **common) for i in range(3 + number)], first=100 * number,
        )  # fmt: skip
        insert(
            url, "rewards",
            [record("reward", decision_id=f"d{number}{i}", trace_id=f"{i:032x}", policy="p", policy_epoch=1, reward_spec="s",
                    arm="k=1", decided_at=now, mode="LIVE",
                    propensity=0.5, utility=0.5, quality=0.5, **common) for i in range(3 + number)], first=100 * number,
        )  # fmt: skip
        insert(
            url,
            "alerts",
            [record("alert", alert_id=f"a{number}", message=word, detector=word, **common)],
            first=100 * number,
        )
        insert(
            url, "policies",
            [record("policy_snapshot", tenant=tenant, policy="p", epoch=1, version=number + 1, created_at=now, learner=word,
                    baseline="k=1", reward_spec="s",
                    knobs=[{"name": "k", "levels": ['"1"']}])], first=100 * number,
        )  # fmt: skip
        with running.client("steersman") as client:
            for statement in BY_SQL:
                client.command(statement, parameters={"tenant": tenant, "word": word})
    with running.client("steersman") as client:
        assert fold(client, settle_s=-2).traces == 12
    yield running
    assert running.child.stop() == 0


READS = [
    "SELECT * FROM trace_events",
    "SELECT * FROM trace_events FINAL",
    "SELECT * FROM default.trace_events AS trace_events",
    "SELECT x.* FROM `default`.`trace_events` AS x",
    "SELECT * FROM v_events",
    "SELECT * FROM v_rewards",
    "SELECT * FROM v_decisions",
    "SELECT * FROM v_alerts",
    "SELECT * FROM v_policies",
    "SELECT * FROM v_policy_latest",
    "SELECT * FROM v_uplift",
    "SELECT * FROM v_arm_share",
    "SELECT * FROM v_ope_decisions",
    "SELECT * FROM policy_acts",
    "SELECT * FROM v_policy_acts",
    "SELECT * FROM v_forgotten",
    "SELECT * FROM forget_marks",
    "SELECT * FROM side.more",
    "SELECT finalizeAggregation(n), tenant FROM summed",
    "SELECT * FROM trace_events WHERE tenant = 'globex'",
    "SELECT * FROM trace_events WHERE tenant = 'globex' OR 1",
    "SELECT * FROM trace_events UNION ALL SELECT * FROM trace_events",
    "SELECT tenant FROM trace_events UNION DISTINCT SELECT tenant FROM v_rewards UNION ALL SELECT tenant FROM alerts",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM trace_events))",
    "WITH t AS (SELECT * FROM trace_events) SELECT * FROM t JOIN t AS u USING (event_id)",
    "SELECT a.*, b.* FROM trace_events AS a JOIN rewards AS b ON a.decision_id = b.decision_id",
    "SELECT a.*, b.* FROM trace_events AS a CROSS JOIN alerts AS b",
    "SELECT b.* FROM numbers(3) AS a LEFT JOIN trace_events AS b ON 1 = 1",
    "SELECT (SELECT groupArray(tuple(*)) FROM trace_events)",
    "SELECT groupUniqArray(tenant), groupUniqArray(agent), max(agent), any(comment) FROM trace_events",
    "SELECT arrayJoin((SELECT groupArray(agent) FROM trace_events))",
    "SELECT tenant, agent FROM trace_events GROUP BY tenant, agent WITH TOTALS",
    "SELECT DISTINCT agent FROM trace_events",
    "SELECT agent FROM trace_events ORDER BY agent LIMIT 1 BY tenant",
    "SELECT agent, row_number() OVER (PARTITION BY tenant) FROM trace_events",
    "SELECT agent, lagInFrame(agent) OVER (ORDER BY kafka_offset) FROM trace_events",
    "SELECT min(agent), max(agent) FROM trace_events",
    "SELECT _part, agent FROM trace_events",
    "SELECT * FROM view(SELECT * FROM trace_events)",
    "SELECT COLUMNS('.*') FROM trace_events",
    "FROM trace_events SELECT *",
    "(SELECT * FROM trace_events)",
    "SELECT * FROM trace_events INTERSECT SELECT * FROM trace_events",
    "SELECT * FROM trace_events EXCEPT SELECT * FROM trace_events WHERE tenant = 'acme'",
    "SELECT * FROM trace_events AS bare",
    "WITH 'globex' AS tenant SELECT tenant, agent FROM trace_events",
    "SELECT 'acme' AS tenant, agent FROM trace_events",
    "SELECT tenant AS x, 'acme' AS tenant, agent FROM (SELECT * FROM trace_events)",
    "SELECT * REPLACE ('acme' AS tenant) FROM trace_events",
]
"""Statements that run, and must show the rows of their author's tenant alone."""


@pytest.mark.parametrize("sql", READS)
def test_whatever_is_asked_only_own_rows_come_back(endpoint: Endpoint, sql: str) -> None:
    status, everything = endpoint.ask("reader", f"{sql} FORMAT JSONCompactEachRow")
    assert status == 200, everything
    assert SECRET in everything or "globex" in everything, "it would show them, so it proves something"
    status, said = endpoint.ask("acme", f"{sql} FORMAT JSONCompactEachRow")
    assert status == 200, said
    assert SECRET not in said
    assert "word-2" not in said
    if "'globex'" not in sql:
        assert "globex" not in said


@pytest.mark.parametrize(
    ("sql", "own"),
    [
        ("SELECT count() FROM trace_events", "3"),
        ("SELECT count() FROM v_events", "3"),
        ("SELECT count() FROM rewards FINAL", "3"),
        ("SELECT count(), uniqExact(tenant) FROM alerts", "1\t1"),
        ("SELECT sum(decisions), count() FROM v_uplift", "3\t1"),
        ("SELECT count() FROM numbers(1000) WHERE number IN (SELECT kafka_offset FROM trace_events)", "3"),
        ("SELECT countIf(x IN (SELECT agent FROM trace_events)) FROM (SELECT 'globex-secret' AS x)", "0"),
        ("SELECT count() FROM trace_events AS a JOIN trace_events AS b ON a.trace_id = b.trace_id", "3"),
        ("SELECT max(kafka_offset) FROM trace_events", "2"),
        ("SELECT count() FROM v_policy_latest", "1"),
        ("SELECT (SELECT count() FROM trace_events) + (SELECT count() FROM v_alerts)", "4"),
        ("SELECT count() FROM side.more", "1"),
    ],
)
def test_counts_are_of_own_rows(endpoint: Endpoint, sql: str, own: str) -> None:
    assert endpoint.ask("acme", sql) == (200, f"{own}\n")
    assert endpoint.ask("reader", sql)[1] != f"{own}\n"


@pytest.mark.parametrize("view", ["v_traces", "v_sessions", "v_session_feedback"])
def test_totals_of_traces_are_of_own_rows(endpoint: Endpoint, view: str) -> None:
    sql = f"SELECT * FROM {view}(tenant = '{{}}', since = '2026-09-01 00:00:00', until = '2026-12-01 00:00:00') FORMAT JSONCompactEachRow"
    assert endpoint.ask("acme", sql.format("acme")) == endpoint.ask("reader", sql.format("acme"))
    assert endpoint.ask("acme", sql.format("globex")) == (200, "")
    rows = endpoint.ask("reader", sql.format("globex"))[1].splitlines()
    assert len(rows) == (4 if view == "v_traces" else 0)


ORACLES = [
    "SELECT agent FROM trace_events WHERE throwIf(tenant = 'globex') = 0",
    "SELECT agent FROM trace_events WHERE tenant = 'globex' AND throwIf(agent LIKE 'globex%') = 0",
    "SELECT agent FROM trace_events WHERE throwIf(agent LIKE 'globex%') = 0",
    "SELECT agent FROM trace_events FINAL WHERE throwIf(agent LIKE 'globex%') = 0",
    "SELECT agent FROM v_events WHERE throwIf(tenant = 'globex') = 0",
    "SELECT agent FROM v_events WHERE tenant = 'globex' AND throwIf(agent LIKE 'globex%') = 0",
    "SELECT arm FROM v_decisions WHERE throwIf(tenant = 'globex') = 0",
    "SELECT count() FROM v_rewards WHERE intDiv(1, agent != 'globex-secret') = 1",
    "SELECT throwIf(agent LIKE 'globex%') FROM trace_events",
    "SELECT count() FROM (SELECT agent FROM trace_events) WHERE throwIf(agent LIKE 'globex%') = 0",
    "SELECT agent FROM trace_events GROUP BY agent HAVING throwIf(agent LIKE 'globex%') = 0",
    "SELECT a.agent FROM trace_events AS a JOIN numbers(9) AS n ON toUInt64(a.kafka_partition) = n.number AND throwIf(a.tenant = 'globex') = 0",
    "SELECT a.agent FROM trace_events AS a JOIN rewards AS b ON a.decision_id = b.decision_id WHERE throwIf(b.agent LIKE 'globex%') = 0",
    "SELECT count() FROM numbers(300) AS n WHERE n.number IN (SELECT kafka_offset FROM trace_events WHERE throwIf(tenant = 'globex') = 0)",
    "SELECT agent FROM trace_events ORDER BY throwIf(tenant = 'globex')",
    "SELECT agent FROM trace_events QUALIFY throwIf(tenant = 'globex') = 0",
    "SELECT count() FROM side.more WHERE throwIf(s LIKE 'globex%') = 0",
    "SELECT sum(throwIf(tenant = 'globex')) FROM trace_events",
    "SELECT countIf(throwIf(tenant = 'globex') = 0) FROM v_events",
    "SELECT toUInt8(agent = 'globex-secret' ? 'x' : '1') FROM trace_events",
]
"""Conditions that fail on a row of another tenant, were they ever tried on one."""


@pytest.mark.parametrize("sql", ORACLES)
def test_no_condition_is_tried_on_rows_of_others(endpoint: Endpoint, sql: str) -> None:
    status, said = endpoint.ask("reader", sql)
    assert status >= 400, "to a user who sees all rows it fails, so it proves something"
    assert any(name in said for name in ("throwIf", "Division by zero", "Cannot parse")), said
    status, said = endpoint.ask("acme", sql)
    assert status == 200, said


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM trace_events SETTINGS additional_table_filters = {}",
        "SELECT * FROM trace_events SETTINGS additional_table_filters = ''",
        "SELECT * FROM (SELECT * FROM trace_events SETTINGS additional_table_filters = {})",
        "SELECT * FROM trace_events SETTINGS query_plan_filter_push_down = 1",
        "SET additional_table_filters = {}",
        "SELECT * FROM bare",
        "SELECT * FROM default.bare",
        "SELECT 1 WHERE 'globex-secret' IN bare",
        "SELECT 1 WHERE 'globex-secret' IN default.bare",
        "SELECT 1 WHERE 'globex-secret' IN (bare)",
        "SELECT * FROM schema_migrations",
        "WITH bare AS (SELECT 1) SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM bare)",
        "SELECT * FROM trace_events PREWHERE throwIf(tenant = 'globex') = 0",
        "SELECT * FROM trace_events PREWHERE 1",
        "SELECT * FROM merge('default', '.*')",
        "SELECT * FROM merge('bare')",
        "SELECT * FROM loop(trace_events)",
        "SELECT * FROM mergeTreeIndex('default', 'trace_events')",
        "SELECT * FROM mergeTreeProjection('default', 'trace_events', 'x')",
        "SELECT * FROM cluster('default', default.trace_events)",
        "SELECT * FROM remote('127.0.0.1', default.trace_events)",
        "SELECT * FROM dictionary('trace_events')",
        "SELECT * FROM system.parts",
        "SELECT * FROM system.tables",
        "SELECT * FROM system.columns",
        "SELECT * FROM system.query_log",
        "SELECT * FROM system.processes",
        "SELECT * FROM system.part_log",
        "SELECT 1 WHERE 1 IN system.parts",
        "SELECT * FROM INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM information_schema.columns",
        "SELECT joinGet('bare', 's', 'x')",
        "SELECT dictGet('bare', 's', 'x')",
        "SELECT hasColumnInTable('default', 'bare', 's')",
        "EXPLAIN SELECT * FROM trace_events",
        "EXPLAIN ESTIMATE SELECT * FROM trace_events",
        "EXPLAIN indexes = 1 SELECT * FROM trace_events",
        "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM bare))",
        "SHOW CREATE TABLE bare",
        "DESCRIBE bare",
        "SELECT * FROM trace_events; SELECT * FROM bare",
        "SELECT * FROM trace_events -- \n; SELECT * FROM bare",
        "INSERT INTO trace_events (tenant) VALUES ('globex')",
        "CREATE VIEW mine AS SELECT * FROM bare",
        "SELECT * FROM {t:Identifier}",
        "SELECT * FROM nosuch",
    ],
)
def test_refused_to_users_of_a_tenant(endpoint: Endpoint, sql: str) -> None:
    status, said = endpoint.ask("acme", sql, param_t="bare")
    assert status >= 400, said
    assert SECRET not in said.replace(sql, "")
    assert "Code: " in said


def test_parameters_of_the_url_lift_no_filter(endpoint: Endpoint) -> None:
    for params in (
        {"additional_table_filters": "{}"},
        {"query_plan_filter_push_down": "1"},
        {"optimize_move_to_prewhere": "1"},
        {"tenant": "globex"},
    ):
        status, said = endpoint.ask("acme", "SELECT * FROM trace_events", **params)
        assert (status >= 400, SECRET in said) == (True, False)
    status, said = endpoint.ask("acme", "SELECT * FROM more FORMAT TSV", database="side")
    assert (status, said) == (200, "acme\tours\n")
    for param, sql in (
        ("trace_events", "SELECT * FROM {t:Identifier}"),
        ("globex", "SELECT * FROM v_events WHERE tenant = {t:String}"),
    ):
        status, said = endpoint.ask("acme", sql, param_t=param)
        assert (status, SECRET in said) == (200, False)
    assert endpoint.ask("acme", "SELECT * FROM {t:Identifier}", param_t="bare")[0] == 403


def test_views_with_parameters_see_own_rows(endpoint: Endpoint) -> None:
    sql = (
        "SELECT count(), any(decision_id) FROM v_ope_terms(tenant = '{}', policy = 'p', target = 'uniform', weights = [], "
        "since = toDateTime64('2000-01-01', 6, 'UTC'), until = toDateTime64('2200-01-01', 6, 'UTC'))"
    )
    assert endpoint.ask("acme", sql.format("globex"))[1].startswith("0\t")
    assert endpoint.ask("acme", sql.format("acme"))[1].startswith("3\td0")
    assert endpoint.ask("reader", sql.format("globex"))[1].startswith("4\td1")


VALUES = {
    "tenant": "'globex'", "policy": "'p'", "trace": f"'{0:032x}'", "target": "'uniform'", "Float64": "0.5", "Bool": "true", "Array(Array(Float64))": "[]",
    "since": "toDateTime64('2000-01-01', 6, 'UTC')", "until": "toDateTime64('2200-01-01', 6, 'UTC')",
}  # fmt: skip
"""Of the parameters of views, by name or else by type."""


def calls() -> dict[str, str]:
    """What stands behind FROM for every table and view of the migrations, by name."""
    found = dict.fromkeys((*relations().tables, *relations().views), "")
    for statement in (statement for migration in load() for statement in migration.statements):
        view = re.match(r"CREATE OR REPLACE VIEW (\w+)|CREATE VIEW (?:IF NOT EXISTS )?(\w+)", statement)
        if view is not None:
            given = dict(re.findall(r"\{(\w+):((?:[^{}])+)\}", statement))
            said = ", ".join(f"{name} = {VALUES.get(name) or VALUES[kind]}" for name, kind in given.items())
            found[view[1] or view[2]] = f"({said})" if said else ""
    return {name: name + said for name, said in found.items()}


@pytest.mark.parametrize("name", calls())
def test_every_table_and_view_of_the_platform_is_for_tenants_and_shows_own_rows(endpoint: Endpoint, name: str) -> None:
    call = calls()[name]
    status, said = endpoint.ask("acme", f"SELECT * FROM {call} FORMAT JSONCompactEachRow")
    assert status == 200, said
    assert SECRET not in said
    assert "word-2" not in said
    assert "globex" not in said or "globex" in call


def test_a_view_over_a_table_without_tenants_shows_no_secret_of_another(endpoint: Endpoint) -> None:
    """A view of the platform reads what it reads for everybody; one over a table that names no tenant is not for tenants."""
    status, said = endpoint.ask("acme", "SELECT * FROM v_bare")
    assert (status, SECRET in said) == (403, False)
    assert endpoint.ask("reader", "SELECT * FROM v_bare")[0] == 200


def test_a_name_with_quotes_in_it_is_a_name(endpoint: Endpoint) -> None:
    assert endpoint.ask("quoted", "SELECT count(), uniqExact(agent), any(agent) FROM v_events") == (
        200,
        "5\t1\tword-2\n",
    )
    assert (
        endpoint.ask("quoted", "SELECT tenant FROM alerts FORMAT JSONCompactEachRow")[1]
        == '["o\'brien\\\\ OR 1=1 --"]\n'
    )


def test_tables_and_views_that_come_later_are_filtered_too(endpoint: Endpoint) -> None:
    with endpoint.client("steersman") as client:
        client.command(
            "CREATE TABLE later (tenant LowCardinality(String), s String) ENGINE = MergeTree ORDER BY tenant"
        )
        client.command(f"INSERT INTO later VALUES ('globex', '{SECRET}'), ('acme', 'ours')")
        client.command("CREATE VIEW v_later AS SELECT s FROM later")
        for sql in ("SELECT s FROM later", "SELECT s FROM v_later"):
            assert endpoint.ask("acme", sql) == (200, "ours\n")
        client.command("DROP TABLE later")
        client.command("DROP VIEW v_later")
    assert endpoint.ask("acme", "SELECT s FROM later")[0] == 404


def test_the_page_of_a_tenant_works_with_the_password_of_its_user(endpoint: Endpoint, tmp_path: Path) -> None:
    url = f"http://acme:{PASSWORD.format('acme')}@127.0.0.1:{endpoint.port}"
    assert [one["name"] for one in Overview(Store(url, "acme"), 900).read()["policies"]] == ["p"]
    assert len(Store(url, "acme").rows(EVENTS, trace=f"{0:032x}")) == 1
    foreign = Overview(Store(url, "globex"), 900).read()
    assert (foreign["policies"], foreign["alerts"], foreign["traces"]) == ([], [], [])


def test_clickhouse_connect_works_for_a_tenant(endpoint: Endpoint) -> None:
    with endpoint.client("acme") as client:
        got = client.query(
            "SELECT DISTINCT tenant FROM v_events WHERE kind = {kind:String}", parameters={"kind": "DECISION"}
        )
        assert got.result_rows == [("acme",)]
