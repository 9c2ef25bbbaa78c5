from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trust.report import main, parts


def test_parts_are_taken_up_by_themselves_and_replace_what_the_file_had(tmp_path: Path) -> None:
    assert "policies" in parts()
    old = {"parts": {"policies": {"totals": {"forged": 1}}, "acl": {"totals": {"acl_checks": 60}}}}
    (tmp_path / "trust.json").write_text(json.dumps(old))
    assert main(["--parts", "policies", "--quick", "--seed", "3", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "trust.json").read_text())
    assert {name: written[name] for name in ("forged", "forged_accepted", "acl_checks")} == {
        "forged": 600,
        "forged_accepted": 0,
        "acl_checks": 60,
    }
    assert written["parts"]["policies"]["seed"] == 3


def test_an_unknown_part_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--parts", "nonsense"])
    assert ended.value.code == 2
    assert "there are" in capsys.readouterr().err
