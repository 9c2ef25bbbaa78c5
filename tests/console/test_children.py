from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from console.children import Child, ChildFailed, Children, free_port, listening

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_children_stop_in_reverse_and_none_is_left(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        pids = [children.start(name, SLEEP).pid for name in ("a", "b")]
        assert all(alive(p) for p in pids)
        assert not children.dead()
    assert not any(alive(p) for p in pids)


def test_a_child_that_dies_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("broken", [sys.executable, "-c", "raise SystemExit('no such port')"], tmp_path)
    with pytest.raises(ChildFailed, match=r"broken ended with exit code 1 before answering:\nno such port"):
        child.wait_until(lambda: False, 30, "answering")


def test_a_child_that_is_never_ready_is_reported(tmp_path: Path) -> None:
    child = Child("slow", SLEEP, tmp_path)
    with pytest.raises(ChildFailed, match="slow did not reach 'answering' within"):
        child.wait_until(lambda: False, 0.05, "answering")
    child.kill()
    assert child.exit_code == -9


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    child = Child("stubborn", [sys.executable, "-c", stubborn], tmp_path)
    child.wait_until(lambda: "up" in child.tail(), 30, "up")
    assert child.stop(grace_s=0.1) == -9


def test_a_free_port_is_free() -> None:
    assert not listening(free_port())
