"""`steersman report` on stored data: numbers, the HTML file, hostile names, what is said when there is nothing."""

from __future__ import annotations

import datetime as dt
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from console.report import command, html, text
from console.report.figures import Figures
from console.report.queries import Request
from console.target import Target
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.errors import ConfigError, SteersmanError, Unreachable
from tests.console.report_data import BASELINE, POLICY, START, fill
from tests.faults.gateway import Gateway
from tests.page.browser import Tab, browse
from tests.page.served import EVIL


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    """URL of a database with `fill` in it, and beside it an empty one called `nothing`."""
    running = Gateway(tmp_path_factory.mktemp("clickhouse"))
    for name in ("report", "nothing"):
        client = connect(f"{running.url}/{name}", create_database=True)
        migrate(client)
        client.close()
    fill(f"{running.url}/report")
    yield f"{running.url}/report"
    assert running.stop() == 0


def at(url: str) -> Target:
    return Target("127.0.0.1:1", url, "steersman", "test")


@pytest.fixture(scope="module")
def figures(url: str) -> Figures:
    return command.make(at(url), Request("default"))


class Parsed(HTMLParser):
    """What a browser would make of a document, as far as it matters here."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_numbers_are_those_of_the_rows(figures: Figures, url: str) -> None:
    [policy, evil] = figures.policies
    assert (policy.name, evil.name) == (POLICY, f"team/{EVIL}")
    client = connect(url)
    for group, modes in ((policy.learned, "('LIVE')"), (policy.baseline, "('HOLDOUT')")):
        sql = (
            "SELECT count(), avg(cost_micro_usd) / 1e6, avg(latency_us) / 1e6, avg(quality), avg(utility), 1.96 * stddevSamp(quality) / "
            f"sqrt(count(quality)), avg(explored) FROM v_rewards WHERE policy = {{p:String}} AND mode IN {modes}"
        )
        [(n, cost, latency, quality, utility, half, explored)] = client.query(sql, parameters={"p": POLICY}).result_rows
        assert group.n == n
        assert [group.means[m].mean for m in ("cost", "latency", "quality", "utility")] == pytest.approx(
            [cost, latency, quality, utility]
        )
        assert group.means["quality"].half == pytest.approx(half)
        assert group.explored == pytest.approx(explored)
    arm = "model=small;top_k=2"
    sql = (
        "SELECT sum(cost_micro_usd / propensity) / sum(1 / propensity) / 1e6, count() FROM v_rewards WHERE policy = {p:String} AND arm = {a:String} "
        "AND mode = 'LIVE'"
    )
    [(cost, n)] = client.query(sql, parameters={"p": POLICY, "a": arm}).result_rows
    point = next(point for point in policy.front.points if point.label == arm)
    assert (point.n, point.cost.mean) == (n, pytest.approx(cost))
    client.close()
    assert policy.changes["cost"].sure
    assert policy.changes["cost"].difference.mean < 0
    assert policy.shaped["verdict"]["word"] == "better"
    assert not evil.changes
    assert figures.rows.events["n_unpriced"] == 20
    assert sum(one["n"] for one in figures.rows.detectors) == 26
    assert sum(one["n"] for one in figures.rows.dead) == 3


def test_time_and_policy_cut_the_data(url: str, figures: Figures) -> None:
    later = command.make(
        at(url), Request("default", POLICY, START + dt.timedelta(minutes=20), START + dt.timedelta(minutes=25))
    )
    [policy] = later.policies
    assert 0 < policy.learned.n < figures.policies[0].learned.n / 4
    assert sum(one["n"] for one in later.rows.detectors) == 5
    assert later.rows.events["n"] == 300
    assert len(policy.shaped["explored"]) == 60
    assert sum(value is not None for value in policy.shaped["explored"]) >= 45, "the bins fit the time"


def test_the_file_is_whole_asks_nobody_and_escapes_every_name(url: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    command.run(at(url), Request("default"), file, as_json=False)
    document = file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    parsed = Parsed(document)
    assert parsed.open == []
    names = {tag for tag, _ in parsed.tags}
    assert not names & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "image",
        "use",
        "foreignobject",
    }
    for tag, attributes in parsed.tags:
        assert not [
            name
            for name in attributes
            if name.startswith("on") or name in ("src", "srcset", "style", "data", "xlink:href")
        ], tag
        assert (attributes.get("href") or "#").startswith("#"), attributes
    assert not re.search(r"https?:|//[a-z]|url\(|@import", document)
    policy = next(
        a["content"] for t, a in parsed.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert EVIL in parsed.text, "shown as it is, so it was escaped"
    assert f"7 times {EVIL}" in parsed.text
    assert names >= {"svg", "polyline", "polygon", "circle", "table", "figure"}
    for said in (
        POLICY,
        "Better than the baseline",
        "tool_loop",
        "model calls without a price",
        "magic",
        "on the front",
        BASELINE,
    ):
        assert said in parsed.text, said
    assert "nan" not in document.lower().replace("tenant", "").replace("governan", ""), "every number is one"


def test_the_terminal_says_the_same(figures: Figures, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(at(url), Request("default", POLICY), None, as_json=False)
    said = capsys.readouterr()
    words = " ".join(said.out.split())
    for part in (
        "research/answer: Better than the baseline:", "utility, learned", "explored", "model=large", "front: model=", "alerts: 17 tool_loop (critical)",
        "dead letters: 3 magic in", "20 model calls without a price",
    ):  # fmt: skip
        assert part in words, part
    assert re.search("[▁▂▃▄▅▆▇█]{20}", said.out)
    assert "steersman report --out report.html" in said.err


def test_programs_get_json(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command.run(at(url), Request("default"), tmp_path / "r.html", as_json=True)
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["file"] == str(tmp_path / "r.html")
    assert found["policies"][0]["verdict"] == "better"
    assert {arm["arm"] for arm in found["policies"][0]["arms"] if arm["on_front"]}
    assert len(found["policies"][0]["series"]["learned"]["utility"]) == 60


def test_nothing_is_said_in_one_sentence(url: str, tmp_path: Path) -> None:
    nothing = at(url.replace("/report", "/nothing"))
    with pytest.raises(SteersmanError, match="no reward of tenant 'default' in that time is stored"):
        command.run(nothing, Request("default"), tmp_path / "r.html", as_json=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SteersmanError, match="no reward of policy 'no/such' of tenant"):
        command.make(at(url), Request("default", "no/such"))
    with pytest.raises(ConfigError, match="is not before --to"):
        command.make(at(url), Request("default", None, START, START))
    with pytest.raises(Unreachable):
        command.make(at("http://127.0.0.1:1"), Request("default"))
    with pytest.raises(SteersmanError, match="cannot be written: No such file"):
        command.run(at(url), Request("default"), tmp_path / "no" / "r.html", as_json=True)


def test_a_policy_without_control_group_alerts_or_letters_has_its_empty_states(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = command.make(at(url), Request("default", f"team/{EVIL}", START, START + dt.timedelta(seconds=30)))
    parsed = Parsed(html.render(figures))
    for said in (
        "too few judged decisions of a control group",
        "No alert in this time.",
        "No stage has counted anything",
    ):
        assert said in parsed.text, said
    text.show(figures)
    assert "alerts: none" in capsys.readouterr().out


def test_a_browser_shows_it_without_complaint_at_every_size(url: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    command.write(command.make(at(url), Request("default")), file)

    async def look(tab: Tab) -> None:
        for width, dark in ((1280, False), (1280, True), (390, False)):
            await tab.look(width, 900, dark=dark)
            await tab.open(file.as_uri())
            assert await tab.js("document.documentElement.scrollWidth <= window.innerWidth"), width
            colour = await tab.js("getComputedStyle(document.body).backgroundColor")
            assert colour == ("rgb(20, 23, 27)" if dark else "rgb(245, 246, 248)"), "the policy lets the style in"
        assert tab.errors == []
        assert tab.dialogs == []

    profile = tmp_path / "chrome"
    profile.mkdir()
    browse(profile, look)
