from __future__ import annotations

from tests.page.browser import executable
from tests.trust import part_sql, part_xss
from tests.trust.injections import PAYLOADS
from tests.trust.scripts import FORMS


def test_scripts_as_names_and_comments_are_text_on_every_view() -> None:
    executable()  # without a browser, skipped
    found = part_xss.run(True, 1, print)
    assert not found.problems
    assert (found.totals["xss_payloads"], found.totals["xss_hits"]) == (30, 0)
    assert len(FORMS) == len(set(FORMS)) == 30
    assert found.detail["caught_without_escaping"] >= part_xss.MIN_CAUGHT


def test_sql_in_every_parameter_is_text() -> None:
    found = part_sql.run(True, 1, print)
    assert not found.problems
    assert len(PAYLOADS) == 100
    assert found.totals["sql_parameters"] >= 30
    assert found.totals["sql_sent"] >= 10 * found.totals["sql_parameters"]
