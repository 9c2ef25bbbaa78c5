"""What a query names, and which tables and views may be shown to a tenant; with syntax trees as ClickHouse prints them."""

from __future__ import annotations

import pytest

from console.gateway.catalogue import Row, catalogue
from console.gateway.reading import ReadingRefused, check_tree, filters
from console.gateway.tree import named

TREE = """SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 3)
   ExpressionList (children 2)
    WithElement (children 1)
     Subquery (children 1)
   ExpressionList (children 1)
    Function count (alias n) (children 1)
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      TableIdentifier side.t (alias a b)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      Function numbers (children 1)
       ExpressionList (children 1)
        Literal UInt64_3
   Function in (children 1)
    ExpressionList (children 2)
     Identifier k
     Identifier system.parts"""


def test_names_are_told_apart() -> None:
    found = named(TREE)
    assert found.tables == ("side.t",)
    assert found.table_functions == ("numbers",)
    assert found.functions == ("count", "in")
    assert found.identifiers == ("k", "system.parts")
    assert found.odd == ()
    assert named("TableIdentifier a\n/etc/passwd").odd == ("/etc/passwd",)


def reads(*tables: str) -> str:
    return "\n".join(f"TableExpression (children 1)\n TableIdentifier {table}" for table in tables)


THERE = catalogue(
    [
        Row("default", "mine", "MergeTree", True, ""),
        Row("default", "bare", "MergeTree", False, ""),
        Row("default", "good", "View", False, reads("mine", "default.mine")),
        Row("default", "mixed", "View", True, reads("mine", "bare")),
        Row("default", "deep", "View", True, reads("good")),
        Row("default", "lost", "View", True, reads("side.gone")),
        Row("default", "given", "View", True, reads("cte", "mine")),
        Row("default", "round", "View", True, reads("round")),
        Row("default", "system_too", "View", True, reads("system.parts")),
        Row("default", "reaching", "View", True, "TableExpression (children 1)\n Function url (children 1)"),
        Row("default", "asking", "View", True, "TableExpression (children 1)\n Function good (children 1)"),
        Row("side", "t", "Memory", True, ""),
    ]
)


def test_a_view_is_for_tenants_when_all_it_reads_is() -> None:
    shown = {name for name, one in THERE["default"].items() if one.for_tenants}
    assert shown == {"mine", "good", "deep", "asking", "given"}
    assert filters("o'b\\", {"d": {"a": THERE["default"]["mine"], "b": THERE["default"]["bare"]}}) == (
        "{'d.a': 'tenant = \\'o\\\\\\'b\\\\\\\\\\''}"
    )


@pytest.mark.parametrize(
    ("tree", "tenant", "passes"),
    [
        (TREE, None, True),
        (TREE, "acme", False),
        (reads("mine"), "acme", True),
        (reads("default.mine"), "acme", True),
        (reads("bare"), "acme", False),
        (reads("bare"), None, True),
        (reads("mixed"), "acme", False),
        (reads("gone"), None, True),
        (reads("/etc/passwd"), None, False),
        (reads("default./etc/passwd"), None, False),
        (reads("mine\n/../etc/passwd"), None, False),
        (reads("system.one"), "acme", True),
        (reads("system.parts"), "acme", False),
        (reads("system.parts"), None, True),
        (reads("system.query_log"), None, False),
        (reads("information_schema.tables"), "acme", False),
        (reads("elsewhere.t"), None, False),
        ("Function file (children 1)", None, False),
        ("Function FILE (children 1)", None, False),
        ("Function dictGetOrDefault (children 1)", None, False),
        ("Function joinGet (children 1)", None, False),
        ("Identifier bare", "acme", False),
        ("Identifier default.bare", "acme", False),
        ("Identifier side.t.s", "acme", True),
        ("  Set", None, False),
        (reads("x"), "acme", True),
        (reads("x y"), "acme", False),
    ],
)
def test_a_query_is_judged_by_its_tree(tree: str, tenant: str | None, passes: bool) -> None:
    if passes:
        check_tree(tree, database="default", tenant=tenant, catalogue=THERE)
    else:
        with pytest.raises(ReadingRefused):
            check_tree(tree, database="default", tenant=tenant, catalogue=THERE)
