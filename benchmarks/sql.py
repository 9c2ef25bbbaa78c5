"""How long the questions of docs/sql.md take on 20 million rows, in chDB; `--page` puts the timings into that page.

The rows are made by ClickHouse itself, with `numbers()`, into the schema that the migrations make: traces of five events
(decision, model call, tool call, feedback, end) of several agents, policies and tenants, their rewards, and the windows that
these events add up to. The data folder is deleted at the end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, Figure, add_out, alone, header, say, write
from sinks.clickhouse import connect
from sinks.fold import fold
from sinks.migrations import migrate

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"
BAR_MS = 1000.0
EVENTS, EVENTS_PER_TRACE = 20_000_000, 5
DAYS = 4
CHUNK = 1_000_000
UNFOLDED_S = 600
"""Of the newest events, what the sink has not folded yet: its pause between two folds, and what settles; unit: seconds."""
REPEATS = 3
PAYLOAD = (
    f"{EVENTS:,} trace events ({EVENTS // EVENTS_PER_TRACE:,} decisions with their rewards) of {DAYS} days and the 10 s windows that they add up to, "
    "2 tenants (four fifths of the events in the one that is asked about), 4 policies with 8 arms, 6 agents, 5 models; parts as inserts and background merges left them "
    "after OPTIMIZE; traces folded as the sink does it, but for the events of the last 10 minutes; chDB in this process; wall time of a query with its result, best and median of the repeats; 'day' asks about the newest day, 'all' about everything"
)
_START = dt.datetime(2026, 9, 21, tzinfo=dt.UTC)
_BEGIN, _END = "<!-- timings: made by python -m benchmarks.sql --page -->", "<!-- end of timings -->"
_QUESTION = re.compile(r"^### (\d+)\. ([^\n]+)\n(.+?)\n```sql\n(.+?)\n```$", re.M | re.S)

# A trace has a number n; all of its fields are functions of n and a hash of it.
_TRACE = """
    intDiv(number, 5) AS n, number % 5 AS place, sipHash64(n) AS h, lower(hex(MD5(toString(n)))) AS trace,
    if(h % 5 = 0, 'acme', 'default') AS tenant, ['research/retrieval', 'research/synthesis', 'support/answer', 'support/triage'][h % 4 + 1] AS policy,
    toDateTime64({start:DateTime64(6, 'UTC')}, 6, 'UTC') + toIntervalMicrosecond(intDiv(n * {span_us:UInt64}, {traces:UInt64})) AS at,
    intDiv(h, 64) % 10 AS luck, intDiv(h, 1024) % 8 AS drawn, if(luck = 0, 0, drawn) AS arm_index,
    'model=m' || toString(arm_index % 4) || ';top_k=' || toString(4 + 4 * intDiv(arm_index, 4)) AS arm,
    100000 + intDiv(h, 8192) % 3000000 AS lasts
"""
_FILL_EVENTS = f"""
INSERT INTO trace_events (event_id, tenant, trace_id, span_id, parent_span_id, session_id, agent, kind, ts, duration_us, status, error,
    operation, provider, input_tokens, cached_input_tokens, output_tokens, cost_micro_usd, context_tokens, context_limit, args_hash,
    decision_id, policy, policy_epoch, policy_version, arm, propensity, explored, mode, features, metric, value, source, attributes,
    kafka_topic, kafka_partition, kafka_offset, kafka_timestamp)
WITH {_TRACE}
SELECT lower(hex(MD5(toString(number + 1000000000)))), tenant, trace, lower(hex(sipHash64(number))), '', 's' || toString(intDiv(n, 5)),
    ['planner', 'retriever', 'writer', 'critic', 'coder', 'support'][h % 6 + 1],
    ['DECISION', 'MODEL_CALL', 'TOOL_CALL', 'FEEDBACK', 'END'][place + 1] AS kind,
    at + toIntervalMicrosecond([0, lasts, intDiv(lasts, 2), lasts + 5000000, lasts][place + 1]) AS ts,
    if(place IN (1, 2), intDiv(lasts, place), NULL),
    if(place = 2 AND luck = 1, 'TIMEOUT', 'OK'), if(place = 2 AND luck = 1, 'Timeout', ''),
    multiIf(place = 1, 'model-' || toString(arm_index % 4), place = 2, ['search', 'browse', 'python'][h % 3 + 1], ''), if(place = 1, 'openai', ''),
    if(place = 1, 1000 + h % 3000, NULL), if(place = 1, h % 1000, NULL), if(place = 1, h % 500, NULL),
    multiIf(place = 1 AND luck != 2, 100 * (1 + arm_index), place = 2, 10, NULL), if(place = 1, h % 8000, NULL), if(place = 1, 8000, NULL),
    if(place = 2, lower(hex(h)), ''),
    if(place = 0, trace || '-' || lower(hex(sipHash64(number))), ''), if(place = 0, policy, ''), if(place = 0, 1, NULL), if(place = 0, intDiv(n, 400), NULL),
    if(place = 0, arm, ''), if(place = 0, if(luck = 0, 1, 0.125), NULL), if(place = 0, luck != 0 AND arm_index != 7, NULL),
    if(place = 0, if(luck = 0, 'HOLDOUT', 'LIVE'), ''), if(place = 0, [toFloat32(1), toFloat32(luck), toFloat32(drawn)], []),
    if(place = 3, 'quality', ''), if(place = 3, (h % 100) / 100, NULL), if(place = 3, 'judge-' || toString(h % 7), ''),
    multiIf(place = 4, '{{"user.id":"user-' || toString(intDiv(n, 20)) || '"}}', place = 3 AND luck = 4, '{{"steersman.target":"session"}}', ''),
    'steersman.trace.v1', n % 12, intDiv(n, 12) * 5 + place, ts
FROM numbers({{first:UInt64}}, {{rows:UInt64}})
"""
_FILL_REWARDS = f"""
INSERT INTO rewards (decision_id, tenant, policy, trace_id, agent, ts, decided_at, policy_epoch, policy_version, arm, propensity, explored,
    mode, features, quality, quality_defaulted, cost_micro_usd, latency_us, failures, utility, reward_spec, input_tokens, output_tokens,
    spans, feedback_count, feedback_delay_us, closed_by, context_fill, source, source_partition, source_offset, seq, kafka_topic,
    kafka_partition, kafka_offset, kafka_timestamp)
WITH {_TRACE}
SELECT trace || '-' || lower(hex(sipHash64(number))), tenant, policy, trace, ['planner', 'retriever', 'writer', 'critic', 'coder', 'support'][h % 6 + 1],
    at + toIntervalMicrosecond(lasts + 5200000) AS ts, at, 1, intDiv(n, 400), arm, if(luck = 0, 1, 0.125), luck != 0 AND arm_index != 7,
    if(luck = 0, 'HOLDOUT', 'LIVE'), [toFloat32(1), toFloat32(luck), toFloat32(drawn)], (h % 100) / 100 AS quality, luck = 3, 100 * (1 + arm_index) + 10, lasts,
    luck = 1, quality + 0.01 * arm_index - lasts / 1e7, 's', 1000 + h % 3000, h % 500, 2, 1, lasts + 5000000, 'COMPLETE', (h % 8000) / 8000,
    'judge-' || toString(h % 7), n % 12, intDiv(n, 12) * 5 + 3, 0, 'steersman.reward.v1', n % 12, intDiv(n, 12), ts
FROM numbers({{first:UInt64}}, {{rows:UInt64}}) WHERE number % 5 = 0
"""
_FILL_ROLLUPS = """
INSERT INTO rollups (window_start, window_us, tenant, agent, policy, arm, operation, kind, version, closed, events, errors, explored, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, cost_micro_usd, unpriced, duration_count, duration_sum_us, duration_max_us, histogram_index,
    histogram_count, context_fill_sum, context_fill_count, rewards, utility_sum, quality_sum, quality_count, late, source_partition, source_offset, seq,
    kafka_topic, kafka_partition, kafka_offset)
SELECT start, 10000000, tenant, agent, policy, arm, operation, kind, max(version), true, sum(n), sum(e), sum(x), sum(it), sum(ct), sum(ot), 0, sum(c), sum(u),
    sum(dc), sum(ds), max(dm), arraySort(mapKeys(sumMap(histogram)) AS buckets), arrayMap(b -> sumMap(histogram)[b], arraySort(buckets)), 0, 0, 0, 0, 0, 0, 0, 0,
    max(version), 0, 'steersman.rollup.v1', 0, max(version)
FROM
(
    SELECT toDateTime64(toStartOfInterval(ts, INTERVAL 10 SECOND), 6, 'UTC') AS start, tenant, agent, policy, arm, operation, kind,
        max(kafka_offset) AS version, count() AS n, countIf(status != 'OK') AS e, countIf(explored) AS x, sum(ifNull(input_tokens, 0)) AS it,
        sum(ifNull(cached_input_tokens, 0)) AS ct, sum(ifNull(output_tokens, 0)) AS ot, sum(ifNull(cost_micro_usd, 0)) AS c,
        countIf(kind IN ('MODEL_CALL', 'TOOL_CALL') AND isNull(cost_micro_usd)) AS u, count(duration_us) AS dc, sum(ifNull(duration_us, 0)) AS ds,
        max(ifNull(duration_us, 0)) AS dm, if(isNull(any(duration_us)), map(), map(toInt32(floor(8 * log2(greatest(ifNull(duration_us, 1), 1)))), toInt64(count()))) AS histogram
    FROM trace_events
    WHERE ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
    GROUP BY start, tenant, agent, policy, arm, operation, kind, duration_us
)
GROUP BY start, tenant, agent, policy, arm, operation, kind
"""
_FILL_OTHERS = (
    """INSERT INTO policies (tenant, policy, epoch, version, stage, canary_share, arms, baseline, learner, reward_spec, applied_n, applied_sources,
        created_at, record_sha256, kafka_offset)
    SELECT ['default', 'acme'][number % 2 + 1], ['research/retrieval', 'research/synthesis', 'support/answer', 'support/triage'][intDiv(number, 2) % 4 + 1],
        1, intDiv(number, 8), ['SHADOW', 'CANARY', 'LIVE'][least(intDiv(number, 3000), 2) + 1], least(intDiv(number, 3000), 2) / 2,
        arrayMap(i -> 'model=m' || toString(i % 4) || ';top_k=' || toString(4 + 4 * intDiv(i, 4)), range(8)), 'model=m0;top_k=4', 'linear', 's', intDiv(number, 8),
        '[' || arrayStringConcat(arrayMap(p -> '{"partition":' || toString(p) || ',"offset":' || toString(intDiv({traces:UInt64}, 12) * 5 - 4000) || ',"seq":0}', range(12)), ',') || ']',
        toDateTime64({start:DateTime64(6, 'UTC')}, 6, 'UTC') + toIntervalMicrosecond(number * intDiv({span_us:UInt64}, 80000)), repeat('0', 64), number
    FROM numbers(80000)""",
    """INSERT INTO alerts (alert_id, tenant, ts, detector, severity, policy, agent, trace_id, value, threshold, message, evidence)
    SELECT toString(number), 'default', toDateTime64({start:DateTime64(6, 'UTC')}, 6, 'UTC') + toIntervalMicrosecond(number * intDiv({span_us:UInt64}, 20000)),
        ['tool_loop', 'retry_storm', 'runaway'][number % 3 + 1], 'WARNING', 'research/retrieval', 'retriever', lower(hex(MD5(toString(number * intDiv({traces:UInt64}, 20000))))) AS trace, 5, 3,
        'message', '{"trace_ids": ["' || trace || '"]}'
    FROM numbers(20000)""",
    """INSERT INTO dead_letters (tenant, ts, stage, reason, message, error_topic, error_offset, value)
    SELECT if(number % 2, 'default', ''), toDateTime64({start:DateTime64(6, 'UTC')}, 6, 'UTC') + toIntervalMicrosecond(number * intDiv({span_us:UInt64}, 20000)), 'DESERIALIZE',
        ['magic', 'crc', 'too_large'][number % 3 + 1], 'message', 'steersman.trace.v1', number, randomString(200) FROM numbers(20000)""",
    """INSERT INTO ledger (stage, outcome, tenant, minute, version, n, id_sum, id_xor, source_partition)
    SELECT 'trace', 'accepted', tenant, toStartOfMinute(kafka_timestamp) AS minute, max(kafka_offset) + 1, count(),
        reinterpretAsInt64(sum(reinterpretAsUInt64(substring(SHA256(event_id), 1, 8)))), reinterpretAsInt64(groupBitXor(reinterpretAsUInt64(substring(SHA256(event_id), 1, 8)))), kafka_partition
    FROM trace_events GROUP BY tenant, minute, kafka_partition""",
)


@dataclass(frozen=True)
class Question:
    """A query of docs/sql.md with its number, its title, and the sentence that says why one asks."""

    number: int
    title: str
    why: str
    sql: str


@dataclass(frozen=True)
class Timing:
    """A query timed.

    Attributes
    ----------
    query
        Number and title.
    span
        `day` or `all`.
    rows
        Of the result.
    ms, best_ms, worst_ms
        Wall time: median, best and worst of the repeats; unit: milliseconds.
    """

    query: str
    span: str
    rows: int
    ms: float
    best_ms: float
    worst_ms: float


def questions(text: str) -> list[Question]:
    """Return the questions of the page."""
    return [Question(int(number), title, why.strip(), sql) for number, title, why, sql in _QUESTION.findall(text)]


def timings_table(folder: Path = RESULTS) -> str:
    """Return the part of the page that the result file makes."""
    if not (folder / "sql.json").exists():
        return f"{_BEGIN}\n\nNot measured yet.\n\n{_END}"
    found = json.loads((folder / "sql.json").read_text())
    head, timings = found["header"], found["queries"]
    lines = [_BEGIN, "", "| question | newest day, ms | everything, ms |", "| --- | ---: | ---: |"]
    by_query: dict[str, dict[str, float]] = {}
    for one in timings:
        by_query.setdefault(one["query"], {})[one["span"]] = one["ms"]
    lines += [f"| {query} | {_shown(ms.get('day'))} | {_shown(ms.get('all'))} |" for query, ms in by_query.items()]
    slow = [f"{one['query']} ({one['span']})" for one in timings if one["ms"] >= BAR_MS]
    said = f"Not below {BAR_MS:,.0f} ms: {', '.join(slow)}." if slow else f"Each is below {BAR_MS:,.0f} ms."
    if took := found.get("folded"):
        said += f" Folding {took['traces']:,} traces of {took['events']:,} events took {took['s']:,.0f} s, which the sink does in the background while they come in."
    lines += ["", f"{said} `{head['command']}` on {head['machine']}; chdb {head['versions']['chdb']}. {head['payload'][0].upper()}{head['payload'][1:]}.", "", _END]  # fmt: skip
    return "\n".join(lines)


def _shown(ms: float | None) -> str:
    return "" if ms is None else f"{ms:,.0f}"


def write_page(folder: Path = RESULTS) -> None:
    """Put the timings into the page."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = text.index(_BEGIN), text.index(_END) + len(_END)
    PAGE.write_text(text[:start] + timings_table(folder) + text[end:], encoding="utf-8")


def fill(client: Any, events: int) -> dict[str, float]:
    """Make the rows, and fold all but the newest events; returns what that took."""
    span_us, traces = DAYS * 86_400_000_000, events // EVENTS_PER_TRACE
    asked = {"start": _START, "span_us": span_us, "traces": traces}
    # A chunk that was cut off is made again: its rows are the same, and merged into one.
    there = int(client.query("SELECT count() FROM trace_events").result_rows[0][0])
    settled = events - events * UNFOLDED_S // (DAYS * 86_400 * EVENTS_PER_TRACE) * EVENTS_PER_TRACE
    for first in range(there // CHUNK * CHUNK, settled, CHUNK):
        _fill(client, {**asked, "first": first, "rows": min(CHUNK, settled - first)})
    time.sleep(1.1)  # what was stored in this second has not settled
    began = time.perf_counter()
    done = fold(client, settle_s=0, leave_s=0, step=lambda so_far: say(f"{so_far.events:,} events folded"))
    folded = {"traces": done.traces, "events": done.events, "s": round(time.perf_counter() - began, 1)}
    _fill(client, {**asked, "first": settled, "rows": events - settled})
    for hours in range(0, DAYS * 24 + 1, 6):
        since = _START + dt.timedelta(hours=hours)
        client.command(_FILL_ROLLUPS, parameters={"since": since, "until": since + dt.timedelta(hours=6)})
    for statement in _FILL_OTHERS:
        client.command(statement, parameters={n: v for n, v in asked.items() if f"{{{n}:" in statement})
    for table in ("trace_events", "rewards", "rollups", "policies", "alerts", "dead_letters", "ledger", "trace_totals"):
        say(f"merging {table}")
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    return folded


def _fill(client: Any, part: Mapping[str, Any]) -> None:
    for statement in (_FILL_EVENTS, _FILL_REWARDS):
        client.command(statement, parameters=part)
    say(f"{part['first'] + part['rows']:,} events")


def ask(client: Any, listed: Sequence[Question], repeats: int = REPEATS) -> Iterator[Timing]:
    """Time every question over the newest day and over everything."""
    end = _START + dt.timedelta(days=DAYS, minutes=1)
    trace = client.command("SELECT trace_id FROM v_alerts WHERE tenant = 'default' LIMIT 1")
    session = client.command(
        "SELECT any(session_id) FROM trace_events WHERE trace_id = {trace:String}", parameters={"trace": trace}
    )
    known = {
        "tenant": "default",
        "policy": "research/retrieval",
        "trace": trace,
        "session": session,
        "control": 0.1,
        "until": end,
    }
    for question in listed:
        spans: Mapping[str, dt.datetime] = {"day": end - dt.timedelta(days=1), "all": _START}
        for span, since in spans.items():
            if span == "day" and "{since:" not in question.sql:
                continue
            asked = {n: v for n, v in {**known, "since": since}.items() if f"{{{n}:" in question.sql}
            times, rows = [], 0
            for _ in range(repeats):
                began = time.perf_counter()
                rows = len(client.query(question.sql, parameters=asked).result_rows)
                times.append((time.perf_counter() - began) * 1e3)
            yield Timing(
                f"{question.number}. {question.title}",
                span,
                rows,
                round(statistics.median(times), 1),
                round(min(times), 1),
                round(max(times), 1),
            )


def run(folder: Path | None, events: int, only: Sequence[int] = (), data: Path | None = None) -> None:
    """Fill, ask, write the results."""
    listed = [q for q in questions(PAGE.read_text(encoding="utf-8")) if not only or q.number in only]
    place = data or Path(tempfile.mkdtemp(prefix="steersman-sql-"))
    try:
        client, folded = connect(f"chdb://{place}"), {}
        migrate(client)
        if not client.query("SELECT count() FROM ledger").result_rows[0][0]:
            folded = fill(client, events)
        stored = client.query("SELECT count() FROM trace_events").result_rows[0][0]
        timings = []
        for one in ask(client, listed):
            timings.append(one)
            say(f"{one.query:60} {one.span:4} {one.rows:7,} rows {one.ms:9,.0f} ms (best {one.best_ms:,.0f})")
        client.close()
    finally:
        if data is None:
            shutil.rmtree(place, ignore_errors=True)
    figures = [
        Figure(one.query, f"time, {one.span}", "ms", one.ms, one.best_ms, one.worst_ms, REPEATS) for one in timings
    ]
    head = header(PAYLOAD if events == EVENTS else f"{stored:,} rows: {PAYLOAD}", "python -m benchmarks.sql")
    results = {
        "figures": [asdict(f) for f in figures],
        "stored_rows": stored,
        "folded": folded,
        "queries": [asdict(one) for one in timings],
    }
    print(f"-> {write('sql', head, results, folder)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Time the questions, or make the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql", description=__doc__)
    add_out(parser)
    parser.add_argument("--events", type=int, default=EVENTS, help=f"how many trace events (default {EVENTS:,})")
    parser.add_argument(
        "--only", type=int, action="append", default=[], metavar="N", help="only this question; repeat it"
    )
    parser.add_argument(
        "--data", type=Path, help="keep the data there, and use it when it is there (default: made and deleted)"
    )
    parser.add_argument("--page", action="store_true", help="only put the last timings into docs/sql.md")
    options = parser.parse_args(argv)
    if options.page:
        write_page(options.out or RESULTS)
        return
    run(options.out, options.events, options.only, options.data)


if __name__ == "__main__":
    raise SystemExit(alone(main))
