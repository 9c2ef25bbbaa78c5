"""docs/capacity.md reckons memory from what was measured, and its examples from its formula."""

from __future__ import annotations

import re
from math import ceil
from statistics import median

import pytest

from tests.manual.measured import ROOT, agrees, results, shown

PAGE = (ROOT / "docs" / "capacity.md").read_text()
HOUR_S, WAIT_S = 3600, 35
EVENTS = 10
"""Events of a trace in the page's examples."""


def number(pattern: str) -> float:
    """Return the one number that a pattern finds on the page."""
    (found,) = re.findall(pattern, PAGE)
    return float(found.replace(",", ""))


BASE_MB = number(r"memory\(worker\)  =  ([\d,]+) MB")
CLOSED = number(r"horizon x ([\d,]+) bytes \+ 35 s x [\d,]+ bytes\)")
WAITING = number(r"horizon x [\d,]+ bytes \+ 35 s x ([\d,]+) bytes\)")


def test_the_formula_has_the_measured_bytes() -> None:
    figures = results("traces")["figures"]
    measured = {figure["system"]: figure["median"] for figure in figures if figure["metric"] == "memory per trace"}
    assert pytest.approx(measured.pop("columns, 300,000 closed traces remembered"), rel=0.02) == CLOSED
    assert measured
    for system, trace in measured.items():
        assert pytest.approx(trace, rel=0.02) == WAITING, system


def test_the_text_has_the_bytes_of_the_formula() -> None:
    assert number(r"A trace that waits takes ([\d.]+) KB") == WAITING / 1000
    assert number(r"one that has ended ([\d,]+) bytes") == CLOSED
    assert number(r"\(horizon x ([\d,]+) bytes \+ 35 s x [\d.]+ KB\)") == CLOSED
    assert number(r"\(horizon x [\d,]+ bytes \+ 35 s x ([\d.]+) KB\)") == WAITING / 1000


def test_the_examples_follow_the_formula() -> None:
    def trace(horizon_s: float) -> float:
        return horizon_s * CLOSED + WAIT_S * WAITING

    traces = 5_000 / EVENTS
    assert number(r"the ended ones are\n([\d,]+) MB after an hour") == round(traces * HOUR_S * CLOSED / 1e6)
    most = number(r"reached at about ([\d,]+) events/s a worker")
    assert pytest.approx((2000 - BASE_MB) * 1e6 / trace(HOUR_S) * EVENTS, rel=0.01) == most
    assert number(r"where the formula gives ([\d,]+) \(300 s of horizon\)") == round(
        BASE_MB + traces * trace(300) / 1e6
    )
    assert number(r"([\d,]+) GB in all at an hour") == round(100_000 * trace(HOUR_S) / 1e9)
    assert number(r"([\d,]+) GB at ten minutes") == round(100_000 * trace(600) / 1e9)


SOAK = {row["process"]: row for row in results("soak")["rows"]}
LOOP = {figure["system"]: figure["median"] for figure in results("loop")["figures"] if figure["metric"] == "CPU"}
WORKERS = sum(us for system, us in LOOP.items() if system.startswith("worker"))


def same(passage: str, *values: float) -> bool:
    """Whether the page has these figures where a passage has ``#``."""
    texts = shown("capacity.md", passage)
    return len(texts) == len(values) and all(map(agrees, texts, values))


def of_log(workers: int, what: str) -> float:
    """Median over the runs of `workers.json` with a log that is there."""
    rows = results("workers")["rows"]
    return median(row[what] for row in rows if (row["phase"], row["workers"]) == ("log", workers))


def test_what_an_event_costs_is_what_was_measured() -> None:
    soak = {process: row["cpu_us_per_event"] for process, row in SOAK.items()}
    rate = int(results("loop")["header"]["argv"][1])
    assert same("| process | at # events/s, two workers (`loop.json`) |", rate)
    assert sum(system.startswith("worker") for system in LOOP) == 2
    assert same("| workers, both stages | # | # |", WORKERS, soak["worker"])
    assert same("| broker | # | # |", LOOP["broker"], soak["broker"])
    assert same("| ClickHouse | # | # |", LOOP["gateway"], soak["gateway"])
    assert same("| sink | # | # |", LOOP["sink"], soak["sink"])
    assert same("| page | # | # |", LOOP["page"], soak["page"])


def test_the_formula_is_checked_with_what_was_measured() -> None:
    one, four = of_log(1, "cpu_us_per_event"), of_log(4, "cpu_us_per_event")
    assert same("One worker at # us an event should end at 1,000,000 / #", one, one)
    (cost,) = shown("capacity.md", "One worker at # us an event")
    assert same(f"should end at 1,000,000 / {cost} = # events/s", 1e6 / float(cost))
    assert same("median of three): #.", of_log(1, "events_per_s"))
    assert same("an event costs them # us where it costs one # (", four, one)
    scale = results("workers")["scale"]
    assert same("are used up: # times as much on two cores by CPU", scale["by_cpu"])
    assert same("By the clock it is # times", scale["by_clock"])
    assert same("(# and # events/s) with the broker", of_log(4, "events_per_s"), of_log(1, "events_per_s"))
    assert same("and from a heap an event costs # us", four)
    (whole,) = (figure for figure in results("loop")["figures"] if figure["metric"] == "sustained")
    us = whole["cpu_us_per_event"]
    assert same("# us an event altogether: # cores of 2", us, us * whole["median"] / 1e6)


def test_memory_and_disk_are_those_of_the_soak() -> None:
    flat = [SOAK[process]["rss_slope_mb_per_min"] for process in ("worker", "sink", "doors", "page", "agent")]
    (most,) = shown("capacity.md", "changed by less than # MB a minute")
    assert max(map(abs, flat)) < float(most)
    slopes = [SOAK[process]["rss_slope_mb_per_min"] for process in ("gateway", "broker")]
    assert same("ClickHouse (chDB) grew by # and the broker by #;", *slopes)
    assert same("That worker held # MB", SOAK["worker"]["rss_last_mb"])
    stored = results("soak")["bytes"]
    topics, rows = stored["topic_bytes_per_event"], stored["table_bytes_per_row"]
    store = sum(rows[table] * each for table, each in stored["table_rows_per_event"].items())
    named = [topics[f"bench.{topic}.v1"] for topic in ("trace", "state", "rollup", "reward")]
    assert same("Kafka: # bytes an event over all topics", sum(topics.values()))
    assert same("(trace #, state # after compaction, rollup #, reward #)", *named)
    assert same("ClickHouse: # bytes an event over all tables", store)
    assert same("(`trace_events` # a row;", rows["trace_events"])


def test_a_million_events_a_second_follow_the_table() -> None:
    assert same("1,000,000 x # us = # cores, at 0.7", WORKERS, WORKERS)
    assert same("| workers | # cores |", ceil(WORKERS / 0.7))
    assert same(
        "| sinks | # cores | # cores at 0.7; # sinks", ceil(LOOP["sink"] / 0.7), LOOP["sink"], ceil(LOOP["sink"] / 0.7)
    )
    assert same("2 replicas each | # cores for inserts and merges", LOOP["gateway"])
    assert same("| # cores with one copy; two more copies", LOOP["broker"])
    assert same("say 2.5 times: #, and # at 0.7", 2.5 * LOOP["broker"], 2.5 * LOOP["broker"] / 0.7)
    (kafka,) = shown("capacity.md", "Kafka: # bytes an event over all topics")
    (store,) = shown("capacity.md", "ClickHouse: # bytes an event over all tables")
    assert same("| # TB a day and copy | # bytes an event |", float(store) * 0.0864, float(store))
    assert same("| disk of Kafka | # TB a day and copy |", float(kafka) * 0.0864)
    assert same("| # Gbit/s in and out | # bytes x 1,000,000", float(kafka) * 5 * 8 / 1000, float(kafka))


def test_a_policy_has_one_learner_up_to_what_one_was_measured_to_take() -> None:
    (small,) = (
        figure["median"]
        for figure in results("learn")["figures"]
        if figure["system"] == "decoding and LearningStage.process, 8 arms, d=16"
    )
    assert shown("capacity.md", "up to # rewards/s of its core") == [f"{small // 1000 * 1000:,}"]
