"""What the parts of `make trust` have in common.

A part is a module of this folder, named ``part_<name>.py``, with a function ``run(quick, seed, say)``: it attacks, and
returns a `Found`. The report takes up every such module by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Say = Callable[[str], None]
"""Tells how far it is."""


@dataclass
class Found:
    """What a part found.

    Attributes
    ----------
    totals
        The part's keys of ``trust.json``.
    problems
        Every bar missed, in words; empty when all held.
    detail
        Counts behind the totals.
    """

    totals: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    detail: Mapping[str, Any] = field(default_factory=dict)
