"""What pages say of a file of results is what that file says."""

from __future__ import annotations

import doctest

import pytest

from benchmarks.measure import RESULTS
from benchmarks.sql import timings_table
from tests.manual import measured
from tests.manual.measured import agrees, cpu, figure, median, results, shown, words

Case = tuple[str, str, list[float]]
"""A page, a passage of it with ``#`` for each number, and what the results say."""


def test_how_numbers_are_compared() -> None:
    assert not doctest.testmod(measured).failed


def rollup() -> list[Case]:
    def of(system: str) -> list[float]:
        return [median("rollup", system, "throughput"), cpu("rollup", system, "throughput")]

    others = {
        "Faust, tumbling table": ("Faust tumbling table #k events/s", "# times as fast"),
        "Faust, plain agent": ("plain Faust agent #k", "#"),
        "Quix Streams, stateful window": ("Quix stateful window #k", "#"),
        "Bytewax, window": ("Bytewax window #k", "#"),
    }
    job, job_us = of("steersman, rollup job alone")
    empty, empty_us = of("steersman, batch transport, empty agent")
    cases: list[Case] = []
    for system, (design, ratio) in others.items():
        rate, us = of(system)
        cases += [
            ("performance.md", f"| {system} | # | # | {ratio} |", [rate, us, job / rate]),
            ("design.md", design, [rate / 1000]),
        ]
    worker = of("steersman, worker --stages trace")
    return [
        *cases,
        ("performance.md", "| steersman, that job alone | # | # |", [job, job_us]),
        ("performance.md", "| steersman, batch transport with an empty agent | # | # |", [empty, empty_us]),
        ("performance.md", "| steersman, worker `--stages trace` | # | # |", worker),
        ("performance.md", "(Faust, aiokafka) | # | `rollup`, empty agent", [empty_us]),
        ("performance.md", "record batches is # us an event of ours in Python: # events/s and core", [empty_us, empty]),
        ("design.md", "batch transport #k (# us of CPU an event), an empty agent #k", [job / 1000, job_us, empty / 1000]),
    ]  # fmt: skip


def traces() -> list[Case]:
    def event(way: str, events: int) -> float:
        return median("traces", f"{way}, {events} events a trace", "CPU per event")

    def parts(way: str) -> tuple[float, float]:
        """CPU of a span, and of what each trace has once: two lengths of traces, two unknowns."""
        short, long = 6 * event(way, 6), 23 * event(way, 23)
        span = (long - short) / 17
        return span, short - 3 * span

    def waiting(traces: int, metric: str) -> float:
        return median("traces", f"columns, {traces:,} traces wait", metric)

    sizes = (1_000, 10_000, 100_000, 1_000_000)
    (span, trace), (span_by_records, trace_by_records) = parts("columns"), parts("records")
    more = [median("traces", f"columns, {n:,} traces wait / 1,000", "CPU per event") for n in sizes[1:]]
    collections = [waiting(n, "full garbage collection") / 1000 for n in sizes]
    dumps = [waiting(n, "dump, CPU per event") for n in sizes]
    times = [median("traces", f"records / columns, {n} events a trace", "CPU per event") for n in (23, 6)]
    long, short = ([event("columns", n), event("records", n)] for n in (23, 6))
    page, design = "performance.md", "design.md"
    return [
        (page, "decode, join, rollups, ledger: a span | # |", [span]),
        (page, "the same, traces of 23 events | # (record by record: #) |", long),
        (page, "each with a decision and a feedback | # (record by record: #) |", short),
        (page, "dump of the state, every 20,000 events | # to # |", [min(dumps), max(dumps)]),
        (page, "A trace costs about # us whatever its length", [trace]),
        (page, "an event costs #, # and # times what it does with 1,000", more),
        (page, "a full garbage collection (#, #, # and # s)", collections),
        (page, "a trace that waits takes # KB", [waiting(1_000_000, "memory per trace") / 1000]),
        (page, "the join's Python per trace (# us)", [trace]),
        (design, "traces of 23 events # us by columns against # us by records (# times)", [*long, times[0]]),
        (design, "a sixth feedback, # us against # us (# times)", [*short, times[1]]),
        (design, "a span costs # us (# by records)", [span, span_by_records]),
        (design, "marker that stays of a trace # us together (# by records)", [trace, trace_by_records]),
        (design, "feedback an event costs #, #, # and # us", [waiting(n, "CPU per event") for n in sizes]),
        (design, "the first three are #, # and # times", more),
        (design, "full garbage collection: #, #, # and # s;", collections),
        ("capacity.md", "of each trace # us are its own", [trace]),
    ]


def sink() -> list[Case]:
    def rate(place: str, way: str) -> float:
        return median("sink", f"{place}, {way}", "stored")

    def us(place: str, way: str) -> float:
        return cpu("sink", f"{place}, {way}", "stored")

    near, far = "chDB in process", "HTTP gateway"
    inside, outside = (figure("sink", f"{place}, columns", "stored") for place in (near, far))
    ratio = median("sink", f"{near}, columns to decoded", "rows/s, same repeat")
    columns, decoded, rows, avro = (rate(near, way) for way in ("columns", "decoded", "rows", "avro"))
    by_http = [rate(far, way) / 1000 for way in ("columns", "decoded", "avro")]
    page, design = "performance.md", "design.md"
    return [
        (page, "in the same process # rows/s, # times decode-and-insert by columns (#)", [columns, ratio, decoded]),
        (page, "and # times tuples (#)", [columns / rows, rows]),
        (page, "an Avro container that nobody checked takes #; over", [avro]),
        (page, "over HTTP # rows/s with # us of the sink's own CPU", [rate(far, "columns"), us(far, "columns")]),
        (page, "of the sink's own CPU a row, against # and # us", [rate(far, "decoded"), us(far, "decoded")]),
        (page, "scatter: # to # rows/s in chDB and # to # over", [*least_and_most(inside), *least_and_most(outside)]),
        (design, "**# us of CPU a row and #k rows/s against", [us(near, "columns"), columns / 1000]),
        (design, "against # us and #k for decode-and-insert", [us(near, "decoded"), decoded / 1000]),
        (design, "by columns**, # us by tuples", [us(near, "rows")]),
        (design, "that nobody checked takes # us and #k rows/s", [us(near, "avro"), avro / 1000]),
        (design, "the sink's process pays # us against #;", [us(far, "columns"), us(far, "decoded")]),
        (design, "; #k rows/s against #k, and #k for the unchecked container", by_http),
        (design, "Repeats by columns scatter (#k to #k rows/s", [one / 1000 for one in least_and_most(inside)]),
    ]  # fmt: skip


def least_and_most(figure: dict[str, float]) -> list[float]:
    """Of the repeats."""
    return [figure["min"], figure["max"]]


def peers(name: str) -> dict[str, str]:
    """Versions of the peers in a file."""
    versions = results(name)["header"]["versions"]
    return {key.removeprefix("peers: "): version for key, version in versions.items() if key.startswith("peers: ")}


def choose() -> list[Case]:
    def call(system: str, metric: str = "call p50") -> float:
        return median("choose", system, metric)

    def both(system: str) -> list[float]:
        return [call(f"{system}, {case}") for case in ("8 arms, d=16", "162 joint arms, d=32")]

    cases: list[Case] = []
    for title, case in (
        ("8 arms, 16 features", "8 arms, d=16"),
        ("8 arms, 36 features", "8 arms, d=36"),
        ("162 joint arms, 32 features", "162 joint arms, d=32"),
    ):
        times = [call(f"Router.choose, {case}", metric) for metric in ("call p50", "call p99")]
        cases.append(("performance.md", f"| `Router.choose`, {title} | # us | # us |", times))
    versions = peers("choose")
    ours = both("Router.choose")
    river = both(f"river {versions['river']} LinUCBDisjoint")
    mabwiser = both(f"mabwiser {versions['mabwiser']} LinUCB")
    wabbit = both(f"vowpalwabbit {versions['vowpalwabbit']} --cb_explore")
    small, large = ([peer[i] / ours[i] for peer in (river, mabwiser)] for i in (0, 1))
    return [
        *cases,
        ("performance.md", "river's LinUCBDisjoint takes # us and # us", river),
        ("performance.md", "MABWiser's LinUCB # us and # us", mabwiser),
        ("performance.md", "Vowpal Wabbit (C++) # us and # us", wabbit),
        ("performance.md", "with 8 arms ours is # times as fast as river and # times as fast as MABWiser", small),
        ("performance.md", "with 162 arms # and # times", large),
        ("performance.md", "Ten times faster than MABWiser with 8 arms would be # us", [mabwiser[0] / 10]),
    ]


def tracer() -> list[Case]:
    def span(system: str) -> list[float]:
        return [median("tracer", system, f"one at a time {part}") for part in ("p50", "p99")]

    sdk = peers("tracer")["opentelemetry-sdk"]
    return [
        ("performance.md", "| a span, begun and ended | # us | # us |", span("Tracer.span")),
        ("performance.md", "SDK's span, same run | # us | # us |", span(f"opentelemetry-sdk {sdk} span")),
    ]


def learn() -> list[Case]:
    def stage(case: str) -> list[float]:
        ways = ("LearningStage.process", "decoding and LearningStage.process")
        return [median("learn", f"{way}, {case}", "rewards per CPU second") for way in ways]

    def reward(system: str, case: str, how: str = "per reward") -> float:
        return median("learn", f"{system}, {case}", how)

    small, middle, large = "8 arms, d=16", "8 arms, d=36", "162 joint arms, d=32"
    versions = peers("learn")
    batch = "per reward, 500 at once"
    ours = reward("PolicyLearner.learn_many(500)", small)
    mabwiser = reward(f"mabwiser {versions['mabwiser']} LinUCB", small, batch)
    river = reward(f"river {versions['river']} LinUCBDisjoint", small, batch)
    wabbit = reward(f"vowpalwabbit {versions['vowpalwabbit']} --cb_explore", small, batch)
    snapshots = [median("learn", f"PolicyLearner.snapshot, {case}", "per snapshot") / 1000 for case in (small, large)]
    one_by_one, together = reward("PolicyLearner.learn_one", middle), reward("PolicyLearner.learn_many(500)", middle)
    page = "performance.md"
    return [
        (page, "# rewards per second of CPU (8 arms, 16 features), # with the decoding", stage(small)),
        (page, "of the rewards; # and # with 162 arms and 32 features", stage(large)),
        (page, "A policy's snapshot costs # ms and # ms", snapshots),
        (page, "our four heads cost # us a reward", [ours]),
        (page, "one head of MABWiser #, of river #, of Vowpal Wabbit #", [mabwiser, river, wabbit]),
        (page, "and now takes # (`learn.json`); in batches of 500 16 to 17, and #.", [one_by_one, together]),
    ]


def neural() -> list[Case]:
    def both(case: str, what: str, metric: str) -> list[float]:
        return [median("neural", f"{learner}, {case}: {what}", metric) for learner in ("neural", "linear")]

    small, large = "8 arms, d=16", "162 joint arms, d=32"
    learning = [both(case, "learn_many(50)", "per reward") for case in (small, large)]
    deciding = [both(case, "Router.choose", "call p50") for case in (small, large)]
    page = "performance.md"
    return [
        (page, "costs # us of CPU a reward where the linear one costs #", learning[0]),
        (page, "(8 arms, 16 features), # against # with 162 arms", learning[1]),
        (page, "with an encoder takes # us against #, and # against #", [*deciding[0], *deciding[1]]),
    ]


def shards() -> list[Case]:
    def rates(case: str) -> list[float]:
        systems = ("one of 1 shard", "one of 2 shards", "one of 4 shards")
        return [median("shards", f"{system}, {case}", "rewards per CPU second") for system in systems]

    def sums(case: str) -> list[float]:
        return [cpu("shards", f"{system}, {case}", "sum and snapshot") / 1000 for system in ("4 shards", "1 shard")]

    small, large = "8 arms, d=16", "162 joint arms, d=32"
    return [
        ("design.md", "#, #, # with 1, 2, 4 shards (8 arms, d = 16)", rates(small)),
        ("design.md", "(8 arms, d = 16), #, #, # (162 arms, d = 32)", rates(large)),
        ("design.md", "its snapshot take # ms of CPU against # ms for one learner, # ms against # ms", sums(small) + sums(large)),
    ]  # fmt: skip


def reaction() -> list[Case]:
    def at(rate: str) -> list[float]:
        return [median("reaction", f"{rate} events/s in the background", f"reaction {part}") for part in ("p50", "p99")]

    tail = figure("reaction", "5,000 events/s in the background", "reaction p99")
    page = "performance.md"
    return [
        (page, "# ms (p50) and # ms (p99) at 500 events/s", at("500")),
        (page, "at 500 events/s, # and # ms at 5,000 (p99 of three repeats # to #)", at("5,000") + least_and_most(tail)),
        (page, "), # and # ms at 20,000 with one worker", at("20,000")),
    ]  # fmt: skip


def loop() -> list[Case]:
    used = {f["system"]: f["median"] for f in results("loop")["figures"] if f["metric"] == "CPU"}
    workers = sum(us for system, us in used.items() if system.startswith("worker"))
    (whole,) = (f["cpu_us_per_event"] for f in results("loop")["figures"] if f["metric"] == "sustained")
    row = [workers, used["gateway"], used["sink"], used["broker"], used["feed"], whole]
    return [
        ("performance.md", "(this one is `loop.json`) | # | # | # | # | # | # |", row),
        ("performance.md", "(112 since, `soak.json`; at 30,000 two workers use #, `loop.json`)", [workers]),
    ]


def scaling() -> list[Case]:
    found = [figure("scaling", f"{n}, 4 partitions", "throughput") for n in ("1 worker", "2 workers", "4 workers")]
    rates = [one["median"] for one in found]
    costs = [one["cpu_us_per_event"] for one in found]
    return [
        ("performance.md", "the broker: # events/s by one worker, # by two, # by four", rates),
        ("performance.md", "by four, at # to # us of CPU an event each", [min(costs), max(costs)]),
    ]


def sql_and_redaction() -> list[Case]:
    longest = figure("redaction", "Redactor.text, hostile", "CPU for 1 MiB")["max"]
    ratio = figure("redaction", "Redactor.text, hostile", "1 MiB / 256 KiB")
    return [
        ("performance.md", "# s for 20 million of them (`sql.json`)", [results("sql")["folded"]["s"]]),
        ("threat-model.md", "the slowest takes # s of CPU for 1 MiB", [longest]),
        ("threat-model.md", "the text takes # times as long (median; up to #)", [ratio["median"], ratio["max"]]),
    ]


TABLES = (rollup, traces, sink, choose, tracer, learn, neural, shards, reaction, loop, scaling, sql_and_redaction)
CASES = [case for table in TABLES for case in table()]


@pytest.mark.parametrize(("page", "passage", "values"), CASES, ids=[f"{page}: {passage}" for page, passage, _ in CASES])
def test_a_page_has_the_figures_of_the_results(page: str, passage: str, values: list[float]) -> None:
    texts = shown(page, passage)
    assert len(texts) == len(values)
    wrong = [f"{text}, measured {value}" for text, value in zip(texts, values, strict=True) if not agrees(text, value)]
    assert not wrong


def test_the_timings_of_sql_are_those_of_its_results() -> None:
    assert " ".join(timings_table(RESULTS).split()) in words("sql.md")
