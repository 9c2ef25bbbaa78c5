"""The page of the policies file: every key that is read is on it, and what it shows is TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from learners import detector_settings
from learners.detector_settings import DetectorSettings
from learners.policy_table import PolicyTable
from manual.reference import policies

PAGE = policies.page()
SHOWN = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S)]


def unnamed(model: type[BaseModel], table: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Keys of a table that its example does not have."""
    for name, key in model.model_fields.items():
        if name not in table:
            yield f"{at}{name}"
            continue
        parts = [part for part in (key.annotation, *get_args(key.annotation)) if isinstance(part, type)]
        for part in parts:
            if issubclass(part, BaseModel) and isinstance(table[name], Mapping):
                yield from unnamed(part, table[name], f"{at}{name}.")


def test_every_key_of_a_policy_is_shown() -> None:
    [policy] = SHOWN[0]["policy"]
    # One limit stands for all; the others are named beside it.
    limits = ("reward.ceilings.", "reward.tenant_ceilings.")
    missing = [key for key in unnamed(PolicyTable, policy) if not key.startswith(limits)]
    assert missing == []
    assert {"latency_us", "failures", "latency_us_p95", "latency_us_p99", "tool_calls"} <= set(re.findall(r"\w+", PAGE))
    assert {one["kind"] for one in policy["features"]} == {"numeric", "categorical", "embedding", "text"}


def test_every_key_of_the_detectors_is_shown() -> None:
    tables = [one["detectors"] for one in SHOWN if one.get("detectors")]
    assert tables, detector_settings.__doc__
    assert list(unnamed(DetectorSettings, tables[-1])) == []


def test_every_block_is_fenced() -> None:
    assert len(re.findall(r"^```", PAGE, re.M)) == 2 * len(SHOWN)
    assert not re.search(r"^``[^`]", PAGE, re.M)
