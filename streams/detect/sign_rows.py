"""Signs of many spans by columns: what `streams.detect.signs` says of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from columns.block import Block
from columns.column import Bools, Longs, Numbers
from streams.detect import signs


class SignRows(NamedTuple):
    """Signs of some rows, and what detectors look at in them.

    Attributes
    ----------
    signs : list of int
    args : list of (str or None)
        Hashes of arguments.
    fills : list of (float or None)
        Share of the context window in use.
    """

    signs: list[int]
    args: list[str | None]
    fills: list[float | None]


def sign_rows(block: Block, rows: Longs) -> SignRows:
    """Read the signs of rows that are spans."""
    kind, status = block.numbers("kind"), block.numbers("status")
    kinds, states = kind.values[rows], status.values[rows]
    args_hash, output = block.texts("args_hash"), block.numbers("output_tokens")
    size = args_hash.size[rows]
    hashed = (size > 0) & (size <= signs.MAX_ARGS)
    fine = _is(status, {"OK"})[states]
    failed = _is(status, signs.FAILURES)[states] & _is(kind, signs.CALLS)[kinds]
    reasoned = block.numbers("reasoning_tokens").values[rows]
    empty = fine & _is(kind, {"MODEL_CALL"})[kinds] & _has(output, rows) & (output.values[rows] <= reasoned)
    used, limit = block.numbers("context_tokens"), block.numbers("context_limit")
    filled = _has(used, rows) & _has(limit, rows) & (limit.values[rows] != 0)
    made = (
        (fine & hashed) * signs.CALL + failed * signs.FAILED + _is(kind, {"AGENT"})[kinds] * signs.AGENT
        + filled * signs.CONTEXT + empty * signs.EMPTY + (fine & _is(kind, signs.TOOLS)[kinds]) * signs.TOOL
        + _is(kind, {"TOOL_CALL"})[kinds] * signs.TOOL_CALL
    )  # fmt: skip
    found: list[int] = made.tolist()
    if failed.any():
        places = np.flatnonzero(failed)
        for place, error in zip(places.tolist(), block.texts("error").pick(rows[places]), strict=True):
            if signs.names_context(error):
                found[place] |= signs.OVERFLOW
    args: list[str | None] = [None] * len(rows)
    if hashed.any():
        places = np.flatnonzero(hashed)
        for place, text in zip(places.tolist(), args_hash.pick(rows[places]), strict=True):
            args[place] = text
    fills: list[float | None] = [None] * len(rows)
    if filled.any():
        places = np.flatnonzero(filled)
        pairs = zip(used.values[rows[places]].tolist(), limit.values[rows[places]].tolist(), strict=True)
        for place, (tokens, most) in zip(places.tolist(), pairs, strict=True):
            fills[place] = round(tokens / most, 4)
    return SignRows(found, args, fills)


def _is(column: Numbers, symbols: frozenset[str] | set[str]) -> Bools:
    """Which codes of an enum column mean one of these symbols."""
    return np.array([symbol in symbols for symbol in column.symbols])


def _has(column: Numbers, rows: Longs) -> Bools:
    return np.ones(len(rows), np.bool_) if column.present is None else column.present[rows]
