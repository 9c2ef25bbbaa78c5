"""Forgetting a tenant, a user or a session: which rows are about them, and their deletion from every table.

A row is about a user when it says so: by an attribute of an event (`USER_KEYS`), or as the source of a judgement. A
trace in which any event names the user is theirs, and so are all traces of a session that has one. Rows are deleted for
good (``ALTER TABLE ... DELETE``, awaited), not masked. Statements that servers keep, those of mutations, name the
request and never the person: what is to go is marked first, by ids, in ``forget_marks``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steersman.errors import ConfigError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

USER_KEYS = (
    "user.id", "user_id", "enduser.id", "enduser.pseudo.id", "user.email", "user.hash", "langfuse.user.id",
    "traceloop.association.properties.user_id", "metadata.user_id",
)  # fmt: skip
"""Attributes that name a user: OpenTelemetry's, and those of the emitters that the doors know."""
KEPT = ("forgotten", "forgotten_places", "forget_marks", "trace_refolds", "schema_migrations")
"""Tables that are not about anybody."""
_MARK = "INSERT INTO forget_marks (tenant, request, kind, id) SELECT DISTINCT {tenant:String}, {request:String}, "
_MARKED = "(SELECT id FROM forget_marks WHERE tenant = {tenant:String} AND request = {request:String} AND kind = "
_NAMES_USER = (
    "arrayExists(k -> JSONExtractString(attributes, k) = {user:String} OR JSONExtractRaw(attributes, k) = {user:String}, "
    "{keys:Array(String)})"
)
_USER_TRACES = _MARK + "'trace', trace_id FROM trace_events WHERE tenant = {tenant:String} AND (" + _NAMES_USER + ")"
_USER_SESSION = (
    _MARK + "'trace', trace_id FROM trace_events WHERE tenant = {tenant:String} AND session_id = {session:String} "
    "AND session_id IN (SELECT session_id FROM trace_events WHERE tenant = {tenant:String} AND session_id = {session:String} "
    "AND (" + _NAMES_USER + "))"
)
_SESSION_TRACES = (
    _MARK + "'trace', trace_id FROM trace_events WHERE tenant = {tenant:String} AND session_id = {session:String}"
)
_SESSIONS = (
    _MARK + "'session', session_id FROM trace_events WHERE tenant = {tenant:String} AND session_id != '' "
    f"AND trace_id IN {_MARKED}'trace')"
)
_TRACES_OF_SESSIONS = (
    _MARK + "'trace', trace_id FROM trace_events WHERE tenant = {tenant:String} AND session_id != '' "
    f"AND session_id IN {_MARKED}'session')"
)
_JUDGEMENTS = (
    _MARK + "'event', event_id FROM trace_events WHERE tenant = {tenant:String} AND source = {user:String}",
    _MARK + "'decision', decision_id FROM rewards WHERE tenant = {tenant:String} AND source = {user:String}",
)
_ALERTS = (
    _MARK
    + "'alert', alert_id FROM (SELECT alert_id, arrayJoin(arrayPushBack(extractAll(evidence, '[0-9a-f]+'), trace_id)) AS t "
    f"FROM alerts WHERE tenant = {{tenant:String}}) WHERE t IN {_MARKED}'trace')"
)
# A dead letter may be anything: it is about them when its key is one of their traces, or its bytes hold one of the
# traces' ids or the user's name as JSON, Avro or protobuf write a text.
_LETTER = "'letter', concat(kafka_topic, ':', toString(kafka_partition), ':', toString(kafka_offset)) "
_LETTERS_OF_TRACES = (
    _MARK + _LETTER + "FROM (SELECT kafka_topic, kafka_partition, kafka_offset, "
    "arrayJoin(arrayPushBack(extractAll(toValidUTF8(value), '[0-9a-f]+'), key)) AS t FROM dead_letters "
    f"WHERE tenant IN ('', {{tenant:String}})) WHERE t IN {_MARKED}'trace')"
)
_LETTERS_WITH = (
    _MARK + _LETTER + "FROM dead_letters WHERE tenant IN ('', {tenant:String}) AND "
    "(arrayExists(n -> position(value, unhex(n)) > 0, {needles:Array(String)}) OR arrayExists(v -> v = {name:String}, mapValues(headers)))"
)
_LETTERS_OF_TENANT = (
    _MARK + _LETTER + "FROM dead_letters WHERE tenant = '' AND (startsWith(key, {prefix:String}) OR "
    "arrayExists(n -> position(value, unhex(n)) > 0, {needles:Array(String)}))"
)
_OPEN = _MARK + "'open', ''"
"""By which a fold (sinks/fold.py) knows that rows are being deleted, whatever the scope."""
_REFOLD = (
    "INSERT INTO trace_refolds (tenant, trace_id, version, done) "
    "SELECT DISTINCT {tenant:String}, trace_id, toUInt64(toUnixTimestamp64Micro(now64(6))), false FROM trace_events WHERE "
)
"""From here on these traces are read from their events, not from their totals."""
_COUNT_MARKED = "SELECT kind, uniqExact(id) FROM forget_marks WHERE tenant = {tenant:String} AND request = {request:String} GROUP BY kind"
_TABLES = """
SELECT table, groupArray(name) FROM system.columns
WHERE database = currentDatabase() AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree')
GROUP BY table HAVING has(groupArray(name), 'tenant') ORDER BY table
"""
_TENANT = "tenant = {tenant:String}"
_BY_TRACE = f"tenant = {{tenant:String}} AND trace_id IN {_MARKED}'trace')"
_LETTERS = (
    "tenant IN ('', {tenant:String}) AND concat(kafka_topic, ':', toString(kafka_partition), ':', toString(kafka_offset)) "
    f"IN {_MARKED}'letter')"
)
_OWN = {
    "trace_events": f"tenant = {{tenant:String}} AND (trace_id IN {_MARKED}'trace') OR event_id IN {_MARKED}'event'))",
    # Of a trace that only loses a judgement, too: it is added up again from what is left.
    "trace_totals": (
        f"tenant = {{tenant:String}} AND (trace_id IN {_MARKED}'trace') OR trace_id IN "
        f"(SELECT trace_id FROM trace_events WHERE tenant = {{tenant:String}} AND event_id IN {_MARKED}'event')))"
    ),
    "rewards": f"tenant = {{tenant:String}} AND (trace_id IN {_MARKED}'trace') OR decision_id IN {_MARKED}'decision'))",
    "alerts": f"tenant = {{tenant:String}} AND alert_id IN {_MARKED}'alert')",
    "dead_letters": _LETTERS,
}
_WAIT = {"mutations_sync": 2}
_PLACES = "INSERT INTO forgotten_places (tenant, request, stage, kafka_topic, kafka_partition, kafka_offset, kafka_timestamp) SELECT DISTINCT {tenant:String}, {request:String}, "
_PLACES_OF = {
    "trace_events": "'', kafka_topic, kafka_partition, kafka_offset, kafka_timestamp FROM trace_events WHERE ",
    "rewards": "'', kafka_topic, kafka_partition, kafka_offset, kafka_timestamp FROM rewards WHERE ",
    "dead_letters": "stage, error_topic, error_partition, error_offset, toDateTime64(ts, 3, 'UTC') FROM dead_letters WHERE ",
}
"""Where rows of a table came from: places in Kafka, which name nobody, for `steersman verify`."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """Whom to forget.

    Attributes
    ----------
    tenant
        Name of the tenant: the one to forget as a whole, or the one that user and session belong to.
    user
        As events name them: an id, or the pseudonym that redaction made of it. None for no user.
    session
        Id of a session, None for none. With a user: that session alone, if any of its events names the user.
    keys
        Attributes that name users.

    Raises
    ------
    ConfigError
        For an empty name.
    """

    tenant: str
    user: str | None = None
    session: str | None = None
    keys: Sequence[str] = USER_KEYS

    def __post_init__(self) -> None:
        """Refuse names that would match what names nobody."""
        for what, value in (("tenant", self.tenant), ("user", self.user), ("session", self.session)):
            if value is not None and not value.strip():
                raise ConfigError(f"the {what} to forget has no name")

    @property
    def scope(self) -> str:
        """`tenant`, `user` or `session`."""
        return "user" if self.user is not None else "session" if self.session is not None else "tenant"

    @property
    def name(self) -> str:
        """What the audit row is a hash of: tenant, user and session, as JSON."""
        return json.dumps([self.tenant, self.user, self.session])


@dataclass
class Forgotten:
    """What was found and done.

    Attributes
    ----------
    request
        Id of the request, as in the audit row.
    scope
        As `Subject.scope`.
    traces
        Traces that are theirs.
    before, after
        Table -> rows about the subject, before and after; `after` is empty in a dry run.
    """

    request: str
    scope: str
    traces: int = 0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)


def forget(client: Client, subject: Subject, *, dry_run: bool = False, say: Say = lambda text: None) -> Forgotten:
    """Delete what is stored about a tenant, user or session; a second run finds what was stored since.

    Parameters
    ----------
    client
        Connected to the database, with the right to alter its tables.
    subject
        Whom.
    dry_run
        Only count.
    say
        Told of each step.

    Returns
    -------
    Forgotten
        Counts by table; after a deletion `after` is all zeros, unless rows about the subject were stored meanwhile.
    """
    request = uuid.uuid4().hex
    asked = {"tenant": subject.tenant, "request": request}
    found = Forgotten(request, subject.scope)
    try:
        say("looking for rows")
        client.command(_OPEN, parameters=asked)
        _mark(client, subject, asked)
        conditions = _conditions(client, subject)
        found.before = {t: _count(client, t, where, asked) for t, where in conditions.items()}
        found.traces = _traces(client, subject, asked)
        if dry_run:
            return found
        if subject.scope != "tenant":
            client.command(_REFOLD + conditions["trace_events"], parameters=asked)
        # First what says that traces are folded: then all are read from their events. These go last: as long as they are there,
        # an interrupted run can be made again and finds everything.
        for table in sorted(conditions, key=lambda t: (t == "trace_events", t != "trace_folds")):
            if found.before[table]:
                say(f"deleting {found.before[table]} rows from {table}")
                if table in _PLACES_OF:
                    client.command(_PLACES + _PLACES_OF[table] + conditions[table], parameters=asked)
                _delete(client, table, conditions[table], asked)
        _delete(client, "trace_refolds", _TENANT if subject.scope == "tenant" else _BY_TRACE, asked)
        found.after = {t: _count(client, t, where, asked) for t, where in conditions.items()}
        _record(client, subject, found)
    finally:
        _delete(client, "forget_marks", "tenant = {tenant:String} AND request = {request:String}", asked)
    return found


def needles(name: str) -> list[str]:
    """How a text looks inside an undecoded record, in hex: as JSON, as Avro and as protobuf write it."""
    raw = name.encode()
    return [b.hex() for b in (json.dumps(name, ensure_ascii=False).encode(), json.dumps(name).encode(), _varint(2 * len(raw)) + raw, _varint(len(raw)) + raw)]  # fmt: skip


def subject_hash(name: str, salt: str) -> str:
    """Return the hash by which the audit row can be told to be about somebody: scrypt (RFC 7914), n = 2^14, r = 8, p = 1, in hex."""
    return hashlib.scrypt(name.encode(), salt=bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=32).hex()


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _mark(client: Client, subject: Subject, asked: Mapping[str, Any]) -> None:
    if subject.scope == "tenant":
        _ask(
            client, _LETTERS_OF_TENANT, asked, {"prefix": f"{subject.tenant}/", "needles": needles(subject.tenant)[2:3]}
        )
        return
    names = {"user": subject.user, "session": subject.session, "keys": list(subject.keys)}
    if subject.user is not None and subject.session is not None:
        _ask(client, _USER_SESSION, asked, names)
    elif subject.user is not None:
        for statement in (_USER_TRACES, _SESSIONS, _TRACES_OF_SESSIONS, *_JUDGEMENTS):
            _ask(client, statement, asked, names)
    else:
        _ask(client, _SESSION_TRACES, asked, names)
    for statement in (_ALERTS, _LETTERS_OF_TRACES):
        _ask(client, statement, asked, names)
    if subject.user is None or subject.session is None:
        name = subject.user or subject.session or ""
        _ask(client, _LETTERS_WITH, asked, {"name": name, "needles": needles(name)})


def _ask(client: Client, statement: str, asked: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    """Run a statement with those of the parameters that it names."""
    named = {name: value for name, value in {**asked, **more}.items() if f"{{{name}:" in statement}
    client.command(statement, parameters=named)


def _conditions(client: Client, subject: Subject) -> dict[str, str]:
    """Table -> which of its rows: every table with a tenant, an operator's own targets of views among them."""
    conditions = {}
    for table, columns in client.query(_TABLES).result_rows:
        if table in KEPT:
            continue
        if subject.scope == "tenant":
            conditions[table] = f"({_TENANT}) OR ({_LETTERS})" if table == "dead_letters" else _TENANT
        elif table in _OWN:
            conditions[table] = _OWN[table]
        elif "trace_id" in columns:
            conditions[table] = _BY_TRACE
    return conditions


def _traces(client: Client, subject: Subject, asked: Mapping[str, Any]) -> int:
    if subject.scope == "tenant":
        query = "SELECT uniqExact(trace_id) FROM trace_events WHERE tenant = {tenant:String}"
        return int(client.query(query, parameters={"tenant": subject.tenant}).result_rows[0][0])
    marked = client.query(_COUNT_MARKED, parameters=dict(asked)).result_rows
    return sum(int(n) for kind, n in marked if kind == "trace")


def _count(client: Client, table: str, where: str, asked: Mapping[str, Any]) -> int:
    query = "SELECT count() FROM {table:Identifier} WHERE " + where
    return int(client.query(query, parameters={**asked, "table": table}).result_rows[0][0])


def _delete(client: Client, table: str, where: str, asked: Mapping[str, Any]) -> None:
    statement = "ALTER TABLE {table:Identifier} DELETE WHERE " + where
    client.command(statement, parameters={**asked, "table": table}, settings=_WAIT)


def _record(client: Client, subject: Subject, found: Forgotten) -> None:
    salt = secrets.token_hex(16)
    deleted = {t: n - found.after.get(t, 0) for t, n in found.before.items() if n}
    client.command(
        "INSERT INTO forgotten (tenant, forgotten_at, request, scope, subject_salt, subject_hash, traces, deleted) SELECT "
        "{tenant:String}, {at:DateTime64(6, 'UTC')}, {request:String}, {scope:String}, {salt:String}, {hash:String}, {traces:UInt64}, "
        "CAST(mapFromArrays({tables:Array(String)}, {rows:Array(UInt64)}), 'Map(String, UInt64)')",
        parameters={
            "tenant": subject.tenant,
            "at": dt.datetime.now(dt.UTC),
            "request": found.request,
            "scope": found.scope,
            "salt": salt,
            "hash": subject_hash(subject.name, salt),
            "traces": found.traces,
            "tables": list(deleted),
            "rows": list(deleted.values()),
        },
    )
