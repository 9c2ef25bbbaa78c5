"""The page in a headless Chromium: what people see and do, and what hostile names must not."""

from __future__ import annotations

from pathlib import Path

from tests.faults.gateway import Gateway
from tests.page.browser import Tab, browse
from tests.page.served import EVIL, TRACE, fill, serving

ROWS = "document.querySelectorAll('#policies tbody button').length === 2"
SCRIPTS = "document.querySelectorAll('main img, main script, main iframe').length"
FITS = "document.documentElement.scrollWidth <= innerWidth"


def test_a_stranger_sees_whether_it_learns_what_it_chooses_and_what_is_wrong(database: str, tmp_path: Path) -> None:
    fill(database)

    async def work(tab: Tab) -> None:
        await tab.look(1280, 900)
        await tab.open(url, ROWS)
        assert await tab.js("document.querySelector('#live').textContent") == "live"
        said = await tab.js("[...document.querySelectorAll('.tile')].map(t => t.innerText)")
        assert "2 of 2 policies beat the baseline" in said[0]
        assert "1 alert, 1 critical" in said[2]
        await tab.until("document.querySelectorAll('#plots canvas').length === 5")
        assert EVIL in await tab.js("document.querySelector('#policies').innerText")
        # A click changes the policy, and the plots with it.
        for button, name in ((1, "answers"), (0, EVIL)):
            await tab.js(f"document.querySelectorAll('#policies button')[{button}].click()")
            await tab.until(f"document.querySelector('#chosen').textContent === 'team/' + {name!r}")
        assert EVIL in await tab.js("document.querySelector('#knobs').textContent"), (
            "levels are shown as they are called"
        )
        # By keyboard alone: the skip link first, then on to a policy.
        await tab.js("document.activeElement.blur()")
        for _ in range(12):
            await tab.key("Tab", 9)
            if await tab.js("document.activeElement.dataset.focus") == "team/answers":
                break
        await tab.key("Enter", 13)
        await tab.until("document.querySelector('#chosen').textContent === 'team/answers'")
        assert await tab.js("document.activeElement.dataset.focus") == "team/answers", "the focus stays where it was"
        assert await tab.js("document.querySelector('[aria-pressed=true]').textContent") == "team/answers"
        for width, dark in ((390, False), (390, True), (1280, True)):
            await tab.look(width, 844, dark=dark)
            await tab.until(FITS)
        await tab.js("document.querySelector('#alerts a').click()")
        await tab.until(f"location.pathname === '/trace/{TRACE}' && document.querySelector('.flow') !== null")
        assert EVIL in await tab.js("document.querySelector('.flow').innerText")
        assert await tab.js("document.querySelectorAll('.flow li').length") == 4
        await tab.look(390, 844)
        assert await tab.js(FITS)
        await tab.js("document.querySelector('.decision h3 a').click()")
        await tab.until("location.pathname === '/policy/team/answers' && document.querySelector('#changes') !== null")
        changes = await tab.js("document.querySelector('#changes').innerText")
        assert "floor\t1\t1.9" in changes, changes
        assert await tab.js(FITS)
        assert (await tab.js(SCRIPTS), tab.dialogs, tab.errors) == (0, [], [])

    with serving(database) as (url, _):
        browse(tmp_path, work)


def test_empty_then_disconnected(database: str, tmp_path: Path) -> None:
    async def work(tab: Tab) -> None:
        await tab.open(url, "!document.querySelector('#empty').hidden")
        assert "steersman demo" in await tab.js("document.querySelector('#empty').innerText")
        assert "No decisions yet" in await tab.js("document.querySelector('#tile-learning').innerText")
        server.__exit__(None, None, None)
        await tab.until("document.querySelector('#live').dataset.state === 'lost'")
        assert "No connection" in await tab.js("document.querySelector('#notice').innerText")

    server = serving(database)
    url, _ = server.__enter__()
    browse(tmp_path, work)


def test_signing_in(database: str, tmp_path: Path) -> None:
    async def work(tab: Tab) -> None:
        await tab.open(url, "document.querySelector('#token') !== null")
        for token, then in (
            ("not it", "document.querySelector('[role=alert]') !== null"),
            ("t" * 32, "document.querySelector('#live')?.dataset.state === 'live'"),
        ):
            await tab.js(
                f"document.querySelector('#token').value = {token!r}; document.querySelector('button').click()"
            )
            await tab.until(then)
        assert await tab.js("document.cookie") == "", "no script reads the session"
        await tab.js("document.querySelector('header button').click()")
        await tab.until("location.pathname === '/login'")

    with serving(database, token="t" * 32) as (url, _):
        browse(tmp_path, work)


def test_clickhouse_away(gateway: Gateway, tmp_path: Path) -> None:
    async def work(tab: Tab) -> None:
        await tab.open(url, "document.querySelector('#live').dataset.state === 'trouble'")
        assert "ClickHouse does not answer" in await tab.js("document.querySelector('#notice').innerText")

    with serving("http://127.0.0.1:9") as (url, _):
        browse(tmp_path, work)
