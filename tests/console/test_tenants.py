"""SQL that keeps tenants apart on a server: what it says, that ClickHouse's parser takes it, and that no name leaves its quotes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from typer.testing import CliRunner

from console.gateway.users import Limits
from console.main import app
from console.tenants.statements import Quota, literal, name, platform, script, tenant, without
from serving.private_file import write_private
from sinks.clickhouse import connect
from sinks.migrations import migrate
from sinks.relations import Relations, relations
from steersman.errors import ConfigError
from tests.faults.gateway import Gateway


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    gateway = Gateway(tmp_path_factory.mktemp("tenants"))
    connected = connect(gateway.url)
    migrate(connected)
    yield connected
    connected.close()
    assert gateway.stop() == 0


THERE = Relations(("rewards", "trace_events"), ("schema_migrations",), ("v_rewards",))
HOSTILE = ["o'brien", "a`b", "a\\", "\\'", "'; DROP TABLE rewards; --", "`; DROP ROLE x; --", "日本", "a b", "a;b"]


def test_every_table_has_its_restrictive_policy_and_rights_come_last() -> None:
    made = tenant("acme", "db", there=THERE)
    assert made == [
        "CREATE ROLE IF NOT EXISTS `steersman_tenant_acme`",
        "CREATE SETTINGS PROFILE OR REPLACE `steersman_tenant_acme` SETTINGS readonly = 1, max_execution_time = 30 MIN 1 MAX 30 "
        "CHANGEABLE_IN_READONLY, max_memory_usage = 2000000000, max_rows_to_read = 2000000000, max_bytes_to_read = 200000000000, "
        "max_result_rows = 1000000, max_result_bytes = 268435456 TO `steersman_tenant_acme`",
        "CREATE ROW POLICY OR REPLACE `steersman_tenant_acme` ON `db`.`rewards` USING tenant = 'acme' AS RESTRICTIVE TO "
        "`steersman_tenant_acme`",
        "CREATE ROW POLICY OR REPLACE `steersman_tenant_acme` ON `db`.`trace_events` USING tenant = 'acme' AS RESTRICTIVE TO "
        "`steersman_tenant_acme`",
        "CREATE QUOTA OR REPLACE `steersman_tenant_acme` KEYED BY user_name FOR INTERVAL 1 hour MAX queries = 1000, errors = 200, "
        "read_rows = 50000000000, execution_time = 3600 TO `steersman_tenant_acme`",
        "GRANT SELECT ON `db`.`rewards` TO `steersman_tenant_acme`",
        "GRANT SELECT ON `db`.`trace_events` TO `steersman_tenant_acme`",
        "GRANT SELECT ON `db`.`v_rewards` TO `steersman_tenant_acme`",
    ]
    assert not [line for line in made if "schema_migrations" in line], "a table without tenants is none's business"
    assert not [line for line in [*made, *platform("db", there=THERE)] if "getSetting" in line or "SOURCES" in line]


def test_the_sink_inserts_the_analyst_reads_and_everybody_else_goes_on_reading() -> None:
    made = platform("db", Limits(max_execution_time=7), Quota(queries=5), THERE)
    of_writer = [line for line in made if line.endswith("TO `steersman_writer`")]
    assert "GRANT INSERT ON `db`.`rewards` TO `steersman_writer`" in of_writer
    assert "GRANT INSERT ON `db`.`schema_migrations` TO `steersman_writer`" not in of_writer
    assert not [line for line in made if "INSERT" in line and "analyst" in line]
    assert sum("AS PERMISSIVE TO ALL" in line for line in made) == 2
    assert sum("queries = 5" in line for line in made) == 1
    assert any("max_execution_time = 7 MIN 1 MAX 7" in line for line in made)


def test_only_a_hash_of_the_password_is_said() -> None:
    made = tenant("acme", "db", password="a long password here", there=THERE)
    assert hashlib.sha256(b"a long password here").hexdigest() in made[-3]
    assert not [line for line in made if "a long password here" in line]
    assert made[-1] == "SET DEFAULT ROLE `steersman_tenant_acme` TO `steersman_tenant_acme`"


def test_access_goes_before_the_policies_that_bound_it() -> None:
    made = without("acme", "db", THERE)
    assert made[0].startswith("DROP USER")
    assert [line.split()[1] for line in made] == ["USER", "ROLE", "QUOTA", "SETTINGS", "ROW", "ROW"]


@pytest.mark.parametrize("who", ["", "a\nb", " a", "a" * 129, "a\0", "a\u2028b", "a\tb"])
def test_what_is_no_name_is_refused(who: str) -> None:
    for make in (tenant, without):
        with pytest.raises(ConfigError, match="no name of a tenant"):
            make(who, "db")


@pytest.mark.parametrize("who", HOSTILE)
def test_no_name_leaves_its_quotes(who: str) -> None:
    """Read back by a lexer of quotes: outside of them, the statements for any name are those for `acme`."""

    def bare(statements: list[str]) -> list[str]:
        return [re.sub(r"`(?:[^`\\]|\\.)*`|'(?:[^'\\]|\\.)*'", "?", line) for line in statements]

    assert bare(tenant(who, who, there=THERE)) == bare(tenant("acme", "db", there=THERE))
    assert bare(without(who, who, THERE)) == bare(without("acme", "db", THERE))
    assert (name(who)[0], literal(who)[0]) == ("`", "'")


def test_the_command_prints_a_script_or_json(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["tenants", "sql", "acme", "o'brien", "--database", "db"])
    assert said.exit_code == 0
    assert "-- Tenant 'acme'." in said.stdout
    assert "USING tenant = 'o\\'brien' AS RESTRICTIVE" in said.stdout
    lines = [line for line in said.stdout.splitlines() if line and not line.startswith("--")]
    as_json = json.loads(
        CliRunner().invoke(app, ["tenants", "sql", "acme", "o'brien", "--database", "db", "--json"]).stdout
    )
    assert [f"{line};" for line in as_json["statements"]] == lines
    passwords = tmp_path / "readers.txt"
    write_private(passwords, "acme a-password-of-acme\n")
    said = CliRunner().invoke(app, ["tenants", "sql", "acme", "--passwords", str(passwords)])
    assert "IDENTIFIED WITH sha256_hash" in said.stdout
    assert "a-password-of-acme" not in said.stdout
    for bad in (["tenants", "sql", "globex", "--passwords", str(passwords)], ["tenants", "sql", "--drop"]):
        assert isinstance(CliRunner().invoke(app, bad).exception, ConfigError)
    passwords.chmod(0o644)
    assert isinstance(
        CliRunner().invoke(app, ["tenants", "sql", "acme", "--passwords", str(passwords)]).exception, ConfigError
    )
    assert script(["a", "b"], {"b": "head"}) == "a;\n\n-- head\nb;\n"


def test_clickhouse_parses_every_statement(client: Client) -> None:
    """chDB refuses to run them, but its parser is the server's: names come back as they were given."""
    for who in ("acme", *HOSTILE):
        for statement in (*platform(who), *tenant(who, who, password="x" * 16), *without(who, who)):
            formatted = client.query(
                "SELECT formatQuerySingleLine({statement:String})", parameters={"statement": statement}
            ).result_rows[0][0]
            assert formatted.startswith(statement.split()[0]), statement
    policy = tenant("'; DROP TABLE rewards; --", "db", there=THERE)[2]
    with pytest.raises(DatabaseError):
        client.command(policy)


def test_relations_are_those_that_the_migrations_leave(client: Client) -> None:
    there = relations()
    found = client.query(
        "SELECT t.name, t.engine = 'View', countIf(c.name = 'tenant') FROM system.tables AS t LEFT JOIN system.columns AS c "
        "ON c.database = t.database AND c.table = t.name WHERE t.database = currentDatabase() GROUP BY 1, 2"
    ).result_rows
    views = {one for one, view, _ in found if view}
    assert set(there.views) == views
    assert set(there.tables) == {one for one, view, tenants in found if not view and tenants}
    assert set(there.others) | {"schema_migrations"} == {
        one for one, view, tenants in found if not view and not tenants
    }
