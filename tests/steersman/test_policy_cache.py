"""The last good policies on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersman.policy_cache import PolicyCache


def test_policies_come_back_with_the_time_they_were_current(tmp_path: Path) -> None:
    cache = PolicyCache(tmp_path / "new" / "folder", "acme")
    assert list(cache.load()) == []
    cache.save("research/retrieval", b"one")
    cache.save("research/retrieval", b"two")
    cache.save("../../etc/passwd", b"three")
    cache.touch("research/retrieval", 1_760_000_000_000_000)
    assert dict(cache.load())[b"two"] == 1_760_000_000_000_000
    assert {value for value, _ in cache.load()} == {b"two", b"three"}
    assert {path.parent for path in tmp_path.rglob("*.avro")} == {tmp_path / "new" / "folder"}
    assert not list(tmp_path.rglob("*.tmp"))


def test_tenants_and_long_names_do_not_meet(tmp_path: Path) -> None:
    PolicyCache(tmp_path, "a").save("b@c", b"1")
    PolicyCache(tmp_path, "a@b").save("c", b"2")
    PolicyCache(tmp_path, "a").save("x" * 5000, b"3")
    PolicyCache(tmp_path, "a").save("x" * 5001, b"4")
    assert {value for value, _ in PolicyCache(tmp_path, "a").load()} == {b"1", b"3", b"4"}
    assert {value for value, _ in PolicyCache(tmp_path, "a@b").load()} == {b"2"}


def test_a_disk_that_refuses_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = PolicyCache(tmp_path, "a")
    (tmp_path / "a@p.avro").mkdir()
    (tmp_path / "a@p.avro" / "x").touch()
    with pytest.raises(OSError, match=r"p\.avro"):
        cache.save("p", b"1")
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(FileNotFoundError):
        cache.touch("other", 1)
