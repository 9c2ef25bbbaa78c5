"""What agent services rest on does not change by accident: names and signatures are those that are committed."""

from __future__ import annotations

from pathlib import Path

from tests.steersman.public_api import lines

COMMITTED = Path(__file__).with_name("public_api.txt")


def test_the_public_api_is_the_committed_one() -> None:
    now, committed = list(lines()), COMMITTED.read_text(encoding="utf-8").splitlines()
    gone, new = sorted(set(committed) - set(now)), sorted(set(now) - set(committed))
    assert now == committed, (
        f"no longer there: {gone}; new: {new}. What is gone breaks agent services. If the change is meant: "
        "python -m tests.steersman.public_api > tests/steersman/public_api.txt, and a line in CHANGELOG.md"
    )
