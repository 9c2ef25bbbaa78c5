"""Why a decision was made, on the page: with the weights that ClickHouse keeps of the version that decided."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from doors.feedback import event_of_feedback, read_feedback
from learners.explanation import Decided, explained
from learners.why import explain
from page.explaining import MOST
from steersman.errors import SteersmanError
from steersman.held import Held, StaticPolicies
from tests.page.browser import Tab, browse
from tests.page.policies import held
from tests.page.served import ask, insert, serving
from tests.sinks.records import record

OLD, NEW = 100, 190
X = [0.5, 0.0, 1.0, 1.0]
ARM = "model=large;k=2"
FITS = "document.documentElement.scrollWidth <= innerWidth"


@dataclass
class Kept:
    """What ClickHouse holds: two versions of one policy, far apart in their weights."""

    old: Held
    new: Held
    now_us: int

    def decide(
        self,
        url: str,
        trace: str,
        version: int,
        *,
        by: Held,
        off: float = 0.0,
        n: int = 1,
        eligible: tuple[int, ...] = (),
    ) -> None:
        """Decisions of a trace by a version, with its probability, or with one that is off."""
        mask = None
        if eligible:
            mask = np.zeros(len(by.snapshot.arms), dtype=bool)
            mask[list(eligible)] = True
        scores = by.scorer.score(np.array(X, dtype=np.float32), mask)
        propensity = float(scores.propensity[by.snapshot.arms.index(ARM)])
        made = [
            record(
                "trace_event", tenant="default", event_id=f"{trace[:24]}{i:08x}", trace_id=trace, span_id=f"{i + 1:016x}",
                kind="DECISION", status="OK", ts=self.now_us + i, agent="a", decision_id=f"{trace}-{i + 1:016x}",
                policy="team/answers", policy_epoch=1, policy_version=version, arm=ARM, propensity=propensity + off,
                explored=True, mode="LIVE", features=X, eligible=list(eligible),
            )
            for i in range(n)
        ]  # fmt: skip
        insert(url, "trace_events", made, int(trace[-4:], 16) * 1000)


@pytest.fixture
def kept(database: str) -> Kept:
    now = time.time_ns() // 1000
    old, new = (
        held(version=version, seed=version, created_at=now - (200 - version) * 1_000_000) for version in (OLD, NEW)
    )
    insert(database, "policies", [one.snapshot.to_record() for one in (old, new)])
    return Kept(old, new, now)


def _cells(text: str, by: Held) -> tuple[str, list[str]]:
    """The table of the quality, and the rows it must have under these weights."""
    quality = explain(by, X, ARM)[0]
    table = text.partition("<caption>quality:")[2].partition("</table>")[0]
    return table, [f"<td>{p.feature}</td>" + "".join(f'<td class="n">{v:.3g}</td>' for v in (p.value, p.weight, p.adds)) for p in quality.parts]  # fmt: skip


def test_an_old_decision_is_explained_with_the_weights_that_decided(database: str, kept: Kept) -> None:
    traces = [f"{i:032x}" for i in range(1, 6)]
    kept.decide(database, traces[0], OLD, by=kept.old)
    kept.decide(database, traces[1], OLD, by=kept.old, off=0.01)
    kept.decide(database, traces[2], 120, by=kept.old)
    kept.decide(database, traces[3], OLD, by=kept.old, n=MOST + 2)
    kept.decide(database, traces[4], OLD, by=kept.old, eligible=(1, 3))
    with serving(database, StaticPolicies([kept.new.snapshot])) as (url, _):
        text = ask(url, f"/trace/{traces[0]}")[2]
        assert "Weights of version 1.100, which decided." in text
        assert "computed again" in text
        assert ": the same." in text
        table, rows = _cells(text, kept.old)
        assert rows
        assert all(row in table for row in rows), (table, rows)
        assert not any(row in table for row in _cells(text, kept.new)[1] if row not in rows)
        arms = re.findall(r"<td><code>(.*?)</code>", text.partition('class="arms"')[2].partition("</table>")[0])
        assert sorted(arms) == sorted(kept.old.snapshot.arms.labels)

        text = ask(url, f"/trace/{traces[1]}")[2]
        assert ": not the same." in text, "a probability that does not come out is said"

        text = ask(url, f"/trace/{traces[2]}")[2]
        assert "Weights of version 1.100, the nearest at hand; it was decided with 1.120" in text
        assert f"steersman policy explain {traces[2]}-{1:016x}" in text.replace("&#39;", "'")
        assert "another version" in text or ": the same." in text

        text = ask(url, f"/trace/{traces[3]}")[2]
        assert text.count("which decided.") == MOST
        assert text.count(f"Only the first {MOST} decisions") == 2

        text = ask(url, f"/trace/{traces[4]}")[2]
        assert ": the same." in text, "the draw was among what was eligible"
        assert text.partition('class="arms"')[2].partition("</table>")[0].count("<code>") == 2


def test_the_view_of_an_old_decision_in_a_browser(database: str, kept: Kept, tmp_path: Path) -> None:
    trace = f"{9:032x}"
    kept.decide(database, trace, OLD, by=kept.old)
    quality = explain(kept.old, X, ARM)[0]
    best = quality.parts[0]

    async def work(tab: Tab) -> None:
        await tab.look(390, 844)
        await tab.open(f"{url}/trace/{trace}", "document.querySelector('.decision summary') !== null")
        assert not await tab.js("document.querySelector('.decision details').open")
        await tab.js("document.querySelector('.decision summary').focus()")
        await tab.key("Enter", 13)
        await tab.until("document.querySelector('.decision details').open")
        said = await tab.js("document.querySelector('.decision').innerText")
        assert "Weights of version 1.100, which decided." in said
        assert "drawn by the policy" in said
        assert f"{best.feature}\t{best.value:.3g}\t{best.weight:.3g}\t{best.adds:.3g}" in said, said
        assert await tab.js("document.querySelector('.arms .taken code').textContent") == ARM
        shares = await tab.js(
            "[...document.querySelectorAll('.arms tbody tr')].map(r => parseFloat(r.children[1].textContent))"
        )
        assert len(shares) == 4
        assert sum(shares) == pytest.approx(1.0, abs=0.01)
        assert await tab.js(FITS)
        for width, dark in ((390, True), (1280, False)):
            await tab.look(width, 844, dark=dark)
            await tab.until(FITS)
            await tab.shot(tmp_path / f"decision-{width}{'-dark' if dark else ''}.png")
        assert (tab.dialogs, tab.errors) == ([], [])

    with serving(database, StaticPolicies([kept.new.snapshot])) as (url, _):
        browse(tmp_path, work)


def test_a_judgement_of_the_session_is_shown_with_its_traces(database: str) -> None:
    trace, now = f"{7:032x}", time.time_ns() // 1000
    [said] = read_feedback(b'{"session_id": "chat-9", "metric": "solved", "value": false, "source": "survey"}')
    judged = event_of_feedback(said, tenant="default", capture_content=False, now_us=now)
    span = record(
        "trace_event", tenant="default", event_id="1" * 32, trace_id=trace, kind="AGENT", session_id="chat-9", ts=now
    )
    other = record(
        "trace_event", tenant="default", event_id="2" * 32, trace_id="8" * 32, kind="AGENT", session_id="chat-8", ts=now
    )
    insert(database, "trace_events", [span, other, record("trace_event", **judged)])
    with serving(database) as (url, _):
        text = ask(url, f"/trace/{trace}")[2]
        assert "<b>solved</b> 0" in text.partition("Feedback on its session")[2]
        assert "survey" in text
        assert "Feedback on its session" not in ask(url, f"/trace/{'8' * 32}")[2]


def test_the_record_that_fits_is_taken_and_what_cannot_be_used_is_said() -> None:
    one, other = held(seed=1, created_at=10), held(seed=2, created_at=20)
    x = np.array(X, dtype=np.float32)
    arm = one.snapshot.arms.index(ARM)

    def decided(p: float, at: int = 30, features: tuple[float, ...] = tuple(X), arms: tuple[int, ...] = ()) -> Decided:
        return Decided(features, arms, ARM, "LIVE", "0" * 32, p, at)

    for candidate in (one, other):
        found = explained([one, other], decided(float(candidate.scorer.score(x).propensity[arm])))
        assert (found.snapshot, found.same) == (candidate.snapshot, True)
        assert [why.component for why in found.why] == ["quality", "cost", "latency", "failures"]
    assert explained([one, other], decided(0.123, at=15)).snapshot is one.snapshot, "the last published by then"
    assert explained([one, other], decided(0.123)).snapshot is other.snapshot
    assert not explained([one, other], decided(0.123)).same
    for bad, why in (
        ([], "no usable snapshot"),
        ([one], "has 1 features"),
    ):
        with pytest.raises(SteersmanError, match=why):
            explained(bad, decided(0.5, features=(1.0,)))
    with pytest.raises(SteersmanError, match="out of bounds"):
        explained([one], decided(0.5, arms=(99,)))
