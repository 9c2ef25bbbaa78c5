from __future__ import annotations

from pathlib import Path

import pytest

from serving.private_file import refuse_public, write_private
from steersman.errors import ConfigError


def test_only_the_owner_may_open_it_also_where_a_public_one_was(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        refuse_public(file, "passwords")
    write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    refuse_public(file, "passwords")
    assert [p.name for p in tmp_path.iterdir()] == ["secret"], "no partial file is left"
