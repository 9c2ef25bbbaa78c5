"""What comes from others: licences listed and allowed, every lock with hashes, images and tools at fixed versions."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from console.brokers import KAFKA_VERSION, _check_jars
from console.children import ChildFailed
from deploy.licences import (
    FINE,
    LOCKS,
    PAGE,
    ROOT,
    SHIPPED,
    UNSHIPPED,
    Entry,
    allowed,
    entries,
    licence,
    locked,
    not_fine,
    page,
)


def test_every_locked_dependency_has_a_licence_that_is_allowed() -> None:
    found = entries()
    assert {one.name for one in found} == set().union(*(locked(lock) for lock in LOCKS))
    assert len(found) > 100
    assert not list(not_fine(found))


def test_the_page_lists_them_all() -> None:
    listed = re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \| ([a-z, ]+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert {(name, locks) for name, _, locks in listed if name != "package"} == {
        (one.name, ", ".join(one.locks)) for one in entries()
    }, "run python deploy/licences.py"
    assert PAGE.read_text(encoding="utf-8") == page(entries()), "run python deploy/licences.py"


def test_what_is_shipped_holds_nothing_proprietary_and_no_copyleft() -> None:
    assert "LicenseRef-NVIDIA-Proprietary" not in FINE
    assert list(not_fine([Entry("x", "LicenseRef-NVIDIA-Proprietary", ("dev",))])) == []
    for lock in SHIPPED:
        assert list(not_fine([Entry("x", "LicenseRef-NVIDIA-Proprietary", (lock, "dev"))]))
    for expression in ("GPL-3.0-only", "AGPL-3.0-or-later", "SSPL-1.0", "MIT AND GPL-2.0-only", "", "MIT OR", "(MIT"):
        assert not allowed(expression, UNSHIPPED), expression
    for expression in ("MIT", "GPL-3.0-only OR MIT", "MPL-2.0 AND (Apache-2.0 OR GPL-2.0-only)", "(MIT OR X) AND ISC"):
        assert allowed(expression, FINE), expression


def test_what_packages_say_in_old_fields_is_understood() -> None:
    assert licence("numpy", distribution("numpy")).startswith("BSD-3-Clause")
    assert licence("sniffio", distribution("sniffio"))
    assert licence("protobuf", distribution("protobuf")) == "BSD-3-Clause"


@pytest.mark.parametrize("lock", [*LOCKS, "release", "installer"])
def test_every_lock_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    packages = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)[1:] if text[0] != "#" else [text]
    assert packages
    assert all("--hash=sha256:" in one and "==" in one for one in packages)
    assert "://" not in text
    assert "--index" not in text


def test_release_tools_run_from_their_lock() -> None:
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, tool in (("sbom", "cyclonedx-py"), ("audit", "pip-audit")):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", make, re.M)
        assert recipe is not None
        assert tool in recipe[1]
        assert "requirements/platform.txt" in recipe[1]
    assert "requirements/release.txt" in make
    wanted = re.findall(r"^([a-z-]+==[0-9.]+)$", (ROOT / "requirements/release.in").read_text(), re.M)
    assert len(wanted) == 2
    lock = (ROOT / "requirements/release.txt").read_text()
    assert all(f"{one} \\" in lock for one in wanted)


def test_jars_that_are_not_the_listed_ones_are_refused(tmp_path: Path) -> None:
    listed = [line.split() for line in (ROOT / "deploy/kafka/jars.sha256").read_text().splitlines()]
    kafka = next(name for _, name in listed if name.startswith("kafka_2.13"))
    assert KAFKA_VERSION in kafka
    (tmp_path / kafka).write_bytes(b"another jar")
    with pytest.raises(ChildFailed, match=r"jars\.sha256"):
        _check_jars(tmp_path)


def test_nothing_is_fetched_at_a_moving_version() -> None:
    pom = (ROOT / "deploy/kafka/pom.xml").read_text()
    assert all(re.fullmatch(r"\d+(\.\d+)*", one) for one in re.findall(r"<version>([^<]+)</version>", pom))
    # There are no workflows; one that comes must name its actions by commit.
    workflows = list((ROOT / ".github").rglob("*.y*ml"))
    uses = [one for file in workflows for one in re.findall(r"uses:\s*(\S+)", file.read_text())]
    assert all(re.search(r"@[0-9a-f]{40}$", one) for one in uses)
