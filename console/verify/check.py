"""All equations of one look at the logs and the store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from console.verify import sides
from console.verify.catch_up import Lag
from console.verify.equations import LISTED, Equation, Key, Side, compare
from console.verify.forgotten import NOTHING_FORGOTTEN, Forgotten, apart, without
from console.verify.kafka_side import PolicyLog, RewardLog, TraceLog
from console.verify.policies import Version, compare_versions, due_or_newer, heads, one_content_each
from console.verify.producer_ledger import ProducerLedger, compare_producers
from console.verify.records import TICK, UNREADABLE, Place
from console.verify.span import OPEN, Span
from console.verify.store_side import Store
from console.verify.windows import Count, compare_windows, counts_of
from steersman.fingerprint import Fingerprint
from steersman.topics import Topics
from streams.trace_stage import StageSettings


@dataclass
class Look:
    """What is compared.

    Attributes
    ----------
    topics
        Names of the topics.
    span
        Range.
    trace, rewards, policies
        The logs as far as they were read.
    store
        The tables.
    producers
        What producers say they sent, None when nobody said.
    due, held
        The heads of the policy topic at one time, and what a policy subscriber held a little later, by tenant/policy.
    lags
        What consumer groups had left to do.
    stage
        Times of the trace stage.
    priced
        Whether workers price calls that report no cost, so that windows hold costs which the events do not.
    forgotten
        What was deleted from the tables on request.
    """

    topics: Topics
    span: Span
    trace: TraceLog
    rewards: RewardLog
    policies: PolicyLog
    store: Store
    producers: ProducerLedger | None
    due: Mapping[str, Version]
    held: Mapping[str, Version]
    lags: Sequence[Lag]
    stage: StageSettings
    priced: bool = False
    forgotten: Forgotten = NOTHING_FORGOTTEN


def equations(look: Look) -> list[Equation]:
    """Compare everything that can be compared again at no great cost, in order of the equations."""
    compared = [*_events(look), _windows(look), *_rewards(look), *_policies(look), *_liveness(look)]
    return [replace(one, note="; ".join(filter(None, (one.note, look.forgotten.note(one.id))))) for one in compared]


def _events(look: Look) -> Iterator[Equation]:
    log, span, store, gone = look.trace, look.span, look.store, look.forgotten
    letters = list({*store.letters(look.topics.trace, span.start), *gone.event_letters})
    by_stage = {stage: [one for one in letters if one.stage == stage] for stage in ("SINK", "VALIDATE", "DESERIALIZE")}
    refused = {one.place for one in by_stage["VALIDATE"]}
    unstored = {one.place for one in by_stage["SINK"]}
    open_end = span.end == OPEN
    yield compare_producers(
        look.producers,
        # Ticks are the workers' own: no producer must have sent them.
        (
            ((r.partition, r.offset), None if r.kind == UNREADABLE else r.id, r.kind != TICK and r.minute in span)
            for r in log.rows()
        ),
        {p: (first, 1 << 63 if open_end else log.reader.next[p]) for p, first in log.reader.first.items()},
    )
    yield compare(
        "E1b",
        "every event id of Kafka is stored, and counts once",
        apart(sides.distinct_ids(log, unstored | gone.events, span), gone.tenants),
        apart(store.event_ids(span), gone.tenants),
    )
    yield compare(
        "E2a",
        "Kafka = stored rows + dead letters of the sink",
        apart(sides.in_kafka(log, span, gone.events), gone.tenants),
        apart(
            sides.joined("trace_events", store.events(span), sides.refused_by_sink(log, by_stage["SINK"], span)),
            gone.tenants,
        ),
    )
    taken = store.ledger("trace", ("accepted", "duplicate", "too_late"), span)
    yield compare(
        "E2b",
        "Kafka = accepted + duplicate + too late events of the trace stage",
        apart(sides.valid(log, refused, span), gone.tenants),
        apart(_side("ledger", {(tenant, minute): one for (tenant, _, minute), one in taken.items()}), gone.tenants),
    )
    yield compare(
        "E2c",
        "Kafka's unreadable and invalid records = rejected by the trace stage",
        sides.invalid(log, refused, span),
        _side("ledger", {(minute,): one for (_, _, minute), one in store.ledger("trace", ("rejected",), span).items()}),
    )
    yield compare(
        "E2d",
        "Kafka's unreadable records = dead letters of the trace stage",
        sides.unreadable(log, span),
        sides.buried(log, by_stage["DESERIALIZE"], span),
    )


def _windows(look: Look) -> Equation:
    span, store, stage = look.span, look.store, look.stage
    lengths = store.window_us(stage.window_us)
    if len(lengths) > 1:
        nothing = {"of": "windows"}
        note = f"not compared: windows of different lengths ({', '.join(map(str, lengths))} microseconds)"
        return Equation("E3", "stored events = events of the windows + too late", nothing, nothing, True, [], note)
    partitions = max(look.trace.reader.next) + 1
    closed = store.closed_before(lengths[0], partitions)
    raw, rollups = store.windows(span, lengths[0], closed, stage.max_ahead_us, stage.max_behind_us)
    gone = look.forgotten
    letters = [*store.letters(look.topics.trace, span.start), *gone.event_letters]
    counted = gone.counts(look.trace, {one.place for one in letters if one.stage == "VALIDATE"}, span)
    raw, rollups = (
        {key: one for key, one in windows.items() if key.tenant not in gone.tenants} for windows in (raw, rollups)
    )
    # An event of the range may come too late at any time after it.
    late: dict[str, Count] = {}
    for (tenant, _, _), one in store.ledger("trace", ("too_late",), Span(span.start)).items():
        if tenant not in gone.tenants:
            late[tenant] = late.get(tenant, Count()).plus(Count(one.n, one.amount))
    if not look.priced:
        return compare_windows(raw, rollups, late, exact=span.whole, forgotten=counted)
    counts = compare_windows(
        counts_of(raw), counts_of(rollups), counts_of(late), exact=span.whole, forgotten=counts_of(counted)
    )
    note = (
        "counts, not costs: workers price calls (STEERSMAN_PRICES), so windows hold costs that the events do not report"
    )
    return replace(counts, note=f"{counts.note}; {note}" if counts.note else note)


def _rewards(look: Look) -> Iterator[Equation]:
    rows, span, store = look.rewards.rows, look.span, look.store
    gone = look.forgotten
    letters = [*store.letters(look.topics.reward, span.start), *gone.reward_letters]
    unstored = {one.place for one in letters if one.stage == "SINK"}
    unlearned: Collection[Place] = {one.place for one in letters if one.stage == "LEARN"}
    caused = sides.caused_within(look.trace, span)
    stored = sides.stored_rewards(store.rewards(span.start), caused)
    yield compare(
        "E4a",
        "rewards of the topic = stored rewards + dead letters of the sink",
        apart(sides.rewards_of(rows, caused, without=gone.of_rewards(rows)), gone.tenants),
        apart(sides.joined("rewards", stored, sides.rewards_of(rows, caused, unstored)), gone.tenants),
    )
    made = apart(_by_policy(store.ledger("trace", ("rewarded",), span)), gone.tenants)
    topic = apart(sides.rewards_of(rows, caused), gone.tenants)
    yield compare("E4b", "rewards of the topic = rewarded by the trace stage", topic, made)
    # A learner that another deployment has superseded passes over rewards unread, repeats as well; so do all learners over
    # those of shards that there are no more.
    silent = {
        key[:2] for reason in ("superseded", "other_shard") for key in store.ledger("learn", ("skipped",), span, reason)
    }
    effects = store.ledger("learn", ("applied", "skipped", "rejected"), span)
    once = compare(
        "E4c",
        "rewards of the topic, each once = applied + skipped + rejected by the learners",
        apart(sides.to_learn(rows, span, silent, unlearned), gone.tenants),
        apart(_by_policy({key: one for key, one in effects.items() if key[:2] not in silent}), gone.tenants),
    )
    yield replace(once, note=f"without policies whose learners passed over rewards: {len(silent)}") if silent else once
    yield compare(
        "E4d",
        "records of the reward topic = all that the learners account for, repeats included",
        apart(sides.to_learn(rows, span), gone.tenants),
        apart(_by_policy(store.ledger("learn", ("applied", "skipped", "rejected", "duplicate"), span)), gone.tenants),
    )


def _policies(look: Look) -> Iterator[Equation]:
    head = heads(look.policies.records)
    must = {policy: due_or_newer(look.due, look.held, policy, version) for policy, version in head.items()}
    yield compare_versions("E6a", "agents hold the head of the policy topic", must, look.held, "subscriber")
    stored = look.store.policies(look.policies.earliest, look.policies.reader.next)
    there, kept = (without(found, look.forgotten.tenants) for found in (head, stored))
    yield compare_versions("E6b", "the newest stored policy is the head of the topic", there, kept, "policies")
    yield one_content_each(look.policies.records)


def _liveness(look: Look) -> Iterator[Equation]:
    behind = [f"{lag.group}: {lag.records} records of {lag.topic}" for lag in look.lags if lag.records]
    yield Equation(
        "E7a",
        "nobody has records of the range left to do",
        {"of": "records to do", "n": sum(lag.records for lag in look.lags)},
        {"of": "allowed", "n": 0},
        not behind,
        behind[:LISTED],
    )
    name = "no window stays open"
    stage = look.stage
    lengths = look.store.window_us(stage.window_us)
    slack = lengths[-1] + 2 * stage.lateness_us
    clocks = look.trace.clocks()
    overdue = [
        f"partition {partition}: window that ended {(clocks[partition] - end) / 1e6:.0f} s before the partition's clock"
        for partition, end in look.store.open_windows(lengths[0])
        if end >= look.span.start * 60_000_000 and end + slack < clocks.get(partition, 0)
    ]
    yield Equation(
        "E7b",
        name,
        {"of": "overdue windows", "n": len(overdue)},
        {"of": "allowed", "n": 0},
        not overdue,
        overdue[:LISTED],
    )


def _by_policy(entries: Mapping[tuple[str, str, int], Fingerprint]) -> Side:
    return _side("ledger", {(tenant, policy, minute): one for (tenant, policy, minute), one in entries.items()}, 2)


def _side(name: str, entries: Mapping[Key, Fingerprint], width: int | None = None) -> Side:
    """Make a side of ledger entries; of the first `width` parts of their keys."""
    groups: dict[Key, Fingerprint] = {}
    for key, one in entries.items():
        groups.setdefault(key[:width], Fingerprint()).merge(replace(one))
    return Side(name, groups)
