"""The page over HTTP: who may ask, what it answers, and what it says when something is missing."""

from __future__ import annotations

import datetime as dt
import gzip
import re
import resource
import secrets

from page.acts import Desk, buttons, problem_of, word_of
from page.overview import Overview
from page.store import Store
from steersman.held import StaticPolicies
from steersman.topics import Topics
from streams.operator import Operator
from tests.faults.gateway import Gateway
from tests.page.policies import held
from tests.page.served import EVIL, TRACE, ask, fill, first_frame, serving

TOKEN = "s3cret-" + "t" * 24


def signed_in(url: str) -> dict[str, str]:
    form = {"Origin": url, "Content_Type": "application/x-www-form-urlencoded"}
    return {"Cookie": ask(url, "/login", "POST", f"token={TOKEN}", **form)[1]["Set-Cookie"].partition(";")[0]}


def csrf(url: str, session: dict[str, str]) -> str:
    """What the forms of a session carry."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', ask(url, "/", **session)[2])
    assert found is not None
    return found[1]


def test_frames_hold_the_loop(database: str) -> None:
    fill(database)
    with serving(database) as (url, page):
        before = ask(url, "/")[2]
        assert 'data-state="loading">loading<' in before
        assert "waiting for the first numbers" in before
        frame = first_frame(url)
        assert frame["trouble"] is None
        mine = {p["name"]: p for p in frame["policies"]}["team/answers"]
        assert mine["verdict"]["word"] == "better"
        assert abs(mine["verdict"]["gain"] - 0.3) < 0.01
        assert (mine["learned"]["n"], mine["baseline"]["n"], mine["version"], mine["stage"]) == (180, 60, 190, "LIVE")
        assert mine["learned"]["cost"] == 0.002
        assert mine["learned"]["latency"] == 1500
        assert len(mine["explored"]) == 60
        assert set(mine["knobs"]) == {"model"}
        assert [a["message"] for a in frame["alerts"]] == [EVIL]
        assert frame["traces"][0]["trace_id"] == TRACE
        assert page.hub.viewers <= 1


def test_old_data_is_shown_and_said_to_be_old(database: str) -> None:
    fill(database, n=50)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    seen = Overview(Store(database, "default"), 900, lambda: later).read()
    assert seen["window"]["old"] is True
    assert seen["policies"][0]["learned"]["n"] > 0
    nobody = Overview(Store(database, "other"), 900).read()
    assert (nobody["policies"], nobody["traces"], nobody["alerts"]) == ([], [], [])


def test_every_value_is_escaped_and_nothing_is_inline(database: str) -> None:
    fill(database)
    with serving(database, StaticPolicies([held().snapshot])) as (url, _):
        paths = ("/", f"/trace/{TRACE}", "/policy/team/answers", f"/trace/{'0' * 32}", "/nothing", "/trace/<script>")
        for path in paths:
            status, headers, text = ask(url, path.replace("<", "%3C").replace(">", "%3E"))
            assert status == {f"/trace/{'0' * 32}": 404, "/nothing": 404, "/trace/<script>": 404}.get(path, 200)
            policy = headers["Content-Security-Policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert not re.search(
                r"<script(?! src=\"/static/)|<\w[^>]*\s(on\w+|style)=|<style|<\w[^>]*javascript:", text
            )
            assert "<img" not in text
        text = ask(url, f"/trace/{TRACE}")[2]
        assert text.count("&lt;script&gt;") >= 6
        assert "{{7*7}}" in text, "a name is no template"


def test_why_is_shown_with_the_weights_and_says_whose_they_are(database: str) -> None:
    fill(database)
    with serving(database) as (url, _):
        assert "has not received a snapshot" in ask(url, f"/trace/{TRACE}")[2]
    with serving(database, StaticPolicies([held(name="team/answers", version=191).snapshot])) as (url, _):
        assert "No weights" in ask(url, f"/trace/{TRACE}")[2], "the arms are not those of the decision"
    for version, says in (
        (190, "Weights of version 1.190, which decided"),
        (191, "Weights of version 1.191, the nearest at hand"),
    ):
        with serving(database, StaticPolicies([held(version=version, small=True).snapshot])) as (url, _):
            text = ask(url, f"/trace/{TRACE}")[2]
            assert says in text
            assert text.count("<caption>") == 5, "the arms, and four components"
            assert '<td>size</td><td class="n">0.5</td>' in text


def test_the_token_opens_the_page_with_a_cookie_that_scripts_cannot_read(database: str) -> None:
    with serving(database, token=TOKEN) as (url, _):
        origin = {"Origin": url, "Content_Type": "application/x-www-form-urlencoded"}
        assert ask(url, "/")[0] == 303
        assert ask(url, "/events")[0] == 401
        assert ask(url, f"/trace/{TRACE}")[1]["Location"] == "/login"
        assert ask(url, "/livez")[0] == ask(url, "/static/page.css")[0] == 200
        assert ask(url, "/login", "POST", "token=wrong", **origin)[0] == 401
        assert ask(url, "/login", "POST", "token=%E9%ff", **origin)[0] == 401
        status, headers, _ = ask(url, "/login", "POST", f"token={TOKEN}", **origin)
        assert status == 303
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        session = {"Cookie": cookie.partition(";")[0]}
        assert ask(url, "/", **session)[0] == 200
        assert first_frame(url, **session)["policies"] == []
        assert ask(url, "/logout", "POST", "", Origin="http://127.0.0.1:1", **session)[0] == 403
        assert ask(url, "/logout", "POST", "", **session)[0] == 403, "a form says where it comes from"
        form = {"Origin": url, "Content_Type": "application/x-www-form-urlencoded", **session}
        proof = csrf(url, session)
        for body in ("", "csrf=", f"csrf={secrets.token_hex(32)}", "csrf=%ff"):
            status, _, text = ask(url, "/logout", "POST", body, **form)
            assert (status, "not of this session" in text) == (403, True), body
        other = signed_in(url)
        assert ask(url, "/logout", "POST", f"csrf={proof}", **{**form, **other})[0] == 403, "another session's"
        assert ask(url, "/logout", "POST", f"csrf={proof}", **form)[0] == 303
        assert ask(url, "/", **session)[0] == 303
        assert ask(url, "/logout", "POST", "", Origin=url, X_CSRF_Token=proof, **other)[0] == 403


def test_who_asks_too_often_is_told_when_to_come_again(database: str) -> None:
    with serving(database, token=TOKEN, per_s=5) as (url, _):
        answers = [ask(url, "/login") for _ in range(40)]
        assert [status for status, _, _ in answers[:20]] == [200] * 20
        assert answers[-1][0] == 429
        assert int(answers[-1][1]["Retry-After"]) >= 1
        assert "Content-Security-Policy" in answers[-1][1]
        assert ask(url, "/livez")[0] == 200, "a probe is no visitor"
    with serving(database, token=TOKEN) as (url, _):
        origin = {"Origin": url, "Content_Type": "application/x-www-form-urlencoded"}
        tries = [ask(url, "/login", "POST", "token=guess", **origin) for _ in range(12)]
        assert [status for status, _, _ in tries] == [401] * 10 + [429] * 2
        assert int(tries[-1][1]["Retry-After"]) >= 1
        assert ask(url, "/login", "POST", f"token={TOKEN}", **origin)[0] == 429, "whatever is tried"


def test_forms_are_neither_decompressed_nor_taken_with_files() -> None:
    """Whoever may ask at all could otherwise have 4 KiB become 4 MiB before anybody counts, and that a thousand times."""
    bomb = gzip.compress(b"token=" + bytes(64 << 20))
    with serving("http://127.0.0.1:9", token=TOKEN) as (url, _):
        form = {"Origin": url, "Content_Type": "application/x-www-form-urlencoded"}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for encoding in ("gzip", "deflate", "br", "zstd"):
            assert ask(url, "/login", "POST", bomb, Content_Encoding=encoding, **form)[0] == 415
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 32
        part = '--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n' + TOKEN + "\r\n--x--\r\n"
        assert ask(url, "/login", "POST", part, Origin=url, Content_Type="multipart/form-data; boundary=x")[0] == 415
        assert ask(url, "/login", "POST", b"token=\xff", **form)[0] == 400
        assert ask(url, "/login", "POST", "token=" + "t" * 8192, **form)[0] == 413
        assert ask(url, "/login", "POST", f"token={TOKEN}", **form)[0] == 303


def test_other_hosts_and_origins_are_refused(database: str) -> None:
    with serving(database) as (url, _):
        assert ask(url, "/", Host="evil.example")[0] == 403
        assert ask(url, "/events", Origin="http://evil.example")[0] == 403
        assert ask(url, "/", "POST", "")[0] in (403, 405)
        assert ask(url, "/static/../http.py")[0] == 404
        assert ask(url, "/static/%2e%2e/http.py")[0] == 404


def test_a_store_that_is_away_is_said(gateway: Gateway) -> None:
    with serving("http://user:hunter2@127.0.0.1:9") as (url, _):
        frame = first_frame(url)
        assert frame["trouble"] == "ClickHouse does not answer"
        status, _, text = ask(url, f"/trace/{TRACE}")
        assert status == 503
        assert "hunter2" not in text
        assert ask(url, "/readyz")[0] == 503
        assert ask(url, "/livez")[0] == 200


def test_policies_are_operated_with_a_token_only_and_with_a_reason(database: str) -> None:
    fill(database)
    desk = Desk(Operator("127.0.0.1:9", Topics()), "default")
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    path = "/policy/team/answers"
    with serving(database, desk=desk) as (url, page):
        assert 'name="act"' not in ask(url, path)[2], "who needs no token may not write"
        body = f"act=RETIRE&why=so&csrf={page._sessions.csrf(None)}"
        got, _, text = ask(url, path, "POST", body, Origin=url, **form)
        assert (got, "only with a token" in text) == (403, True)
    with serving(database, token=TOKEN) as (url, _):
        session = {**signed_in(url), **form}
        got, _, text = ask(url, path, "POST", f"act=RETIRE&why=so&csrf={csrf(url, session)}", Origin=url, **session)
        assert (got, "and Kafka" in text) == (403, True)
    with serving(database, token=TOKEN, desk=desk) as (url, _):
        session = {**signed_in(url), **form}
        text = ask(url, path, **session)[2]
        proof = csrf(url, session)
        assert set(re.findall(r'name="csrf" value="(\w*)"', text)) == {proof}, "every form carries it"
        assert text.count('method="post"') == text.count('name="csrf"')
        assert re.findall(r'name="act" value="(\w+)"', text.partition("Compare two")[0]) == [
            "FREEZE",
            "ROLLBACK",
            "RETIRE",
        ]
        assert 'name="to" value="1.190"' in text, "the newest record is kept"
        assert ask(url, path, "POST", f"act=RETIRE&why=so&csrf={proof}", **session)[0] == 403, "whence does it come?"
        assert ask(url, path, "POST", "act=RETIRE&why=so", Origin=url, **form)[0] == 303, "signing in comes first"
        for other in ("", f"&csrf={csrf(url, signed_in(url))}"):
            got, _, text = ask(url, path, "POST", f"act=RETIRE&why=so{other}", Origin=url, **session)
            assert (got, "not of this session" in text) == (403, True)
        for body, status, says in (
            ("act=RETIRE&why=", 400, "Say why"),
            ("act=DROP&why=so", 400, "no such act"),
            ("act=PIN&why=so", 400, "no version"),
            ("act=RETIRE&why=so&expected=odd", 400, "no such standing"),
            (f"act=RETIRE&why={'w' * 501}", 400, "more than 500"),
            ("act=ROLLBACK&why=so&to=9.9", 404, "no longer kept"),
        ):
            got, _, text = ask(url, path, "POST", f"{body}&csrf={proof}", Origin=url, **session)
            assert (got, says in text) == (status, True), (body, text)
        body = f"act=RETIRE&why=so&csrf={proof}"
        assert ask(url, "/policy/team/none", "POST", body, Origin=url, **session)[0] == 404


def test_what_a_policy_offers_depends_on_how_it_stands() -> None:
    row = {"stage": "LIVE", "pinned": ""}
    assert [word_of({**row, **more}) for more in ({}, {"pinned": "1.2"}, {"pinned": "1.2", "stage": "FROZEN"}, {"stage": "SHADOW"})] == [
        "live", "pinned", "frozen", "shadow"
    ]  # fmt: skip
    assert [b.act for b in buttons("retired")] == ["RESTORE"]
    assert [b.act for b in buttons("apprentice")] == [b.act for b in buttons("shadow")]
    assert problem_of("RETIRE", "so", "live") == ""
