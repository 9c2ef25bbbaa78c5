"""`steersman prices`: the price table, checked and shown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from console.output import err, out, print_json, print_rows
from steersman.errors import ConfigError
from steersman.price_document import ModelPrice, ToolPrice
from steersman.prices import PriceTable

_COLUMNS = ("kind", "provider", "name", "from", "until", "in_force", "above", "input", "cached_input", "cache_write",
            "output", "reasoning", "per_call", "source")  # fmt: skip


def check(file: str, *, as_json: bool) -> None:
    """Print what a table holds.

    Raises
    ------
    ConfigError
        When it is unusable; it says where and why.
    """
    table = PriceTable.load(file)
    rows = list(_rows(table))
    names = {(row["kind"], row["provider"], row["name"]) for row in rows}
    in_force = {(row["kind"], row["provider"], row["name"]) for row in rows if row["in_force"]}
    summary = {
        "table": file,
        "models": sum(kind == "model" for kind, _, _ in names),
        "tools": sum(kind == "tool" for kind, _, _ in names),
        "entries": len(table),
        "not_in_force": sorted(name for _, _, name in names - in_force),
        "without_source": sorted({row["name"] for row in rows if not row["source"]}),
    }
    if as_json:
        print_json(summary)
        return
    out.print(
        f"{file}: {summary['models']} models and {summary['tools']} tools in {summary['entries']} entries",
        highlight=False,
    )
    for what, text in (
        ("not_in_force", "no price is in force today for"),
        ("without_source", "no source is named for"),
    ):
        if summary[what]:
            err.print(f"{text}: {', '.join(summary[what])}", markup=False, highlight=False)


def show(name: str, file: str, *, as_json: bool) -> None:
    """Print the prices of one model or tool.

    Raises
    ------
    ConfigError
        When the table is unusable or does not know the name.
    """
    rows = [row for row in _rows(PriceTable.load(file)) if row["name"] == name]
    if not rows:
        known = sorted({row["name"] for row in _rows(PriceTable.load(file))})
        raise ConfigError(f"{file} has no price of {name!r}; it knows {', '.join(known)}")
    used = [column for column in _COLUMNS if as_json or any(row[column] not in (None, "") for row in rows)]
    title = "US dollars per million tokens, and per call"
    print_rows(used, [[row[column] for column in used] for row in rows], as_json=as_json, title=title)


def _rows(table: PriceTable) -> Iterator[dict[str, Any]]:
    """Every price of every name, those of long requests as rows of their own."""
    today = dt.datetime.now(dt.UTC).date()
    kinds: tuple[tuple[str, list[Any]], ...] = (("model", table.models), ("tool", table.tools))
    for kind, listed in kinds:
        for price in sorted(listed, key=lambda one: one.since):
            for name in price.names:
                later = [
                    other.since
                    for other in listed
                    if other.provider == price.provider and name in other.names and other.since > price.since
                ]
                until = min(later, default=None)
                row = dict.fromkeys(_COLUMNS) | {
                    "kind": kind, "provider": price.provider, "name": name, "from": price.since, "until": until,
                    "in_force": price.since <= today and (until is None or today < until),
                    "per_call": str(price.per_call), "source": price.source,
                }  # fmt: skip
                yield from _rates(row, price)


def _rates(row: dict[str, Any], price: ModelPrice | ToolPrice) -> Iterator[dict[str, Any]]:
    if isinstance(price, ToolPrice):
        yield row
        return
    for above, rates in ((None, price), *((tier.input_tokens, tier) for tier in price.above)):
        writes = rates.cache_write
        yield row | {
            "above": above,
            "input": _text(rates.input),
            "cached_input": _text(rates.cached_input),
            "cache_write": " ".join(f"{n}={v}" for n, v in writes.items())
            if isinstance(writes, dict)
            else _text(writes),
            "output": _text(rates.output),
            "reasoning": _text(rates.reasoning),
        }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
