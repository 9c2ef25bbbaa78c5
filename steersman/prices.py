"""What a call cost: a dated price table, and the rules by which token counts become money.

Money is exact: prices are decimals, sums are whole picodollars, and only the sum of one call is rounded, half up, to the
millionth of a dollar that events are counted in. A price that is not known makes no cost at all, never 0.

The table is TOML. Prices of models are dollars per million tokens, ``per_call`` is dollars per call:

.. code-block:: toml

    [[model]]
    provider = "anthropic"                       # as in the event; "" holds for events that name none
    names = ["claude-sonnet-4-5"]                # `operation` of the event, exactly
    from = 2025-09-29                            # holds from that day (UTC) until the next entry of the name
    input = 3.00                                 # tokens that are neither read from nor written to a cache
    cached_input = 0.30                          # left out: not known, and then no call that read a cache has a cost
    cache_write = { "5m" = 3.75, "1h" = 6.00 }   # by how long they are kept; a plain number when that makes no difference
    cache_write_default = "5m"                   # of writes whose duration the event does not tell; left out: not known
    output = 15.00                               # left out: the model writes nothing (embeddings)
    reasoning = 15.00                            # left out: as `output`
    per_call = 0.0
    source = "where the price was read, and when"

    [[model.above]]                              # requests of more than so many input tokens cost this, all of it
    input_tokens = 200_000
    input = 6.00
    cached_input = 0.60
    cache_write = { "5m" = 7.50, "1h" = 12.00 }
    output = 22.50

    [[tool]]
    provider = ""
    names = ["web_search"]
    from = 2025-01-01
    per_call = 0.01
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from steersman.errors import ConfigError
from steersman.price_document import PICO_PER_MICRO, ModelPrice, Rates, ToolPrice, inherit, read_document
from steersman.usage import WRITES

EXAMPLE: Final = Path(__file__).parent / "prices.toml"
"""The table that is shipped: an example, to be copied and kept by whoever pays."""
PRICED: Final = frozenset({"MODEL_CALL", "TOOL_CALL"})
"""Kinds of events that have a price."""
FIELDS: Final = (
    "kind", "ts", "provider", "operation", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "attributes",
)  # fmt: skip
"""Fields of an event that `PriceTable.cost` looks at."""

_MAX_COST: Final = 10**13  # of one event, as the reader of events has it


class Priced(NamedTuple):
    """What a call cost, and why that is not known.

    Attributes
    ----------
    micro_usd : int or None
        Unit: millionths of a US dollar.
    reason : str
        Empty, or fit for a counter: ``unknown_model``, ``unknown_tool``, ``before_first_price``, ``ambiguous_provider``,
        ``no_tokens``, ``inconsistent_tokens``, ``no_cached_price``, ``no_cache_write_price``, ``no_output_price``,
        ``too_large``.
    """

    micro_usd: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Pico:
    """Rates in whole picodollars per token."""

    input: int
    cached: int | None
    writes: Mapping[str, int]
    write_default: int | None
    output: int | None
    reasoning: int | None

    @classmethod
    def of(cls, rates: Rates) -> Self:
        def pico(value: Decimal | None) -> int | None:
            return None if value is None else int(value * PICO_PER_MICRO)

        writes: dict[str, int] = {}
        default: int | None = None
        if isinstance(rates.cache_write, dict):
            writes = {name: pico(value) or 0 for name, value in rates.cache_write.items()}
            default = writes[rates.cache_write_default] if rates.cache_write_default else None
            if len(writes) == 1:
                (default,) = writes.values()
        elif rates.cache_write is not None:
            default = pico(rates.cache_write)
        output = pico(rates.output)
        reasoning = output if rates.reasoning is None else pico(rates.reasoning)
        return cls(pico(rates.input) or 0, pico(rates.cached_input), writes, default, output, reasoning)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Prices of a name from some time on; a tool has no rates."""

    since_us: int
    per_call: int
    rates: _Pico | None
    above: tuple[tuple[int, _Pico], ...]


class PriceTable:
    """Prices by kind, provider and name.

    Parameters
    ----------
    models, tools
        The entries; of one name and provider each has another date.
    source : str
        Names the table in errors.

    Raises
    ------
    ConfigError
        When two entries hold for one name from the same day on, or a default duration has no price.
    """

    def __init__(
        self, models: list[ModelPrice], tools: list[ToolPrice] | None = None, source: str = "prices.toml"
    ) -> None:
        self.models, self.tools, self.source = models, tools or [], source
        self._entries: dict[tuple[str, str, str], list[_Entry]] = {}
        self._providers: dict[tuple[str, str], set[str]] = {}
        kinds: tuple[tuple[str, list[Any]], ...] = (("MODEL_CALL", self.models), ("TOOL_CALL", self.tools))
        for kind, listed in kinds:
            for number, price in enumerate(listed):
                entry = self._entry(price, f"{'model' if kind == 'MODEL_CALL' else 'tool'}[{number}]")
                for name in price.names:
                    held = self._entries.setdefault((kind, price.provider, name), [])
                    if any(other.since_us == entry.since_us for other in held):
                        raise ConfigError(
                            f"{source}: {name} of {price.provider!r} has two prices from {price.since} on"
                        )
                    held.append(entry)
                    held.sort(key=lambda one: one.since_us)
                    self._providers.setdefault((kind, name), set()).add(price.provider)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.models) + len(self.tools)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a table.

        Parameters
        ----------
        path : str or Path
            The file; ``example`` is the table that is shipped.

        Raises
        ------
        ConfigError
            Names the file, the entry and what is wrong.
        """
        place = EXAMPLE if str(path) == "example" else Path(path)
        try:
            text = place.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path}: cannot be read ({error}); set STEERSMAN_PRICES to a price table, or to 'example'"
            ) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str = "prices.toml") -> Self:
        """As `load`, from the text of a file; `source` names it in errors."""
        document = read_document(text, source)
        return cls(document.model, document.tool, source)

    def cost(self, event: Mapping[str, Any], at_us: int | None = None) -> Priced:
        """Cost of a call.

        Parameters
        ----------
        event : mapping
            `FIELDS` of a trace event of one of the kinds `PRICED`; missing ones count as null.
        at_us : int, optional
            Time whose prices hold; unit: microseconds since 1970-01-01 UTC. The event's ``ts`` by default.
        """
        get = event.get
        kind, name, provider = get("kind"), get("operation") or "", get("provider") or ""
        entries = self._entries.get((kind, provider, name))  # type: ignore[arg-type]
        if entries is None:
            known = self._providers.get((kind, name), set()) if not provider else set()  # type: ignore[arg-type]
            if len(known) > 1:
                return Priced(None, "ambiguous_provider")
            if not known:
                return Priced(None, "unknown_tool" if kind == "TOOL_CALL" else "unknown_model")
            entries = self._entries[kind, next(iter(known)), name]  # type: ignore[index]
        at_us = get("ts") or 0 if at_us is None else at_us
        entry = next((entry for entry in reversed(entries) if entry.since_us <= at_us), None)
        if entry is None:
            return Priced(None, "before_first_price")
        if entry.rates is None:
            return _rounded(entry.per_call)
        return _of_tokens(entry, event)

    def _entry(self, price: ModelPrice | ToolPrice, where: str) -> _Entry:
        since = dt.datetime.combine(price.since, dt.time(), dt.UTC)
        since_us = int(since.timestamp()) * 1_000_000
        per_call = price.per_call * 10**12
        if per_call % 1:
            raise ConfigError(f"{self.source}: {where}.per_call has more than twelve decimals")
        if isinstance(price, ToolPrice):
            return _Entry(since_us, int(per_call), None, ())
        for rates in (price, *price.above):
            if rates.cache_write_default and rates.cache_write_default not in (
                rates.cache_write if isinstance(rates.cache_write, dict) else ()
            ):
                raise ConfigError(
                    f"{self.source}: {where}.cache_write_default: {rates.cache_write_default!r} is no duration of cache_write"
                )
        above = sorted(price.above, key=lambda tier: -tier.input_tokens)
        steps = tuple((tier.input_tokens, _Pico.of(inherit(tier, price))) for tier in above)
        return _Entry(since_us, int(per_call), _Pico.of(price), steps)


class ToPrice:
    """Stands for the cost of an event until it is sent: whoever records the event does not wait for its price.

    Parameters
    ----------
    prices : PriceTable
        What it will be priced by.
    """

    __slots__ = ("prices",)

    def __init__(self, prices: PriceTable) -> None:
        self.prices = prices


def prices_from_env() -> PriceTable | None:
    """Price table of ``STEERSMAN_PRICES`` (a file, or ``example``), None when that is not set; ConfigError when it is unusable."""
    path = os.environ.get("STEERSMAN_PRICES")
    return PriceTable.load(path) if path else None


def _of_tokens(entry: _Entry, event: Mapping[str, Any]) -> Priced:
    get = event.get
    total, written_out = get("input_tokens"), get("output_tokens")
    if total is None:
        return Priced(None, "no_tokens")
    rates = entry.rates
    for more_than, step in entry.above:
        if total > more_than:
            rates = step
            break
    if rates is None:
        raise TypeError("a model has rates")
    read, stored, thought = (
        get(name) or 0 for name in ("cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    )
    if read + stored > total or thought > (written_out or 0):
        # The contract counts cached tokens in; an event that does not would be charged wrongly either way.
        return Priced(None, "inconsistent_tokens")
    pico = entry.per_call + (total - read - stored) * rates.input
    if read:
        if rates.cached is None:
            return Priced(None, "no_cached_price")
        pico += read * rates.cached
    if stored:
        writes = _writes(event, stored, rates)
        if writes.micro_usd is None:
            return writes
        pico += writes.micro_usd
    if written_out is None:
        if rates.output is not None:
            return Priced(None, "no_tokens")
    elif written_out:
        if rates.output is None or rates.reasoning is None:
            return Priced(None, "no_output_price")
        pico += (written_out - thought) * rates.output + thought * rates.reasoning
    return _rounded(pico)


def _writes(event: Mapping[str, Any], stored: int, rates: _Pico) -> Priced:
    """Price of cache writes; unit: picodollars."""
    split = _split(event.get("attributes")) if len(rates.writes) > 1 else None
    if split is None:
        if rates.write_default is None:
            return Priced(None, "no_cache_write_price")
        return Priced(stored * rates.write_default)
    if sum(split.values()) != stored:
        return Priced(None, "inconsistent_tokens")
    if not split.keys() <= rates.writes.keys():
        return Priced(None, "no_cache_write_price")
    return Priced(sum(count * rates.writes[name] for name, count in split.items()))


def _split(attributes: object) -> dict[str, int] | None:
    """Cache writes by duration, where the attributes of an event tell them."""
    if isinstance(attributes, str):
        if WRITES not in attributes:
            return None
        try:
            attributes = json.loads(attributes)
        except (ValueError, RecursionError):
            return None
    split = attributes.get(WRITES) if isinstance(attributes, Mapping) else None
    if not isinstance(split, Mapping) or not all(type(count) is int and count >= 0 for count in split.values()):
        return None
    return {str(name): count for name, count in split.items()}


def _rounded(pico: int) -> Priced:
    micro = (pico + PICO_PER_MICRO // 2) // PICO_PER_MICRO
    return Priced(micro) if micro <= _MAX_COST else Priced(None, "too_large")
